"""Random shifts: the crop with padding that CIFAR recipes use."""

import numpy as np
import torch
from torch import Tensor

from fovea.augment.types import Draw, moves_pixels
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
@moves_pixels
def shift(images: Tensor, draw: Draw, pixels: int = 2) -> Tensor:
    """Shift each image by up to `pixels` in both directions; reflection fills the edge."""
    count, _, height, width = images.shape
    if not 0 <= pixels < min(height, width):
        raise ConfigError(f"shift:{pixels} does not fit images of {width}×{height} pixels")
    offset = torch.randint(2 * pixels + 1, (2, count), generator=draw.generator, device=images.device)
    if images.device.type == "cpu":  # whole rows are copied, where indexing goes pixel by pixel
        edges = ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels))
        padded = np.pad(images.numpy(), edges, mode="reflect")
        moved = np.empty(images.shape, padded.dtype)
        for image, source, top, left in zip(moved, padded, *offset.tolist(), strict=True):
            image[:] = source[:, top : top + height, left : left + width]
        return torch.from_numpy(moved)
    rows = _reflected(offset[0, :, None] - pixels + torch.arange(height, device=images.device), height)
    columns = _reflected(offset[1, :, None] - pixels + torch.arange(width, device=images.device), width)
    image = torch.arange(count, device=images.device)[:, None, None]
    # Indexing with three tensors puts the channels last.
    return images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions from `1 - size` to `2 * size - 2` to those within the image."""
    return (size - 1) - ((size - 1) - position.abs()).abs()
