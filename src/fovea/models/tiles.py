"""Sides of images cut into the tiles of Winograd's convolution, and what lies in memory for them."""

from __future__ import annotations

import ctypes
import itertools
import math
import threading
from functools import lru_cache
from typing import Any, NamedTuple

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

    Tiles and pixels are float32, or with `half` bfloat16. What lies outside of the image is 0 where it is read, and dropped where it is
    written. With `pool`, the pixels that the convolution writes are the largest of every 2×2, and `chosen`, of the same shape
    in uint8, says which of the four.
    """

    def __init__(self, height: int, width: int, half: bool, pool: bool) -> None:
        self.down, self.across = cut(height, half, pool), cut(width, half, pool)
        self._half, self._pool = half, pool
        self._found: dict[tuple[str, range, int], list[tuple[Kernel, tuple[int, ...]]]] = {}
        points = np.arange(self.down.num_points * self.across.num_points).reshape(self.down.num_points, -1)
        self._numbers: list[list[int]] = [points[share].flatten().tolist() for share in self.shares()]

    def at_points(self, weight: Tensor) -> list[Tensor]:
        """`(O, C, 3, 3) float32` to `(points, C, O)` of each of the shares."""
        pixels = weight.permute(2, 3, 1, 0).contiguous()
        points = [pixels.new_empty(len(share), *pixels.shape[2:], dtype=self._dtype) for share in self._numbers]
        self._run_on_kernels("weigh", pixels, points)
        return points

    def add_from_points(self, points: list[Tensor], weight: Tensor) -> None:
        """The transpose of `at_points`, added to a contiguous `(3, 3, C, O) float32`."""
        self._run_on_kernels("learn", weight, points)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self._half else torch.float32

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
        memory = _memory(slot, sum(sizes), self._dtype)
        return [part.view(shape) for part, shape in zip(torch.split(memory, sizes), shapes, strict=True)]

    def gather(self, pixels: Tensor, tiles: list[Tensor], rows: range) -> None:
        """What the convolution reads of `(H, W, N, C)` pixels."""
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
        height, width, count, channels = pixels.shape
        length = count * channels
        beyond = _memory(kind, length, self._dtype).zero_()  # stands for each pixel outside
        choices = None if chosen is None else chosen.data_ptr()
        planes = self._planes(tiles)
        for kernel, numbers in self._calls(kind, rows, math.gcd(_LANES, length)):
            kernel(pixels.data_ptr(), choices, planes, beyond.data_ptr(), height, width, length, *numbers)

    def _calls(self, kind: str, rows: range, lanes: int) -> list[tuple[Kernel, tuple[int, ...]]]:
        """What is to be called for these rows: large and small tiles, each along both sides."""
        key = kind, rows, lanes
        if key in self._found:
            return self._found[key]
        pool = 2 if self._pool and kind in ("spread", "collect") else 1
        calls: list[tuple[Kernel, tuple[int, ...]]] = []
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
            numbers = (
                down.start - rows.start, len(down), across.start, len(across), self.down.start(down.start) // pool,
                self.across.start(across.start) // pool, self.across.num_tiles, self.across.num_large,
            )  # fmt: skip
            calls.append((compiled(self._plan(kind, large_row, large_column, lanes)), numbers))
        self._found[key] = calls
        return calls

    def _run_on_kernels(self, kind: str, weight: Tensor, points: list[Tensor]) -> None:
        """A kernel of 3×3 is a tile as well: as one of an image of 3×3 pixels."""
        length = weight.shape[2] * weight.shape[3]
        key = kind, range(1), math.gcd(_LANES, length)
        if key not in self._found:
            self._found[key] = [(compiled(self._plan(kind, True, True, key[2])), (0, 1, 0, 1, 0, 0, 1, 1))]
        ((kernel, numbers),) = self._found[key]
        kernel(weight.data_ptr(), None, self._planes(points), None, 3, 3, length, *numbers)

    def _planes(self, tiles: list[Tensor]) -> Any:
        """Where the numbers of each point begin in memory, for a kernel."""
        planes = (ctypes.c_int64 * (self.down.num_points * self.across.num_points))()
        for numbers, tensor in zip(self._numbers, tiles, strict=True):
            first, bytes_each = tensor.data_ptr(), tensor.stride(0) * tensor.element_size()
            for place, number in enumerate(numbers):
                planes[number] = first + place * bytes_each
        return planes

    def _plan(self, kind: str, large_row: bool, large_column: bool, lanes: int) -> Plan:
        if kind in ("weigh", "learn"):
            y, x = (_evaluate(_angles(side.large, side.small), 3) for side in self._sides)
            plan = Plan(
                y, x, (3, 3), 0, self._half, False, lanes, to_tiles=True, num_across=self.across.num_points,
                num_common=self.across.num_common,
            )  # fmt: skip
            return plan if kind == "weigh" else plan._replace(down=y.T, across=x.T, to_tiles=False, adds=True)
        sides = list(zip(self._sides, (large_row, large_column), strict=True))
        d, a = (_points(side.large, side.small, is_large) for side, is_large in sides)
        down, across = (side.large if is_large else side.small for side, is_large in sides)
        plan = Plan(
            d.forth, a.forth, (down, across), -1, self._half, self._half, lanes, to_tiles=True,
            num_across=self.across.num_points, num_common=self.across.num_common,
        )  # fmt: skip
        if kind in ("gather", "add"):  # a tile reads one pixel more on each side than it writes
            return (
                plan if kind == "gather" else plan._replace(down=d.forth.T, across=a.forth.T, to_tiles=False, adds=True)
            )
        step = (down // 2, across // 2) if self._pool else (down, across)
        plan = plan._replace(down=d.back, across=a.back, step=step, offset=0, pool=self._pool)
        return plan if kind == "spread" else plan._replace(down=d.back.T, across=a.back.T, to_tiles=False)


_own = threading.local()


def _memory(slot: int | str, numbers: int, dtype: torch.dtype) -> Tensor:
    """So many numbers of this thread's own memory."""
    kept: dict[int | str, Tensor] = _own.__dict__.setdefault("memory", {})
    size = numbers * dtype.itemsize
    if slot not in kept or len(kept[slot]) < size:
        kept[slot] = torch.empty(size, dtype=torch.uint8)
    return kept[slot][:size].view(dtype)


@lru_cache(maxsize=256)
def grid(height: int, width: int, half: bool, pool: bool) -> Grid:
    """That of so many outputs, before any pooling; its kernels are made at their first use."""
    return Grid(height, width, half, pool)
