"""Zooming in and out."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import resample, uniform
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def scale(images: Tensor, draw: Draw, share: float = 0.2) -> Tensor:
    """Zoom each image around its centre by a factor of 1 - `share` to 1 + `share`; bilinear."""
    if not 0 <= share < 1:
        raise ConfigError(f"scale:{share:g} must lie between 0 and 1")
    zoom = uniform(len(images), 1 - share, 1 + share, draw.generator)
    matrices = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / zoom
    return resample(images, matrices)
