"""Rotation around the centre."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import resample, uniform
from fovea.registry import augmentation


@augmentation
def rotate(images: Tensor, draw: Draw, degrees: float = 15.0) -> Tensor:
    """Rotate each image around its centre by up to `degrees` either way; bilinear, reflection fills the corners."""
    angle = torch.deg2rad(uniform(len(images), -degrees, degrees, draw.generator))
    matrices = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    matrices[:, 0, 0] = matrices[:, 1, 1] = angle.cos()
    matrices[:, 0, 1], matrices[:, 1, 0] = -angle.sin(), angle.sin()
    return resample(images, matrices)
