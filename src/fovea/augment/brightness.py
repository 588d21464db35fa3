"""Brightness."""

from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import uniform
from fovea.registry import augmentation


@augmentation
def brightness(images: Tensor, draw: Draw, share: float = 0.2) -> Tensor:
    """Make each image brighter or darker: times a factor of 1 - `share` to 1 + `share`."""
    factor = uniform(len(images), 1 - share, 1 + share, draw.generator)
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)
