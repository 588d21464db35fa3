"""Classes of few images beside classes of many: weights for the loss, or an order that shows all classes equally often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_weights(counts: Sequence[int]) -> Tensor:
    """`(K,) float32` weights of the classes in the loss: each class as a whole counts the same.

    The weight of a class is the inverse of its share of the images, whose mean over the images is 1, so that lr keeps its
    meaning. (The effective number of samples of Cui et al. 2019, eq. 2, has a parameter that nothing in the data sets;
    with theirs, 0.999 and more, it is nearly this for classes of up to some hundred images.)
    """
    there = sum(count > 0 for count in counts)
    return torch.tensor([sum(counts) / (there * count) if count else 0.0 for count in counts])


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """As many row numbers as `(N,) int64` labels, in random order, each class as often as any other (or once more).

    No image of a class is drawn a third time before all of it were drawn twice: rare images are repeated evenly, of
    common ones some are left out.
    """
    classes = torch.unique(labels).tolist()
    drawn = []
    for number, label in enumerate(classes):
        rows = (labels == label).nonzero().flatten()
        count = len(labels) // len(classes) + (number < len(labels) % len(classes))
        turns = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // len(rows)))]
        drawn.append(torch.cat([*turns, rows[:0]])[:count])
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=generator)]
