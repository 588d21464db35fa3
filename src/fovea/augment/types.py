"""What every augmentation is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """The random numbers and the place in the run that an augmentation may use."""

    generator: torch.Generator  # on the images' device; take every random number from it
    epoch: int  # from 1
    rows: Tensor  # (B,) int64: which images of the data set these are
    seed: int = 0  # of the run: what must stay the same from epoch to epoch can follow from it


Augmentation = Callable[[Tensor, Draw], Tensor]
"""`(B, C, H, W) float32` in [0, 1], and a Draw, to the same shape and range; each image by its own chance."""
