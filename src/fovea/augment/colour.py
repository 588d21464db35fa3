"""Colour: saturation, and a cast."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.augment.warp import uniform
from fovea.registry import augmentation


@augmentation
def colour(images: Tensor, draw: Draw, share: float = 0.2) -> Tensor:
    """Change each image's saturation, and each of its channels, by a factor of 1 - `share` to 1 + `share`.

    Of a grayscale image only the one channel's factor is left.
    """
    count, channels = images.shape[:2]
    saturation = uniform(count, 1 - share, 1 + share, draw.generator).view(-1, 1, 1, 1)
    cast = 1 - share + 2 * share * torch.rand(count, channels, 1, 1, generator=draw.generator, device=images.device)
    grey = images.mean(dim=1, keepdim=True)
    return ((grey + (images - grey) * saturation) * cast).clamp_(0, 1)
