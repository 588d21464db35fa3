"""Cutout (DeVries & Taylor 2017)."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def cutout(images: Tensor, draw: Draw, pixels: int = 8, whole: bool = False) -> Tensor:
    """Fill a square of `pixels` × `pixels` of each image with the image's mean colour.

    Args:
        whole: the square lies within the image (as in airbench96, Jordan 2024); without it, it may reach over the edge.
    """
    count, _, height, width = images.shape
    if not 0 < pixels <= min(height, width):
        raise ConfigError(f"cutout:{pixels} does not fit images of {width}×{height} pixels")

    def inside(side: int) -> Tensor:
        places = side - pixels + 1 if whole else side
        start = torch.randint(places, (count, 1), generator=draw.generator, device=images.device)
        start = start if whole else start - pixels // 2  # the centre is anywhere
        position = torch.arange(side, device=images.device)
        return (position >= start) & (position < start + pixels)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)
