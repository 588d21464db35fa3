"""RandAugment (Cubuk et al. 2020), as torchvision has it."""

from torch import Tensor

from fovea.augment.policy import apply_policy
from fovea.augment.types import Draw
from fovea.errors import ConfigError
from fovea.registry import augmentation


@augmentation
def randaugment(images: Tensor, draw: Draw, num_ops: int = 2, magnitude: int = 9) -> Tensor:
    """Put each image through `num_ops` of 14 operations, drawn for it, all of one strength from 0 to 30; slow.

    Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space".
    """
    from torchvision.transforms.v2 import RandAugment

    if num_ops < 1:
        raise ConfigError(f"randaugment:num_ops={num_ops} must be at least 1")
    if not 0 <= magnitude <= 30:
        raise ConfigError(f"randaugment:magnitude={magnitude} must lie between 0 and 30")
    return apply_policy(RandAugment(num_ops, magnitude), images, draw.generator)
