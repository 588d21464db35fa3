"""Left-right mirror images."""

import torch
from torch import Tensor

from fovea.augment.types import Draw
from fovea.registry import augmentation


@augmentation
def mirror(images: Tensor, draw: Draw, probability: float = 0.5) -> Tensor:
    """Mirror each image left to right with the given probability."""
    chance = torch.rand(len(images), generator=draw.generator, device=images.device)
    return torch.where((chance < probability).view(-1, 1, 1, 1), images.flip(-1), images)
