"""Noise."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import uniform
from fovea.registry import augmentation


@augmentation
def noise(images: Tensor, draw: Draw, std: float = 0.05) -> Tensor:
    """Add Gaussian noise, of a standard deviation of each image's own between 0 and `std` (levels are 0 to 1)."""
    strength = uniform(len(images), 0, std, draw.generator).view(-1, 1, 1, 1)
    grain = torch.randn(images.shape, generator=draw.generator, device=images.device)
    return grain.mul_(strength).add_(images).clamp_(0, 1)
