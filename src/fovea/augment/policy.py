"""What torchvision's augmentation policies share: one image at a time, from the draw's random numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def apply_policy(policy: Callable[[Tensor], Tensor], images: Tensor, generator: torch.Generator) -> Tensor:
    """Put each image through `policy`, which draws from torch's global random numbers.

    Args:
        policy: from `(C, H, W) uint8` to the same; its operations are defined on whole levels.
        images: `(B, C, H, W) float32` in [0, 1].
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    levels = (images * 255).round().to(torch.uint8)
    with torch.random.fork_rng([]):
        # torch.manual_seed would seed every GPU, too, and a model's dropout there with it.
        torch.default_generator.manual_seed(seed)
        return torch.stack([policy(image) for image in levels]).float().div_(255)
