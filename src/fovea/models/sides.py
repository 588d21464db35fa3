"""Sides of images cut into the tiles of Winograd's convolution, and the points at which tiles are multiplied."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fovea.models.vectors import Matrix

# Pixels along a side: each more costs float32 half a digit; of bfloat16 2, 3, 4, 5, 6, 7 lose 5, 7, 13, 26, 60, 146
# thousandths (EXPERIMENTS.md).
LARGEST = 8
LARGEST_ROUNDED = 4


class Side(NamedTuple):
    """A side of an image: tiles of `large` outputs first, then smaller ones, as 14 = 4 + 4 + 4 + 2.

    The smaller ones make do with some of the points of the larger: the same transformed weights serve both.
    """

    large: int
    num_large: int
    small: int
    num_small: int

    @property
    def num_points(self) -> int:
        """Of a large tile."""
        return self.large + 2

    @property
    def num_common(self) -> int:
        """How many of them small tiles have, too: all where there are none."""
        return self.small + 2 if self.num_small else self.num_points

    @property
    def num_tiles(self) -> int:
        """Of both sizes."""
        return self.num_large + self.num_small

    def start(self, tile: int) -> int:
        """The first output of a tile."""
        return min(tile, self.num_large) * self.large + max(0, tile - self.num_large) * self.small


@lru_cache(maxsize=256)
def cut(outputs: int, largest: int, pool: bool) -> Side:
    """The way with the fewest products, of tiles of up to `largest` outputs; for a pooling, of an even size."""
    sizes = range(1, largest + 1)
    ways = []
    for large in sizes[1::2] if pool else sizes:
        for num_large in range(1, -(-outputs // large) + 1):
            rest = outputs - num_large * large
            if rest <= 0:
                ways.append(Side(large, num_large, 0, 0))
                continue
            smaller = range(2, large, 2) if pool else range(1, large)
            ways += [Side(large, num_large, small, -(-rest // small)) for small in smaller]
    return min(ways, key=lambda side: (_num_products(side), side.large, side.num_small))


def _num_products(side: Side) -> int:
    return side.num_large * (side.large + 2) + side.num_small * (side.small + 2)


class Points(NamedTuple):
    """What a side of a tile of m outputs is multiplied by: `Aᵀ[(G g) ⊙ (Bᵀ d)]` of a kernel g and m + 2 inputs d."""

    back: Matrix  # `(m + 2, m)`: A
    forth: Matrix  # `(m + 2, m + 2)`: Bᵀ


@lru_cache(maxsize=64)
def angles(large: int, small: int) -> Matrix:
    """Of the points of a tile with `large` outputs, those of one with `small` (0: none) first.

    After Toom and Cook, polynomials are multiplied at m + 2 points. These are tan(k π / n): evenly spread over the projective
    line, ∞ among them. The usual 0, ±1, ±2, ±1/2 lose two to three times as much to rounding (EXPERIMENTS.md), and here,
    too, all but 0 and ∞ come in pairs.
    """
    found: Matrix = np.arange(large + 2, dtype=np.float64) * float(np.pi / (large + 2))
    if not small:
        return found
    choices = itertools.combinations(range(len(found)), small + 2)
    first = min(choices, key=lambda chosen: round(float(np.linalg.cond(evaluate(found[list(chosen)], small + 2))), 6))
    return np.concatenate([found[list(first)], np.delete(found, first)])


def evaluate(at: Matrix, length: int) -> Matrix:
    """Polynomials of so many coefficients at each of the angles, as a matrix."""
    degrees = np.arange(length)
    values: Matrix = np.sin(at)[:, None] ** degrees[::-1] * np.cos(at)[:, None] ** degrees
    return values


@lru_cache(maxsize=64)
def points_of(large: int, small: int, is_large: bool) -> Points:
    """Of a large or a small tile."""
    outputs = large if is_large else small
    at = angles(large, small)[: outputs + 2]
    return Points(evaluate(at, outputs), np.linalg.inv(evaluate(at, outputs + 2)).T)
