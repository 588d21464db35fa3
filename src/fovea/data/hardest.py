"""Leaving out what is learned already."""

from __future__ import annotations

import torch
from torch import Tensor


class Hardest:
    """Chooses for each epoch the share of the images whose loss was largest when they were last seen.

    Images that were not seen yet come first. What is left out keeps its old loss, and comes back when the others have
    fallen below it. After airbench96's filter (Jordan 2024), which asks a small network trained beside for the losses.
    """

    def __init__(self, num_images: int, share: float) -> None:
        self.num_chosen = max(1, round(share * num_images))
        self.leaves_out = self.num_chosen < num_images
        self.losses = torch.full((num_images if self.leaves_out else 0,), torch.inf)
        self.times = torch.zeros_like(self.losses, dtype=torch.int64)  # that each was shown

    def choose(self, order: Tensor) -> Tensor:
        """The `(M,)` row numbers of `(N,)` that this epoch takes, in the same order; all where the share is 1."""
        if not self.leaves_out:
            return order
        hardest = self.losses[order].argsort(descending=True, stable=True)[: self.num_chosen]
        return order[hardest.sort().values]

    def learn(self, rows: Tensor, losses: Tensor) -> None:
        """Note the `(M,)` losses, on the CPU, of the images in these rows."""
        self.losses[rows] = losses.float()
        self.times[rows] += 1

    def times_shown(self, rows: Tensor, epoch: int) -> Tensor:
        """How often each image of these rows was shown, once `epoch` has shown it, `(M,) int64`."""
        return self.times[rows] + 1 if self.leaves_out else torch.full_like(rows, epoch)
