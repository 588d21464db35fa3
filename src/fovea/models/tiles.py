"""The tiles of Winograd's convolution: the ways between them and the pixels of images, and what lies in memory for them."""

from __future__ import annotations

import ctypes
import itertools
import math
import threading
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fovea.models.kernels import Kernel, Numbers, Plan, compiled
from fovea.models.products import DEPTH, LEAST_ROWS
from fovea.models.sides import LARGEST, LARGEST_ROUNDED, Side, angles, cut, evaluate, points_of
from fovea.models.vectors import LANES

_LINE = 64  # bytes of a cache's line
_MOST_ROOMS = 1000  # that a thread remembers of each slot

Planes: TypeAlias = Any
"""Where the numbers of each point begin in memory, for a kernel."""


class Room(NamedTuple):
    """For some rows of tiles, in memory that a thread uses again and again."""

    tiles: list[Tensor]  # `(points, tiles · N, channels)` of each of the shares
    planes: Planes
    empty: list[Tensor]  # those of the tiles that stand for 0


class Scale(NamedTuple):
    """What numbers are multiplied by."""

    factors: Tensor | None = None  # `(points,) float32`: at the points, which makes bytes of them
    by: Tensor | None = None  # `(N · C,) float32`: as pixels


Mode: TypeAlias = Numbers | Literal["peaks"]
"""What a kernel leaves at the points: numbers, or only how large they are."""


class Grid:
    """Tiles of both sides, for images of one size: the ways between pixels and points, and the room for the points.

    Tiles and pixels are float32, or with `half` bfloat16. Where a scale is given, tiles are bytes: what lies there
    times its factor, and 128 more. What lies outside of the image is 0 where it is read, and dropped where it is written.
    With `pool`, the pixels that the convolution writes are the largest of every 2×2, and `chosen`, of the same shape in
    uint8, says which of the four.
    """

    def __init__(self, height: int, width: int, half: bool, pool: bool, in_bytes: bool = False) -> None:
        largest = LARGEST_ROUNDED if half or in_bytes else LARGEST
        self.down, self.across = cut(height, largest, pool), cut(width, largest, pool)
        self._half, self._pool = half, pool
        self._found: dict[tuple[str, Mode, range, int, bool], list[tuple[Kernel, tuple[int, ...]]]] = {}
        self._own: Numbers = "bfloat16" if half else "float32"
        self.num_points = self.down.num_points * self.across.num_points
        points = np.arange(self.num_points).reshape(self.down.num_points, -1)
        self.numbers: list[list[int]] = [points[share].flatten().tolist() for share in self.shares()]
        self.places = [torch.tensor(numbers) for numbers in self.numbers]

    def at_points(self, weight: Tensor) -> list[Tensor]:
        """`(O, C, 3, 3) float32` to `(points, C, O)` of each of the shares."""
        pixels = weight.permute(2, 3, 1, 0).contiguous()
        points = [pixels.new_empty(len(share), *pixels.shape[2:], dtype=self.dtype) for share in self.numbers]
        self._run_on_kernels("weigh", self._own, pixels, points)
        return points

    def bytes_at_points(self, pixels: Tensor, factors: Tensor) -> list[Tensor]:
        """`(3, 3, ...) float32` to `(points, ...) int8` of each of the shares: times the factor of the point, rounded."""
        points = [pixels.new_empty(len(share), *pixels.shape[2:], dtype=torch.int8) for share in self.numbers]
        self._run_on_kernels("weigh", "int8", pixels, points, factors)
        return points

    def weight_peaks(self, pixels: Tensor) -> Tensor:
        """The largest absolute value at each of the `(points,)`, of `(3, 3, ...) float32`."""
        peaks = self._no_peaks(math.gcd(LANES, pixels[0, 0].numel()))
        self._run_on_kernels("weigh", "peaks", pixels, [], peaks)
        return peaks.amax(1)

    def add_from_points(self, points: list[Tensor], weight: Tensor) -> None:
        """The transpose of `at_points`, added to a contiguous `(3, 3, C, O) float32`."""
        self._run_on_kernels("learn", self._own, weight, points)

    @property
    def dtype(self) -> torch.dtype:
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

    def room(
        self, rows: range, count: int, channels: int, slot: int, dtype: torch.dtype | None = None, padded: bool = False
    ) -> Room:  # fmt: skip
        """For these rows of tiles of `count` images.

        With `padded`, empty tiles follow, up to as many as products of bytes take. The next call with this slot, in the same
        thread, gives the same memory again: new memory comes page by page.
        """
        key = self, rows, count, channels, dtype, padded
        room = _slot(slot).rooms.get(key)
        if room is None:
            room = self._new_room(rows, count, channels, slot, dtype or self.dtype, padded)
            rooms = _slot(slot).rooms
            if len(rooms) >= _MOST_ROOMS:
                rooms.clear()
            rooms[key] = room
        for tensor in room.empty:
            tensor.fill_(128)
        return room

    def _new_room(
        self, rows: range, count: int, channels: int, slot: int, dtype: torch.dtype, padded: bool
    ) -> Room:  # fmt: skip
        shapes, filled = [], []
        for down, across in self.shares():
            num_rows = len(rows) if down.start == 0 else max(0, min(rows.stop, self.down.num_large) - rows.start)
            num_columns = self.across.num_tiles if across.start == 0 else self.across.num_large
            num_points = (down.stop - down.start) * (across.stop - across.start)
            filled.append(num_rows * num_columns * count)
            length = max(LEAST_ROWS, -(-filled[-1] // DEPTH) * DEPTH) if filled[-1] and padded else filled[-1]
            shapes.append((num_points, length, channels))
        each = [_apart(length * channels, dtype) if padded else length * channels for _, length, channels in shapes]
        sizes = [shape[0] * numbers for shape, numbers in zip(shapes, each, strict=True)]
        total = sum(sizes)
        memory = _slot(slot, total * dtype.itemsize).memory[: total * dtype.itemsize].view(dtype)
        tiles = [
            part.as_strided(shape, (numbers, channels, 1))
            for part, numbers, shape in zip(torch.split(memory, sizes), each, shapes, strict=True)
        ]
        after = [tensor[:, length:] for tensor, length in zip(tiles, filled, strict=True)]
        empty = [tensor for tensor in after if tensor.numel() and dtype == torch.uint8]
        return Room(tiles, self._planes(tiles), empty)

    def gather(self, pixels: Tensor, room: Room, rows: range, scale: Scale | None = None) -> None:
        """What the convolution reads of `(H, W, N, C)` pixels."""
        self._run("gather", "uint8" if scale else self._own, pixels, None, room.planes, rows, scale)

    def spread(
        self, gradient: Tensor, chosen: Tensor | None, room: Room, rows: range, scale: Scale | None = None
    ) -> None:
        """The gradient of what it writes: the transpose of `collect`."""
        self._run("spread", "uint8" if scale else self._own, gradient, chosen, room.planes, rows, scale)

    def peaks(
        self, kind: Literal["gather", "spread"], pixels: Tensor, chosen: Tensor | None, num_images: int,
        by: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The largest absolute value that this leaves at each of the `(points,)`, of the first images, of pixels times `by`."""
        peaks = self._no_peaks(math.gcd(LANES, pixels[0, 0].numel()))
        self._run(kind, "peaks", pixels, chosen, None, range(self.down.num_tiles), Scale(peaks, by), num_images)
        return peaks.amax(1)

    def _no_peaks(self, lanes: int) -> Tensor:
        return torch.zeros(self.num_points, lanes)

    def collect(self, room: Room, pixels: Tensor, chosen: Tensor | None, rows: range) -> None:
        """What it writes."""
        self._run("collect", self._own, pixels, chosen, room.planes, rows)

    def add(self, room: Room, gradient: Tensor, rows: range, scale: Scale | None = None) -> None:
        """The gradient of what it reads, added up: the transpose of `gather`, but for the factors.

        Tiles overlap by two pixels, so all but the first two of their rows and columns are new. The rows come in order, and before
        the first of them there is a 0 in the image's first row and column.
        """
        if rows.start == 0:
            gradient[0].zero_()
            gradient[:, 0].zero_()
        self._run("add", self._own, gradient, None, room.planes, rows, scale and Scale(by=scale.by))

    def _run(
        self, kind: str, mode: Mode, pixels: Tensor, chosen: Tensor | None, planes: Planes, rows: range,
        scale: Scale | None = None, num_images: int | None = None,
    ) -> None:  # fmt: skip
        height, width, count, channels = pixels.shape
        length = count * channels
        some = length if num_images is None else min(num_images, count) * channels
        beyond = _slot("read" if kind in ("gather", "spread") else "written", length * self.dtype.itemsize).memory
        choices, *others = (None if one is None else one.data_ptr() for one in (chosen, *(scale or Scale())))
        given = pixels.data_ptr(), choices, planes, beyond.data_ptr(), *others, height, width, length, some
        for kernel, numbers in self._calls(kind, mode, rows, math.gcd(LANES, length), others[1] is not None):
            kernel(*given, *numbers)

    def _calls(
        self, kind: str, mode: Mode, rows: range, lanes: int, weighs: bool
    ) -> list[tuple[Kernel, tuple[int, ...]]]:
        """What is to be called for these rows: large and small tiles, each along both sides."""
        key = kind, mode, rows, lanes, weighs
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
            plan = self._plan(kind, mode, large_row, large_column, lanes)._replace(weighs=weighs)
            calls.append((compiled(plan), numbers))
        self._found[key] = calls
        return calls

    def _run_on_kernels(
        self, kind: str, mode: Mode, weight: Tensor, points: list[Tensor], factors: Tensor | None = None
    ) -> None:
        """A kernel of 3×3 is a tile as well: as one of an image of 3×3 pixels."""
        length = weight[0, 0].numel()
        key = kind, mode, range(1), math.gcd(LANES, length), False
        if key not in self._found:
            self._found[key] = [(compiled(self._plan(kind, mode, True, True, key[3])), (0, 1, 0, 1, 0, 0, 1, 1))]
        ((kernel, numbers),) = self._found[key]
        scales = None if factors is None else factors.data_ptr()
        kernel(weight.data_ptr(), None, self._planes(points), None, scales, None, 3, 3, length, length, *numbers)

    def _planes(self, tiles: list[Tensor]) -> Planes:
        planes = (ctypes.c_int64 * self.num_points)()
        for numbers, tensor in zip(self.numbers, tiles, strict=bool(tiles)):
            first, bytes_each = tensor.data_ptr(), tensor.stride(0) * tensor.element_size()
            for place, number in enumerate(numbers):
                planes[number] = first + place * bytes_each
        return planes

    def _plan(self, kind: str, mode: Mode, large_row: bool, large_column: bool, lanes: int) -> Plan:
        measures = mode == "peaks"
        numbers: Numbers = self._own if mode == "peaks" else mode
        if kind in ("weigh", "learn"):
            y, x = (evaluate(angles(side.large, side.small), 3) for side in self._sides)
            plan = Plan(
                y, x, (3, 3), 0, numbers, False, lanes, to_tiles=True, num_across=self.across.num_points,
                num_common=self.across.num_common, measures=measures,
            )  # fmt: skip
            return plan if kind == "weigh" else plan._replace(down=y.T, across=x.T, to_tiles=False, adds=3)
        sides = list(zip(self._sides, (large_row, large_column), strict=True))
        d, a = (points_of(side.large, side.small, is_large) for side, is_large in sides)
        down, across = (side.large if is_large else side.small for side, is_large in sides)
        plan = Plan(
            d.forth, a.forth, (down, across), -1, numbers, self._half, lanes, to_tiles=True,
            num_across=self.across.num_points, num_common=self.across.num_common, measures=measures,
        )  # fmt: skip
        if kind in ("gather", "add"):  # a tile reads one pixel more on each side than it writes
            return plan if kind == "gather" else plan._replace(down=d.forth.T, across=a.forth.T, to_tiles=False, adds=2)
        step = (down // 2, across // 2) if self._pool else (down, across)
        plan = plan._replace(down=d.back, across=a.back, step=step, offset=0, pool=self._pool)
        return plan if kind == "spread" else plan._replace(down=d.back.T, across=a.back.T, to_tiles=False)


def _apart(numbers: int, dtype: torch.dtype) -> int:
    """How many numbers lie from one point to the next: an odd number of cache lines, or all points would share few of a cache's sets."""
    lines = -(-numbers * dtype.itemsize // _LINE)
    return (lines + 1 - lines % 2) * _LINE // dtype.itemsize


class _Slot(NamedTuple):
    memory: Tensor  # bytes, all 0 at first
    rooms: dict[Any, Room]  # that lie in it


_own = threading.local()


def _slot(name: int | str, size: int = 0) -> _Slot:
    """This thread's own memory, of at least so many bytes; where it grows, the rooms of what it was go with it."""
    kept: dict[int | str, _Slot] = _own.__dict__.setdefault("slots", {})
    if name not in kept or len(kept[name].memory) < size:
        kept[name] = _Slot(torch.zeros(size, dtype=torch.uint8), {})
    return kept[name]


@lru_cache(maxsize=256)
def grid(height: int, width: int, half: bool, pool: bool, in_bytes: bool = False) -> Grid:
    """That of so many outputs, before any pooling; its kernels are made at their first use.

    With `in_bytes` it suits products of bytes: tiles are no larger than those of bfloat16.
    """
    return Grid(height, width, half, pool, in_bytes)
