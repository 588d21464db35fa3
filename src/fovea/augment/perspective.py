"""Looking at the image from an angle."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import resample, uniform
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def perspective(images: Tensor, draw: Draw, tilt: float = 0.3) -> Tensor:
    """Tilt each image: one edge comes nearer and the opposite one goes farther, each by up to about half of `tilt`."""
    if not 0 <= tilt < 1:
        raise ConfigError(f"perspective:{tilt:g} must lie between 0 and 1")
    count, _, height, width = images.shape
    matrices = torch.eye(3, device=images.device).repeat(count, 1, 1)
    # The third row divides: at an edge, half an image away from the centre, by 1 ± tilt / 2.
    matrices[:, 2, 0] = uniform(count, -tilt, tilt, draw.generator) / width
    matrices[:, 2, 1] = uniform(count, -tilt, tilt, draw.generator) / height
    return resample(images, matrices)
