"""Contrast."""

from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import uniform
from fovea.registry import augmentation


@augmentation
def contrast(images: Tensor, draw: Draw, share: float = 0.2) -> Tensor:
    """Spread or narrow each image's levels around its own mean, by a factor of 1 - `share` to 1 + `share`."""
    factor = uniform(len(images), 1 - share, 1 + share, draw.generator).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * factor).clamp_(0, 1)
