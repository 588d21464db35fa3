"""Random crops, enlarged: a part of each picture, as if seen from nearer and elsewhere."""

import math

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import resample, uniform
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def crop(images: Tensor, draw: Draw, area: float = 0.35, ratio: float = 4 / 3) -> Tensor:
    """Cut a random part out of each image, and enlarge it to the whole; bilinear.

    The part has `area` to all of the image's pixels, and is up to `ratio` times as wide as high, or as high as wide,
    relative to the image (Szegedy et al. 2015, "Going deeper with convolutions", section 6, with areas from 0.08 on).
    """
    if not 0 < area <= 1 or ratio < 1:
        raise ConfigError(f"crop:{area:g}:{ratio:g}: area must lie between 0 and 1, ratio must be 1 or more")
    count, _, height, width = images.shape
    share = uniform(count, area, 1, draw.generator)
    shape = uniform(count, -math.log(ratio), math.log(ratio), draw.generator).exp()
    # Whole pixels, and never more than there are: an elongated part of nearly all of the image loses its ends.
    wide = (width * (share * shape).sqrt()).round().clamp(1, width)
    high = (height * (share / shape).sqrt()).round().clamp(1, height)
    left = (uniform(count, 0, 1, draw.generator) * (width - wide + 1)).floor()
    top = (uniform(count, 0, 1, draw.generator) * (height - high + 1)).floor()
    matrices = torch.eye(3, device=images.device).repeat(count, 1, 1)
    matrices[:, 0, 0], matrices[:, 1, 1] = wide / width, high / height
    matrices[:, 0, 2], matrices[:, 1, 2] = left + (wide - width) / 2, top + (high - height) / 2
    return resample(images, matrices)
