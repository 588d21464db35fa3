"""Sides of images cut into the tiles of Winograd's convolution, and what lies in memory for them."""

from __future__ import annotations

import itertools
import math
import threading
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fovea.models.kernels import Kernel, Plan, compiled
from fovea.models.vectors import Matrix

# Pixels along a side: each more costs float32 half a digit; of bfloat16 2, 3, 4, 5, 6, 7 lose 5, 7, 13, 26, 60, 146
# thousandths (EXPERIMENTS.md).
LARGEST = 8
LARGEST_BF16 = 4
_LANES = 16  # floats of a vector of AVX-512, the widest there is


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
def cut(outputs: int, half: bool, pool: bool) -> Side:
    """The way with the fewest products; for a pooling, of tiles of an even size."""
    sizes = range(1, (LARGEST_BF16 if half else LARGEST) + 1)
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
def _angles(large: int, small: int) -> Matrix:
    """Of the points of a tile with `large` outputs, those of one with `small` (0: none) first.

    After Toom and Cook, polynomials are multiplied at m + 2 points. These are tan(k π / n): evenly spread over the projective
    line, ∞ among them. The usual 0, ±1, ±2, ±1/2 lose two to three times as much to rounding (EXPERIMENTS.md), and here,
    too, all but 0 and ∞ come in pairs.
    """
    angles: Matrix = np.arange(large + 2, dtype=np.float64) * float(np.pi / (large + 2))
    if not small:
        return angles
    choices = itertools.combinations(range(len(angles)), small + 2)
    first = min(choices, key=lambda chosen: round(float(np.linalg.cond(_evaluate(angles[list(chosen)], small + 2))), 6))
    return np.concatenate([angles[list(first)], np.delete(angles, first)])


def _evaluate(angles: Matrix, length: int) -> Matrix:
    """Polynomials of so many coefficients at each point, as a matrix."""
    degrees = np.arange(length)
    values: Matrix = np.sin(angles)[:, None] ** degrees[::-1] * np.cos(angles)[:, None] ** degrees
    return values


@lru_cache(maxsize=64)
def _points(large: int, small: int, is_large: bool) -> Points:
    outputs = large if is_large else small
    angles = _angles(large, small)[: outputs + 2]
    return Points(_evaluate(angles, outputs), np.linalg.inv(_evaluate(angles, outputs + 2)).T)


class Grid:
    """Tiles of both sides, for images of one size: the ways between pixels and points, and the room for the points.

    Tiles are float32, or with `half` bfloat16. What lies outside of the image is 0 where it is read, and dropped where it is
    written. With `pool`, the pixels that the convolution writes are the largest of every 2×2, and `chosen`, of the same shape
    in uint8, says which of the four.
    """

    def __init__(self, height: int, width: int, half: bool, pool: bool) -> None:
        self.down, self.across = cut(height, half, pool), cut(width, half, pool)
        self._half, self._pool = half, pool
        self._made: dict[tuple[str, bool, bool, int], Kernel] = {}

    @cached_property
    def kernels(self) -> tuple[Tensor, Tensor]:
        """`(points, 3)` for each side: a kernel's side at the points."""
        sides = (_evaluate(_angles(side.large, side.small), 3) for side in self._sides)
        down, across = (torch.from_numpy(side).float() for side in sides)
        return down, across

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self.down, self.across

    def shares(self) -> list[tuple[slice, slice]]:
        """The points, down and across, that the same tiles have: those of all tiles, of large columns, rows, and both."""
        pieces = [
            [slice(0, side.num_common), slice(side.num_common, side.num_points)][: 1 + bool(side.num_small)]
            for side in self._sides
        ]
        return list(itertools.product(*pieces))

    def room(self, rows: range, count: int, channels: int, slot: int) -> list[Tensor]:
        """For these rows of tiles of `count` images, `(points, tiles · N, channels)` of each of the shares.

        The next call with this slot, in the same thread, gives the same memory again: new memory comes page by page.
        """
        shapes = []
        for down, across in self.shares():
            num_rows = len(rows) if down.start == 0 else max(0, min(rows.stop, self.down.num_large) - rows.start)
            num_columns = self.across.num_tiles if across.start == 0 else self.across.num_large
            num_points = (down.stop - down.start) * (across.stop - across.start)
            shapes.append((num_points, num_rows * num_columns * count, channels))
        sizes = [math.prod(shape) for shape in shapes]
        memory = _memory(slot, sum(sizes), torch.bfloat16 if self._half else torch.float32)
        return [part.view(shape) for part, shape in zip(torch.split(memory, sizes), shapes, strict=True)]

    def gather(self, pixels: Tensor, tiles: list[Tensor], rows: range) -> None:
        """What the convolution reads of `(H, W, N, C) float32` pixels."""
        self._run("gather", pixels, None, tiles, rows)

    def spread(self, gradient: Tensor, chosen: Tensor | None, tiles: list[Tensor], rows: range) -> None:
        """The gradient of what it writes: the transpose of `collect`."""
        self._run("spread", gradient, chosen, tiles, rows)

    def collect(self, tiles: list[Tensor], pixels: Tensor, chosen: Tensor | None, rows: range) -> None:
        """What it writes."""
        self._run("collect", pixels, chosen, tiles, rows)

    def add(self, tiles: list[Tensor], gradient: Tensor, rows: range) -> None:
        """The gradient of what it reads, added up: the transpose of `gather`."""
        self._run("add", gradient, None, tiles, rows)

    def _run(self, kind: str, pixels: Tensor, chosen: Tensor | None, tiles: list[Tensor], rows: range) -> None:
        beyond = pixels.new_zeros(pixels[0, 0].numel())  # stands for each pixel outside
        planes = self._planes(tiles)
        pool = 2 if self._pool and kind in ("spread", "collect") else 1
        for large_row, large_column in itertools.product((True, False), repeat=2):
            bounds = []
            for side, is_large, within in (
                (self.down, large_row, rows),
                (self.across, large_column, range(self.across.num_tiles)),
            ):
                first, last = (0, side.num_large) if is_large else (side.num_large, side.num_tiles)
                bounds.append(range(max(first, within.start), min(last, within.stop)))
            if not all(bounds):
                continue
            down, across = bounds
            self._kernel(kind, large_row, large_column, math.gcd(_LANES, beyond.numel()))(
                pixels.data_ptr(), None if chosen is None else chosen.data_ptr(), planes.ctypes.data, beyond.data_ptr(),
                pixels.shape[0], pixels.shape[1], beyond.numel(), down.start - rows.start, len(down), across.start,
                len(across), self.down.start(down.start) // pool, self.across.start(across.start) // pool,
                self.across.num_tiles, self.across.num_large,
            )  # fmt: skip

    def _planes(self, tiles: list[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Where the numbers of each point begin in memory."""
        planes = np.empty((self.down.num_points, self.across.num_points), np.int64)
        for (down, across), tensor in zip(self.shares(), tiles, strict=True):
            place = planes[down, across]
            bytes_each = tensor[0].numel() * tensor.element_size()
            place[:] = tensor.data_ptr() + bytes_each * np.arange(place.size).reshape(place.shape)
        return planes

    def _kernel(self, kind: str, large_row: bool, large_column: bool, lanes: int) -> Kernel:
        key = kind, large_row, large_column, lanes
        kernel = self._made.get(key)
        if kernel is None:
            kernel = self._made[key] = compiled(self._plan(*key))
        return kernel

    def _plan(self, kind: str, large_row: bool, large_column: bool, lanes: int) -> Plan:
        sides = list(zip(self._sides, (large_row, large_column), strict=True))
        d, a = (_points(side.large, side.small, is_large) for side, is_large in sides)
        down, across = (side.large if is_large else side.small for side, is_large in sides)
        plan = Plan(
            d.forth, a.forth, (down, across), -1, self._half, lanes, to_tiles=True, num_across=self.across.num_points,
            num_common=self.across.num_common,
        )  # fmt: skip
        if kind in ("gather", "add"):  # a tile reads one pixel more on each side than it writes
            return (
                plan if kind == "gather" else plan._replace(down=d.forth.T, across=a.forth.T, to_tiles=False, adds=True)
            )
        step = (down // 2, across // 2) if self._pool else (down, across)
        plan = plan._replace(down=d.back, across=a.back, step=step, offset=0, pool=self._pool)
        return plan if kind == "spread" else plan._replace(down=d.back.T, across=a.back.T, to_tiles=False)


_own = threading.local()


def _memory(slot: int, numbers: int, dtype: torch.dtype) -> Tensor:
    """So many numbers of this thread's own memory."""
    kept: dict[int, Tensor] = _own.__dict__.setdefault("memory", {})
    size = numbers * dtype.itemsize
    if slot not in kept or len(kept[slot]) < size:
        kept[slot] = torch.empty(size, dtype=torch.uint8)
    return kept[slot][:size].view(dtype)


@lru_cache(maxsize=256)
def grid(height: int, width: int, half: bool, pool: bool) -> Grid:
    """That of so many outputs, before any pooling; its kernels are made at their first use."""
    return Grid(height, width, half, pool)
