"""Random shifts: the crop with padding that CIFAR recipes use."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.augment.types import Draw
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def shift(images: Tensor, draw: Draw, pixels: int = 2) -> Tensor:
    """Shift each image by up to `pixels` in both directions; reflection fills the edge."""
    count, _, height, width = images.shape
    if not 0 <= pixels < min(height, width):
        raise ConfigError(f"shift:{pixels} does not fit images of {width}×{height} pixels")
    padded = F.pad(images, (pixels,) * 4, mode="reflect")
    offset = torch.randint(2 * pixels + 1, (2, count), generator=draw.generator, device=images.device)
    rows = offset[0, :, None] + torch.arange(height, device=images.device)
    columns = offset[1, :, None] + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)[:, None, None]
    # Indexing with three tensors puts the channels last.
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
