"""MixUp: pairs of images, one shining through the other (Zhang et al. 2018)."""

from torch import Tensor

from fovea.augment.mixing import partners, shares
from fovea.augment.types import Draw, Mixed
from fovea.registry import augmentation


@augmentation
def mixup(images: Tensor, draw: Draw, alpha: float = 1.0, probability: float = 1.0) -> Mixed:
    """Blend each image, and its label, with another of the batch; comes last.

    x = s x_i + (1 - s) x_j and the same of the labels, s of Beta(alpha, alpha) for each image of its own (Zhang et al.
    2018, "mixup: Beyond Empirical Risk Minimization", section 2; alpha = 1 is theirs on CIFAR-10).
    """
    share = shares("mixup", len(images), alpha, probability, draw.generator)
    other = partners(len(images), draw.generator)
    weight = share.view(-1, 1, 1, 1)
    return Mixed((weight * images + (1 - weight) * images[other]).clamp_(0, 1), other, share)
