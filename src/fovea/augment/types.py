"""What every augmentation is given, and gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Draw:
    """The random numbers and the place in the run that an augmentation may use."""

    generator: torch.Generator  # on the images' device; take every random number from it
    times: Tensor  # (B,) int64: how often the run has shown each image, this time included
    rows: Tensor  # (B,) int64: which images of the data set these are
    seed: int = 0  # of the run: what must stay the same from epoch to epoch can follow from it


@dataclass(frozen=True)
class Mixed:
    """What an augmentation returns that mixes each image with another of its batch, and so its label, too."""

    images: Tensor  # (B, C, H, W) float32 in [0, 1]
    partners: Tensor  # (B,) int64: which image of the batch each was mixed with
    shares: Tensor  # (B,) float32 in [0, 1]: how much of its own label each keeps; the rest is its partner's

    def targets(self, labels: Tensor, num_classes: int) -> Tensor:
        """`(B,) int64` labels to `(B, K) float32` probabilities."""
        own, other = (F.one_hot(each, num_classes) for each in (labels, labels[self.partners]))
        share = self.shares[:, None]
        return share * own + (1 - share) * other


Augmentation = Callable[[Tensor, Draw], Tensor | Mixed]
"""`(B, C, H, W) float32` in [0, 1], and a Draw, to the same shape and range; each image by its own chance.

One that changes labels, too, returns `Mixed`, and says so in its annotation: `-> Mixed`. It comes last.
"""


def moves_pixels(function: FunctionT) -> FunctionT:
    """Mark an augmentation that only moves pixels: it takes and gives `uint8` as well, a quarter of the bytes.

    Where such ones come first, they are applied before the images become floats. Stands below `@augmentation`.
    """
    function.moves_pixels = True  # type: ignore[attr-defined]
    return function


def mixes_labels(function: Callable[..., object]) -> bool:
    """Is the augmentation annotated to return `Mixed`?"""
    return inspect.signature(function).return_annotation in (Mixed, "Mixed")
