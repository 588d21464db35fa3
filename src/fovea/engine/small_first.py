"""Smaller images in the first steps of a training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.config import SmallFirstConfig
from fovea.errors import ConfigError
from fovea.models.base import Model


def stages(config: SmallFirstConfig) -> list[tuple[float, float]]:
    """(the share of all steps at which it ends, the factor of both sides) of each stage; the last has whole images."""
    ends = [config.until * number / config.sizes for number in range(1, config.sizes + 1)] if config.until else []
    widen = (1 - config.scale) / config.sizes
    return [*((end, config.scale + number * widen) for number, end in enumerate(ends)), (1.0, 1.0)]


def scale_at(config: SmallFirstConfig, share: float) -> float:
    """The factor of both sides in the step that completes this share, above 0 to 1, of all steps."""
    return next(scale for end, scale in stages(config) if share <= end + 1e-9)  # 0.6 / 3 is a little less than 0.2


def shrink(images: Tensor, scale: float) -> Tensor:
    """`(N, C, H, W)` images with both sides times `scale`, rounded down, each pixel the mean of those it stands for."""
    return F.interpolate(images, scale_factor=scale, mode="area")


def check_small_first(config: SmallFirstConfig, model: Model, channels: int, image_size: tuple[int, int]) -> None:
    """Raises ConfigError where the network cannot take images that small, before anything is trained."""
    if not config.until:
        return
    height, width = image_size
    small = f"{width * config.scale:.0f}×{height * config.scale:.0f}"
    was_training = model.training
    model.eval()  # batch normalization takes one image, and its averages stay as they are
    try:
        with torch.no_grad():
            model(shrink(torch.zeros(1, channels, height, width), config.scale))
    except (RuntimeError, ValueError) as error:  # what PyTorch raises for shapes that do not fit
        raise ConfigError(
            f"the first steps use images of {small} instead of {width}×{height} pixels, which the model cannot take "
            f"({str(error).splitlines()[0]}): give --set small_first.until=0, or larger images"
        ) from None
    finally:
        model.train(was_training)
