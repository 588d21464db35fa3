"""Cutout (DeVries & Taylor 2017)."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def cutout(images: Tensor, draw: Draw, pixels: int = 8) -> Tensor:
    """Fill a square of `pixels` × `pixels` of each image with the image's mean colour; it may reach over the edge."""
    count, _, height, width = images.shape
    if not 0 < pixels <= min(height, width):
        raise ConfigError(f"cutout:{pixels} does not fit images of {width}×{height} pixels")

    def inside(side: int) -> Tensor:
        centre = torch.randint(side, (count, 1), generator=draw.generator, device=images.device)
        position = torch.arange(side, device=images.device)
        return (position >= centre - pixels // 2) & (position < centre - pixels // 2 + pixels)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)
