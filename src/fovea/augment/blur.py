"""Blur, which is what smoothing away noise does to an image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import uniform
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def blur(images: Tensor, draw: Draw, sigma: float = 1.0) -> Tensor:
    """Blur each image by a Gaussian, of a width of its own between 0 and `sigma` pixels."""
    count, channels, height, width = images.shape
    reach = max(1, round(3 * sigma))  # beyond three widths a Gaussian has 0.3 % left
    if sigma <= 0 or reach >= min(height, width):
        raise ConfigError(f"blur:{sigma:g} does not fit images of {width}×{height} pixels")
    widths = uniform(count, 0.01, sigma, draw.generator).repeat_interleave(channels)[:, None]
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / widths).square())
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    # Each channel of each image is a group of its own, so that each has its own kernel.
    flat = F.pad(images, (reach,) * 4, mode="reflect").reshape(
        1, count * channels, height + 2 * reach, width + 2 * reach
    )
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    return flat.reshape(images.shape).clamp_(0, 1)
