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

    def choose(self, order: Tensor) -> Tensor:
        """The `(M,)` row numbers of `(N,)` that this epoch takes, in the same order; all where the share is 1."""
        if not self.leaves_out:
            return order
        hardest = self.losses[order].argsort(descending=True, stable=True)[: self.num_chosen]
        return order[hardest.sort().values]

    def learn(self, rows: Tensor, losses: Tensor) -> None:
        """Note the `(M,)` losses, on the CPU, of the images in these rows."""
        self.losses[rows] = losses.float()
