"""CutMix: a rectangle of each image comes from another (Yun et al. 2019)."""

import torch
from torch import Tensor

from fovea.augment.mixing import partners, shares
from fovea.augment.types import Draw, Mixed
from fovea.registry import augmentation


@augmentation
def cutmix(images: Tensor, draw: Draw, alpha: float = 1.0, probability: float = 0.5) -> Mixed:
    """Paste a rectangle of another image of the batch into each image, and mix labels by area; comes last.

    The rectangle has the image's proportions and 1 - s of its area, s of Beta(alpha, alpha) for each image of its own;
    its centre lies anywhere in the image, which cuts off what reaches over the edge (Yun et al. 2019, "CutMix",
    section 3.1; alpha = 1 and every second batch are theirs on CIFAR). Labels are mixed by the pixels that were pasted.
    """
    count, _, height, width = images.shape
    sides = (1 - shares("cutmix", count, alpha, probability, draw.generator)).sqrt()
    other = partners(count, draw.generator)

    def inside(side: int) -> Tensor:
        length = (sides[:, None] * side).long()
        centre = torch.randint(side, (count, 1), generator=draw.generator, device=images.device)
        position = torch.arange(side, device=images.device)
        return (position >= centre - length // 2) & (position < centre - length // 2 + length)

    pasted = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    mixed = torch.where(pasted, images[other], images)
    return Mixed(mixed, other, 1 - pasted.float().mean(dim=(1, 2, 3)))
