"""Between the pixels of images and the tiles of Winograd's convolution: kernels made for the CPU at hand, by LLVM.

Written with PyTorch's operations, each step of a transform goes through memory on its own; here a tile stays in the
registers from the first to the last of them (EXPERIMENTS.md). No compiler is needed: llvmlite brings LLVM along.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import llvmlite.binding as llvm

from fovea.models.vectors import Matrix, Vectors

_QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of 2×2 pixels

Kernel: TypeAlias = Callable[..., None]
"""Called with addresses and numbers, as its text says. ctypes lets go of the interpreter's lock: other threads go on."""

PARAMETERS = (
    "pixels",  # `(H, W, length)`, length a multiple of the plan's lanes
    "chosen",  # uint8 of the same shape, where the plan pools
    "planes",  # an address for each point
    "beyond",  # `length` numbers, all 0: stand for each pixel outside
    "factors",  # float32, of each point: what bytes are multiplied by; or `lanes` for each, which `measures` makes larger
    "by",  # float32, `length` numbers, where the plan weighs: what pixels are multiplied by, the same for all of them
    "H", "W", "length",
    "some",  # how many of the `length` are gone over
    "row", "rows", "column", "columns",  # which tiles, by their place in the planes
    "y", "x",  # of the first pixel of the first of them
    "columns.common", "columns.large",  # in a row of tiles of the points that all columns have, and of the others
)  # fmt: skip


_ADDRESSES = 6

Numbers: TypeAlias = Literal["float32", "bfloat16", "uint8", "int8"]
SIZES: dict[Numbers, int] = {"float32": 4, "bfloat16": 2, "uint8": 1, "int8": 1}


class Plan(NamedTuple):
    """What a kernel does: both sides of a tile times a matrix each, from pixels to points or the other way."""

    down: Matrix
    across: Matrix
    step: tuple[int, int]  # pixels from one tile to the next
    offset: int  # of a tile's first pixel, down and across
    at_points: Numbers
    half_pixels: bool  # what lies at the pixels is bfloat16, else float32
    lanes: int  # numbers at a time; LLVM cuts them up for narrower CPUs
    to_tiles: bool
    num_across: int  # points of a row of planes, of which the tile may use fewer
    num_common: int  # of them, those that all columns of tiles have
    adds: int = 0  # of so many first rows and columns of a tile, the pixels are added to what lies there, not written
    pool: bool = False  # the pixels are the largest of every 2×2
    weighs: bool = False  # pixels, read or written, are multiplied by what belongs to their image
    measures: bool = False  # nothing is written but the largest absolute value at each point


_lock = threading.Lock()
_engines: list[Any] = []  # what they compiled goes with them
_found: dict[str, Kernel] = {}


def compiled(plan: Plan) -> Kernel:
    """The kernel of a plan; the same for plans alike."""
    text = _assembly(plan)
    with _lock:
        if text not in _found:
            _found[text] = compile_text(text, _ADDRESSES, len(PARAMETERS) - _ADDRESSES)
        return _found[text]


def compile_text(text: str, num_addresses: int, num_numbers: int) -> Kernel:
    """The function `kernel` of LLVM's text, which takes so many addresses and, after them, so many integers."""
    target, module = _target(), llvm.parse_assembly(text)
    # No passes of LLVM's go over it: they took half of the time, and left nothing quicker (EXPERIMENTS.md).
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    engine.remove_module(module)  # the text as LLVM understood it, several times as large as the code
    module.close()
    _engines.append(engine)
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * num_addresses, *[ctypes.c_int64] * num_numbers)
    kernel: Kernel = signature(engine.get_function_address("kernel"))
    return kernel


def has_bf16() -> bool:
    """Whether this CPU has AVX-512's instruction that rounds to bfloat16."""
    return bool(llvm.get_host_cpu_features().get("avx512bf16", False))


@lru_cache(maxsize=1)
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(llvm.get_host_cpu_name(), features, opt=1, jit=True)


def _assembly(plan: Plan) -> str:
    """LLVM's text of `kernel(PARAMETERS)`.

    For every tile: where its pixels lie, or `beyond`; then the numbers of each, some at a time, all images and channels alike.
    """
    matrices = (plan.down, plan.across)
    each = 2 if plan.pool else 1
    high, wide = ((m.shape[1] if plan.to_tiles else m.shape[0]) // each for m in matrices)
    points_down, points_across = (m.shape[0] if plan.to_tiles else m.shape[1] for m in matrices)
    points = [(down, across) for down in range(points_down) for across in range(points_across)]
    size, pixel_size = SIZES[plan.at_points], 2 if plan.half_pixels else 4
    half = plan.at_points == "bfloat16"
    places = [(y, x) for y in range(high) for x in range(wide)]
    kinds = ["ptr"] * _ADDRESSES + ["i64"] * (len(PARAMETERS) - _ADDRESSES)
    given = ", ".join(f"{kind} %{name}" for kind, name in zip(kinds, PARAMETERS, strict=True))
    text = [f"define void @kernel({given}) {{\nentry:"]
    for down, across in points:
        name = f"{down}.{across}"
        text.append(f"""  %entry.{name} = getelementptr i64, ptr %planes, i64 {down * plan.num_across + across}
  %plane.{name} = load ptr, ptr %entry.{name}
  %factor.{name} = getelementptr float, ptr %factors, i64 {(down * plan.num_across + across) * (plan.lanes if plan.measures else 1)}""")
    text.append(f"""  %pixel.bytes = mul i64 %length, {pixel_size}
  %tile.bytes = mul i64 %length, {size}
  br label %row.start
row.start:
  %r = phi i64 [0, %entry], [%r.next, %row.end]
  %r.tile = add i64 %r, %row
  %y.tile = mul i64 %r, {plan.step[0]}
  %y.first = add i64 %y.tile, %y
  %y.at = add i64 %y.first, {plan.offset}
  %before.common = mul i64 %r.tile, %columns.common
  %before.large = mul i64 %r.tile, %columns.large
  br label %column.start
column.start:
  %c = phi i64 [0, %row.start], [%c.next, %column.end]
  %c.tile = add i64 %c, %column
  %x.tile = mul i64 %c, {plan.step[1]}
  %x.first = add i64 %x.tile, %x
  %x.at = add i64 %x.first, {plan.offset}
  %number.common = add i64 %before.common, %c.tile
  %number.large = add i64 %before.large, %c.tile
  %bytes.common = mul i64 %number.common, %tile.bytes
  %bytes.large = mul i64 %number.large, %tile.bytes""")
    text += [
        f"""  %y{y} = add i64 %y.at, {y}
  %y{y}.in = icmp ult i64 %y{y}, %H
  %y{y}.row = mul i64 %y{y}, %W"""
        for y in range(high)
    ]
    text += [f"  %x{x} = add i64 %x.at, {x}\n  %x{x}.in = icmp ult i64 %x{x}, %W" for x in range(wide)]
    text += [
        f"""  %in.{y}.{x} = and i1 %y{y}.in, %x{x}.in
  %at.{y}.{x} = add i64 %y{y}.row, %x{x}
  %bytes.{y}.{x} = mul i64 %at.{y}.{x}, %pixel.bytes
  %inside.{y}.{x} = getelementptr i8, ptr %pixels, i64 %bytes.{y}.{x}
  %pixel.{y}.{x} = select i1 %in.{y}.{x}, ptr %inside.{y}.{x}, ptr %beyond
  %byte.{y}.{x} = mul i64 %at.{y}.{x}, %length
  %within.{y}.{x} = getelementptr i8, ptr %chosen, i64 %byte.{y}.{x}
  %choice.{y}.{x} = select i1 %in.{y}.{x}, ptr %within.{y}.{x}, ptr %beyond"""
        for y, x in places
    ]
    for down, across in points:
        kind = "common" if across < plan.num_common else "large"
        name = f"{down}.{across}"
        text.append(f"  %point.{name} = getelementptr i8, ptr %plane.{name}, i64 %bytes.{kind}")

    vectors = Vectors(plan.lanes, has_bf16())
    pixel = {(y, x): vectors.address(f"%pixel.{y}.{x}", "%n", pixel_size) for y, x in places}
    choice = {(y, x): vectors.address(f"%choice.{y}.{x}", "%n", 1) for y, x in places if plan.pool}
    by = vectors.load(vectors.address("%by", "%n", 4), half=False) if plan.weighs else ""
    corners = [
        [vectors.address(f"%point.{d}.{a}", "%n", size) for a in range(points_across)] for d in range(points_down)
    ]
    if plan.to_tiles:
        values = [["" for _ in range(each * wide)] for _ in range(each * high)]
        for y, x in places:
            value = vectors.load(pixel[y, x], plan.half_pixels)
            value = vectors.times(value, by) if plan.weighs else value
            if not plan.pool:
                values[y][x] = value
                continue
            which = vectors.load_bytes(choice[y, x])
            for number, (dy, dx) in enumerate(_QUARTERS):
                values[2 * y + dy][2 * x + dx] = vectors.only_where(which, number, value)
        results = vectors.both_sides(*matrices, values)
        for down, across in points:
            value, corner, factor = results[down][across], corners[down][across], f"%factor.{down}.{across}"
            if plan.measures:
                vectors.keep_largest(value, factor)
            elif plan.at_points in ("uint8", "int8"):
                vectors.store_integer(value, corner, factor, signed=plan.at_points == "int8")
            else:
                vectors.store(value, corner, half)
    else:
        results = vectors.both_sides(*matrices, [[vectors.load(corner, half) for corner in row] for row in corners])
        for y, x in places:
            if plan.pool:
                value, which = vectors.largest([results[2 * y + dy][2 * x + dx] for dy, dx in _QUARTERS])
                vectors.store_bytes(which, choice[y, x])
            else:
                value = results[y][x]
            value = vectors.times(value, by) if plan.weighs else value
            if min(y, x) < plan.adds:
                value = vectors.add(value, vectors.load(pixel[y, x], plan.half_pixels))
            vectors.store(value, pixel[y, x], plan.half_pixels)
    lines = "\n".join(vectors.lines)
    text.append(f"""  br label %vector
vector:
  %n = phi i64 [0, %column.start], [%n.next, %vector]
{lines}
  %n.next = add i64 %n, {plan.lanes}
  %n.more = icmp ult i64 %n.next, %some
  br i1 %n.more, label %vector, label %column.end
column.end:
  %c.next = add i64 %c, 1
  %c.more = icmp ult i64 %c.next, %columns
  br i1 %c.more, label %column.start, label %row.end
row.end:
  %r.next = add i64 %r, 1
  %r.more = icmp ult i64 %r.next, %rows
  br i1 %r.more, label %row.start, label %end
end:
  ret void
}}
{vectors.declarations()}""")
    return "\n".join(text)
