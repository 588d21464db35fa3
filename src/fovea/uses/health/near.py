"""Near duplicates: the same picture saved again, brighter, cropped a little, mirrored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fovea.uses.health.align import likeness
from fovea.uses.health.cores import on_all_cores
from fovea.uses.health.descriptors import Descriptors

# Chosen by looking at pairs of CIFAR-10: of those above 0.8 nearly all are the same picture, below 0.7 many are not
# (two ships on the horizon, two cars of one make on white). benchmarks/health.md has the figures.
SAME = 0.78  # 0.80 for CIFAR-10, see `_least`
_ALIKE = 0.77  # similarity of descriptors from which on a pair is looked at (see descriptors.py)
_NEIGHBOURS = 3  # so many of the most alike of each image, in each bucket: bounds the work where all images are alike
_ALL_PAIRS = 4096  # up to so many images, all are compared with all
_NEAREST = 5  # pivots of each image: of 238 pairs of CIFAR-10 3 are missed by it; with 3 pivots 11, with 8 two
_DRAWN = 1000  # pairs, to see how alike images of a class are by chance
_STRIP, _BATCH = 512, 512  # images at a time that stay in a processor's cache


@dataclass(frozen=True)
class Pairs:
    """Pairs of images that show the same, or nearly; the most alike first."""

    rows: Tensor  # (P, 2) int64, the smaller first
    likeness: Tensor  # (P,) float32, up to 1
    mirrored: Tensor  # (P,) bool


def near_duplicates(
    found: Descriptors, labels: Tensor, pick: Callable[[Tensor], Tensor], tick: Callable[[int], None]
) -> Pairs:
    """Pairs of the same picture among images, given their descriptors and how to get at them.

    Args:
        labels: `(N,) int64`.
        pick: the `(B, C, H, W) uint8` images of some rows.
        tick: called with how many images are done.
    """
    rows = _candidates(found, tick)
    mirrored = (found.odd[rows[:, 0]] * found.odd[rows[:, 1]]).sum(1) < 0
    alike = _likeness(rows, mirrored, pick)
    order = alike.argsort(descending=True, stable=True)
    order = order[alike[order] >= _least(labels, pick)]
    return Pairs(rows[order], alike[order], mirrored[order])


def _likeness(rows: Tensor, mirrored: Tensor, pick: Callable[[Tensor], Tensor]) -> Tensor:
    """`(P,)` of pairs of images, the second of which is mirrored first where that is said."""

    def compare(chosen: Tensor) -> Tensor:
        first, second = pick(rows[chosen, 0]), pick(rows[chosen, 1])
        flipped = mirrored[chosen]
        second[flipped] = second[flipped].flip(3)
        return likeness(first, second)

    parts = torch.split(torch.arange(len(rows)), _BATCH) if len(rows) else []
    return torch.cat([torch.zeros(0), *on_all_cores(compare, parts)])


def _least(labels: Tensor, pick: Callable[[Tensor], Tensor]) -> float:
    """The likeness from which on a pair is the same picture: `SAME`, and more where all images of a class are alike.

    In CIFAR-10, one pair in twenty drawn at random within the classes has 0.04 or more, in Fashion-MNIST 0.68: shirts, like
    handwritten digits or parts before one fixed camera, lie over each other anyhow, and only 0.98 says something there.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # by class, at random within
    neighbours = torch.stack([order[:-1], order[1:]], 1)
    neighbours = neighbours[labels[neighbours[:, 0]] == labels[neighbours[:, 1]]]
    drawn = neighbours[torch.randperm(len(neighbours), generator=generator)[:_DRAWN]]
    if len(drawn) < _DRAWN // 5:  # too few to tell copies from chance
        return SAME
    chance = float(_likeness(drawn, torch.zeros(len(drawn), dtype=torch.bool), pick).quantile(0.95))
    return 1 - (1 - SAME) * (1 - max(0.0, chance)) ** 2


def _candidates(found: Descriptors, tick: Callable[[int], None]) -> Tensor:
    """Pairs of images that look alike from afar: `(P, 2) int64`, the smaller first.

    All are compared with all; of many images, those that have a nearest pivot in common.
    """
    buckets = [torch.arange(len(found))] if len(found) <= _ALL_PAIRS else _buckets(found)
    strips = [(rows, strip) for rows in buckets for strip in torch.split(rows, _STRIP)]
    total, done = sum(len(strip) for _, strip in strips), 0

    def neighbours(item: tuple[Tensor, Tensor]) -> Tensor:
        rows, strip = item
        alike = found[strip].similarity(found[rows])
        alike[strip[:, None] == rows] = -1  # itself
        best = alike.topk(min(_NEIGHBOURS, len(rows)), dim=1)
        row, rank = (best.values > _ALIKE).nonzero().unbind(1)
        pairs = torch.stack([strip[row], rows[best.indices[row, rank]]], 1).sort(1).values
        return pairs[:, 0] * len(found) + pairs[:, 1]

    keys = [torch.zeros(0, dtype=torch.int64)]
    for (_, strip), part in zip(strips, on_all_cores(neighbours, strips), strict=True):
        keys.append(part)
        done += len(strip)
        tick(len(found) * done // total)
    unique = torch.unique(torch.cat(keys))
    return torch.stack([unique // max(1, len(found)), unique % max(1, len(found))], 1)


def _buckets(found: Descriptors) -> list[Tensor]:
    """Rows that have one of their nearest pivots in common, for each pivot: images drawn by a fixed seed."""
    num_pivots = round(2 * math.sqrt(len(found)))  # so that pivots and the members of a bucket cost about the same
    generator = torch.Generator().manual_seed(0)
    pivots = found[torch.randperm(len(found), generator=generator)[:num_pivots]]
    strips = torch.split(torch.arange(len(found)), _STRIP)
    nearest = torch.cat([found[strip].similarity(pivots).topk(_NEAREST).indices for strip in strips])
    order = nearest.flatten().sort(stable=True)
    sizes = torch.bincount(order.values, minlength=num_pivots).tolist()
    return list(torch.split(order.indices // _NEAREST, sizes))
