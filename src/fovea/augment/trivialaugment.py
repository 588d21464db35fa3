"""TrivialAugment (Müller & Hutter 2021), as torchvision has it."""

from torch import Tensor

from fovea.augment.policy import apply_policy
from fovea.augment.types import Draw
from fovea.registry import augmentation


@augmentation
def trivialaugment(images: Tensor, draw: Draw) -> Tensor:
    """Put each image through one of 14 operations, drawn for it with a strength of its own; slow.

    The "wide" ranges of Müller & Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation".
    """
    from torchvision.transforms.v2 import TrivialAugmentWide

    return apply_policy(TrivialAugmentWide(), images, draw.generator)
