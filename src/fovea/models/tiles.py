"""Between the pixels of images and the tiles of Winograd's convolution: kernels made for the CPU at hand, by LLVM.

Written with PyTorch's operations, each step of a transform goes through memory on its own; here a tile stays in the
registers from the first to the last of them (EXPERIMENTS.md). No compiler is needed: llvmlite brings LLVM along.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from torch import Tensor

from fovea.models.vectors import Matrix, Vectors, declarations

LARGEST_TILE = 8  # pixels along a side: each more costs float32 half a digit (EXPERIMENTS.md)
LARGEST_BF16_TILE = 4  # likewise: 3, 5, 8, 15 and 30 thousandths of error with 2 to 5 pixels
_QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of 2×2 pixels
_LANES = 16  # floats a vector: AVX-512's; LLVM cuts them up for narrower CPUs


class Points(NamedTuple):
    """What a side of a tile of m pixels is multiplied by: `Aᵀ[(G g) ⊙ (Bᵀ d)]` of a kernel g and m + 2 inputs d."""

    back: Matrix  # `(m + 2, m)`: A
    kernel: Matrix  # `(m + 2, 3)`: G
    forth: Matrix  # `(m + 2, m + 2)`: Bᵀ


@lru_cache(maxsize=16)
def points(tile: int) -> Points:
    """Those of tiles with `tile` outputs along a side, after Toom and Cook: polynomials are multiplied at m + 2 points.

    The points are tan(k π / n): evenly spread over the projective line, ∞ among them. The usual 0, ±1, ±2, ±1/2 lose two
    to three times as much to rounding (EXPERIMENTS.md), and here, too, all but 0 and ∞ come in pairs.
    """
    angles = np.arange(tile + 2) * (np.pi / (tile + 2))

    def evaluate(length: int) -> Matrix:  # of polynomials with so many coefficients, at each point
        degrees = np.arange(length)
        values: Matrix = np.sin(angles)[:, None] ** degrees[::-1] * np.cos(angles)[:, None] ** degrees
        return values

    return Points(evaluate(tile), evaluate(3), np.linalg.inv(evaluate(tile + 2)).T)


def best_tile(outputs: int, half: bool, pool: bool) -> int:
    """The number of outputs along a side of a tile that makes do with the fewest products; for a pooling, an even one."""
    sizes = range(1, (LARGEST_BF16_TILE if half else LARGEST_TILE) + 1)
    return min(sizes[1::2] if pool else sizes, key=lambda tile: (-(-outputs // tile) * (tile + 2), tile))


class Kernels:
    """The four ways between `(H, W, N, C) float32` pixels and `(points down · across, tiles · N, C)` tiles.

    Tiles are float32, or with `half` bfloat16. What lies outside of the image is 0 where it is read, and dropped where it is
    written. Each takes some rows of tiles: `tiles` holds just those. With `pool`, the pixels that the convolution writes are
    the largest of every 2×2, and `chosen`, of the same shape in uint8, says which of the four.
    """

    def __init__(self, down: int, across: int, half: bool, pool: bool) -> None:
        d, a = points(down), points(across)
        # A tile reads one pixel more on each side than it writes.
        read = _Plan(d.forth, a.forth, (down, across), -1, half, to_tiles=True)
        step = (down // 2, across // 2) if pool else (down, across)
        self._gather = _compiled(read)
        self._add = _compiled(read._replace(down=d.forth.T, across=a.forth.T, to_tiles=False, adds=True))
        self._spread = _compiled(_Plan(d.back, a.back, step, 0, half, to_tiles=True, pool=pool))
        self._collect = _compiled(_Plan(d.back.T, a.back.T, step, 0, half, to_tiles=False, pool=pool))

    def gather(self, pixels: Tensor, tiles: Tensor, rows: range, columns: int) -> None:
        """What the convolution reads."""
        _call(self._gather, pixels, None, tiles, rows, columns)

    def spread(self, gradient: Tensor, chosen: Tensor | None, tiles: Tensor, rows: range, columns: int) -> None:
        """The gradient of what it writes: the transpose of `collect`."""
        _call(self._spread, gradient, chosen, tiles, rows, columns)

    def collect(self, tiles: Tensor, pixels: Tensor, chosen: Tensor | None, rows: range, columns: int) -> None:
        """What it writes."""
        _call(self._collect, pixels, chosen, tiles, rows, columns)

    def add(self, tiles: Tensor, gradient: Tensor, rows: range, columns: int) -> None:
        """The gradient of what it reads, added up: the transpose of `gather`."""
        _call(self._add, gradient, None, tiles, rows, columns)


_lock = threading.Lock()
_made: dict[tuple[int, int, bool, bool], Kernels] = {}


def kernels(down: int, across: int, half: bool, pool: bool) -> Kernels:
    """Those of tiles of so many outputs, made at their first use."""
    with _lock:
        if (down, across, half, pool) not in _made:
            _made[down, across, half, pool] = Kernels(down, across, half, pool)
        return _made[down, across, half, pool]


class _Plan(NamedTuple):
    """What a kernel does: both sides of a tile times a matrix each, from pixels to points or the other way."""

    down: Matrix
    across: Matrix
    step: tuple[int, int]  # pixels from one tile to the next
    offset: int  # of a tile's first pixel, down and across
    half: bool
    to_tiles: bool
    adds: bool = False
    pool: bool = False


def _call(
    function: Callable[..., None], pixels: Tensor, chosen: Tensor | None, tiles: Tensor, rows: range, columns: int
) -> None:
    height, width, count, channels = pixels.shape
    beyond = pixels.new_zeros(count * channels)  # stands for each pixel outside
    # ctypes lets go of the interpreter's lock: other threads go on.
    function(
        pixels.data_ptr(), None if chosen is None else chosen.data_ptr(), tiles.data_ptr(), beyond.data_ptr(),
        height, width, count * channels, rows.start, len(rows), columns, tiles[0].numel(),
    )  # fmt: skip


def _compiled(plan: _Plan) -> Callable[..., None]:
    target = _target()
    module = llvm.parse_assembly(_assembly(plan))
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _engines.append(engine)
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 7)
    function: Callable[..., None] = signature(engine.get_function_address("kernel"))
    return function


_engines: list[Any] = []  # what they compiled goes with them


@lru_cache(maxsize=1)
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(llvm.get_host_cpu_name(), features, opt=3, jit=True)


def _assembly(plan: _Plan) -> str:
    """LLVM's text of `kernel(pixels, chosen, tiles, beyond, H, W, N·C, first row, rows, columns, numbers of a point)`.

    For every tile: where its pixels lie, or `beyond`; then N·C numbers of each, some at a time, all images alike.
    """
    matrices = (plan.down, plan.across)
    each = 2 if plan.pool else 1
    high, wide = ((m.shape[1] if plan.to_tiles else m.shape[0]) // each for m in matrices)
    points_down, points_across = (m.shape[0] if plan.to_tiles else m.shape[1] for m in matrices)
    size = 2 if plan.half else 4
    places = [(y, x) for y in range(high) for x in range(wide)]
    text = [f"""
define void @kernel(ptr %pixels, ptr %chosen, ptr %tiles, ptr %beyond, i64 %H, i64 %W, i64 %length,
                    i64 %first, i64 %rows, i64 %columns, i64 %plane) {{
entry:
  %plane.bytes = mul i64 %plane, {size}
  %pixel.bytes = mul i64 %length, 4
  %tile.bytes = mul i64 %length, {size}
  %whole = and i64 %length, -{_LANES}
  br label %row
row:
  %r = phi i64 [0, %entry], [%r.next, %row.end]
  %r.all = add i64 %r, %first
  %y.tile = mul i64 %r.all, {plan.step[0]}
  %y = add i64 %y.tile, {plan.offset}
  br label %column
column:
  %c = phi i64 [0, %row], [%c.next, %column.end]
  %x.tile = mul i64 %c, {plan.step[1]}
  %x = add i64 %x.tile, {plan.offset}
  %before = mul i64 %r, %columns
  %number = add i64 %before, %c
  %tile.offset = mul i64 %number, %tile.bytes
  %tile = getelementptr i8, ptr %tiles, i64 %tile.offset"""]  # fmt: skip
    text += [
        f"""  %y{y} = add i64 %y, {y}
  %y{y}.in = icmp ult i64 %y{y}, %H
  %y{y}.at = mul i64 %y{y}, %W"""
        for y in range(high)
    ]
    text += [f"  %x{x} = add i64 %x, {x}\n  %x{x}.in = icmp ult i64 %x{x}, %W" for x in range(wide)]
    text += [
        f"""  %in.{y}.{x} = and i1 %y{y}.in, %x{x}.in
  %at.{y}.{x} = add i64 %y{y}.at, %x{x}
  %bytes.{y}.{x} = mul i64 %at.{y}.{x}, %pixel.bytes
  %inside.{y}.{x} = getelementptr i8, ptr %pixels, i64 %bytes.{y}.{x}
  %pixel.{y}.{x} = select i1 %in.{y}.{x}, ptr %inside.{y}.{x}, ptr %beyond
  %byte.{y}.{x} = mul i64 %at.{y}.{x}, %length
  %within.{y}.{x} = getelementptr i8, ptr %chosen, i64 %byte.{y}.{x}
  %choice.{y}.{x} = select i1 %in.{y}.{x}, ptr %within.{y}.{x}, ptr %beyond"""
        for y, x in places
    ]
    text += [
        f"  %skip.{point} = mul i64 %plane.bytes, {point}\n  %point.{point} = getelementptr i8, ptr %tile, i64 %skip.{point}"
        for point in range(points_down * points_across)
    ]

    def body(lanes: int, at: str) -> str:
        vectors = Vectors(lanes, f"v{lanes}")
        pixel = {(y, x): vectors.address(f"%pixel.{y}.{x}", at, 4) for y, x in places}
        choice = {(y, x): vectors.address(f"%choice.{y}.{x}", at, 1) for y, x in places if plan.pool}
        corners = [
            [vectors.address(f"%point.{d * points_across + a}", at, size) for a in range(points_across)]
            for d in range(points_down)
        ]
        if plan.to_tiles:
            values = [["" for _ in range(each * wide)] for _ in range(each * high)]
            for y, x in places:
                value = vectors.load(pixel[y, x], False)
                if not plan.pool:
                    values[y][x] = value
                    continue
                which = vectors.load_bytes(choice[y, x])
                for number, (dy, dx) in enumerate(_QUARTERS):
                    values[2 * y + dy][2 * x + dx] = vectors.only_where(which, number, value)
            for corner_row, found_row in zip(corners, vectors.both_sides(*matrices, values), strict=True):
                for corner, found in zip(corner_row, found_row, strict=True):
                    vectors.store(found, corner, plan.half)
            return "\n".join(vectors.lines)
        results = vectors.both_sides(
            *matrices, [[vectors.load(corner, plan.half) for corner in row] for row in corners]
        )
        for y, x in places:
            if plan.pool:
                value, which = vectors.largest([results[2 * y + dy][2 * x + dx] for dy, dx in _QUARTERS])
                vectors.store_bytes(which, choice[y, x])
            else:
                value = results[y][x]
            if plan.adds:
                value = vectors.add(value, vectors.load(pixel[y, x], False))
            vectors.store(value, pixel[y, x], False)
        return "\n".join(vectors.lines)

    text.append(f"""  %some = icmp ugt i64 %whole, 0
  br i1 %some, label %vector, label %rest
vector:
  %n = phi i64 [0, %column], [%n.next, %vector]
{body(_LANES, "%n")}
  %n.next = add i64 %n, {_LANES}
  %n.more = icmp ult i64 %n.next, %whole
  br i1 %n.more, label %vector, label %rest
rest:
  %left = icmp ult i64 %whole, %length
  br i1 %left, label %single, label %column.end
single:
  %s = phi i64 [%whole, %rest], [%s.next, %single]
{body(1, "%s")}
  %s.next = add i64 %s, 1
  %s.more = icmp ult i64 %s.next, %length
  br i1 %s.more, label %single, label %column.end
column.end:
  %c.next = add i64 %c, 1
  %c.more = icmp ult i64 %c.next, %columns
  br i1 %c.more, label %column, label %row.end
row.end:
  %r.next = add i64 %r, 1
  %r.more = icmp ult i64 %r.next, %rows
  br i1 %r.more, label %row, label %end
end:
  ret void
}}
{declarations(_LANES)}""")
    return "\n".join(text)
