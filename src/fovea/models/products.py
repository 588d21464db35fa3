"""Products of matrices of bytes, by kernels that LLVM makes: twice as fast as of bfloat16 where the CPU has AVX-512's VNNI.

One instruction multiplies 64 unsigned bytes by 64 signed ones, and adds up every four products. What is unsigned here has
128 added, so a sum begins with -128 times the sum of the signed bytes.
"""

from __future__ import annotations

from functools import lru_cache

import llvmlite.binding as llvm
import torch
from torch import Tensor

from fovea.models.kernels import Kernel, compile_text
from fovea.models.vectors import LANES  # here the sums of a vector: numbers of columns are multiples of it

BLOCK = 8  # what rows of a transposed product are a multiple of
DEPTH = 4  # products that a sum takes in at once; what is summed over is a multiple of it
_MOST_VECTORS = 4  # of a row of sums
_ROWS = {1: 16, 2: 8, 3: 4, 4: 4}  # of sums, by their vectors: the registers of a CPU are 32
LEAST_ROWS = max(_ROWS.values())
_OFFSETS = f"splat (i32 {0x80808080 - (1 << 32)})"  # 128 in each byte


def has_vnni() -> bool:
    """Whether this CPU has the instruction, and not AMX, by which bfloat16, which rounds far less, is as fast (EXPERIMENTS.md)."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni", False)) and not features.get("amx-bf16", False)


def panel_width(columns: int) -> int:
    """How many columns of a matrix of so many, a multiple of 8, are gone over at a time."""
    lanes = _lanes(columns)
    return lanes * max(n for n in range(1, _MOST_VECTORS + 1) if columns // lanes % n == 0)


def _lanes(columns: int) -> int:
    """Sums of a vector; of half of one where columns do not fill it."""
    return LANES if columns % LANES == 0 else LANES // 2


def multiply(rows: Tensor, panels: Tensor, scales: Tensor, out: Tensor) -> None:
    """`(P, M, K) uint8` times `(P, N / W, K / 4, W, 4) int8` times `(P,)` scales to `(P, M, N)`, W = `panel_width(N)`.

    128 of `rows` stands for 0. M is at least `LEAST_ROWS`. What comes out is float32 or bfloat16. Points may lie apart, what is at one
    of them not.
    """
    (points, length, depth), columns = rows.shape, out.shape[2]
    lanes = _lanes(columns)
    kernel = _compiled(panel_width(columns) // lanes, out.dtype == torch.bfloat16, lanes=lanes)
    addresses = (tensor.data_ptr() for tensor in (rows, panels, scales, out))
    kernel(*addresses, None, points, length, depth, columns, rows.stride(0), panels.stride(0), out.stride(0))


def multiply_transposed(rows: Tensor, others: Tensor, scales: Tensor, out: Tensor) -> None:
    """`(P, K, M) uint8`, transposed, times `(P, K, N) uint8` times `(P,)` scales to `(P, M, N)`.

    128 of both stands for 0. M is a multiple of `BLOCK`, N of 16.
    """
    (points, depth, length), columns = rows.shape, out.shape[2]
    width = panel_width(columns)
    room = torch.empty(depth * (length + width), dtype=torch.uint8)
    kernel = _compiled(width // LANES, out.dtype == torch.bfloat16, block=BLOCK if length % LANES else LANES)
    addresses = (tensor.data_ptr() for tensor in (rows, others, scales, out, room))
    kernel(*addresses, points, length, depth, columns, rows.stride(0), others.stride(0), out.stride(0))


@lru_cache(maxsize=16)
def _compiled(vectors: int, half: bool, block: int = 0, lanes: int = LANES) -> Kernel:
    return compile_text(_text(vectors, half, block, lanes), 5, 7)


def _text(vectors: int, half: bool, block: int, lanes: int) -> str:
    """Point by point, panel by panel of columns, some rows at a time, whose sums stay in registers.

    The panel is read from a cache for each of them. Of a transposed product, four rows of bytes are interleaved first, so
    that what a sum takes in lies side by side: into `room`, in blocks of so many of the `rows`, and panel by panel.
    Without `block`, none is transposed.
    """
    transposed, num_rows = block > 0, min(_ROWS[vectors], block or LANES)
    size, width = 2 if half else 4, vectors * lanes
    sums = f"<{lanes} x i32>"
    step_bytes, row_bytes = (block * DEPTH, DEPTH) if transposed else (DEPTH, "%K")
    cells = [(row, vector) for row in range(num_rows) for vector in range(vectors)]
    lines = [
        f"""define void @kernel(ptr %rows, ptr %others, ptr %scales, ptr %out, ptr %room, i64 %P, i64 %M, i64 %K, i64 %N, i64 %rows.bytes, i64 %others.bytes, i64 %out.stride) {{
entry:
  %steps = lshr i64 %K, 2
  %block.bytes = mul i64 %K, {block}
  %out.row = mul i64 %N, {size}
  %out.bytes = mul i64 %out.stride, {size}
  %last = sub i64 %M, {num_rows}
  %room.rows = mul i64 %M, %K
  %room.panel = getelementptr i8, ptr %room, i64 %room.rows
  br label %point
point:
  %p = phi i64 [0, %entry], [%p.next, %point.end]
  %scale.at = getelementptr float, ptr %scales, i64 %p
  %scale = load float, ptr %scale.at, align 4
  %scale.alone = insertelement <{lanes} x float> poison, float %scale, i32 0
  %scale.all = shufflevector <{lanes} x float> %scale.alone, <{lanes} x float> poison, <{lanes} x i32> zeroinitializer
  %rows.before = mul i64 %p, %rows.bytes
  %rows.p = getelementptr i8, ptr %rows, i64 %rows.before
  %others.before = mul i64 %p, %others.bytes
  %others.p = getelementptr i8, ptr %others, i64 %others.before
  %out.before = mul i64 %p, %out.bytes
  %out.p = getelementptr i8, ptr %out, i64 %out.before"""
    ]
    if transposed:
        text, four = _interleaved("packed", "%rows.k", "%M", block)
        lines.append(f"""  br label %block
block:
  %b = phi i64 [0, %point], [%b.next, %block.end]
  %rows.b = getelementptr i8, ptr %rows.p, i64 %b
  %room.before = mul i64 %b, %K
  %room.b = getelementptr i8, ptr %room, i64 %room.before
  br label %pack
pack:
  %pack.k = phi i64 [0, %block], [%pack.next, %pack]
  %rows.step = mul i64 %pack.k, {DEPTH}
  %rows.over = mul i64 %rows.step, %M
  %rows.k = getelementptr i8, ptr %rows.b, i64 %rows.over
{text}
  %room.over = mul i64 %pack.k, {block * DEPTH}
  %room.k = getelementptr i8, ptr %room.b, i64 %room.over
  store <{block} x i32> {four}, ptr %room.k, align 1
{_again("pack.k", "pack.next", "1", "%steps", "pack", "block.end")}
block.end:
{_again("b", "b.next", str(block), "%M", "block", "panels")}
panels:""")
    before = "panels" if transposed else "point"
    lines.append(f"""  br label %panel
panel:
  %n = phi i64 [0, %{before}], [%n.next, %panel.end]
  %panel.before = mul i64 %n, %K
  %panel.there = getelementptr i8, ptr %others.p, i64 {"%n" if transposed else "%panel.before"}
  %panel.at = getelementptr i8, ptr {"%room.panel" if transposed else "%panel.there"}, i64 0
  br label %begin
begin:
  %begin.k = phi i64 [0, %panel], [%begin.next, %begin]""")
    lines += [f"  %total.{v} = phi {sums} [zeroinitializer, %panel], [%total.next.{v}, %begin]" for v in range(vectors)]
    lines.append(f"""  %begin.over = mul i64 %begin.k, {width * DEPTH}
  %begin.at = getelementptr i8, ptr %panel.at, i64 %begin.over
  %begin.step = mul i64 %begin.k, {DEPTH}
  %begin.there = mul i64 %begin.step, %N
  %begin.from = getelementptr i8, ptr %panel.there, i64 %begin.there""")
    for v in range(vectors):
        lines.append(f"  %begin.at.{v} = getelementptr i8, ptr %begin.at, i64 {v * lanes * DEPTH}")
        if transposed:
            text, four = _interleaved(f"panel.{v}", f"%begin.from.{v}", "%N", lanes)
            lines.append(f"""  %begin.from.{v} = getelementptr i8, ptr %begin.from, i64 {v * lanes}
{text}
  %signed.{v} = xor {sums} {four}, {_OFFSETS}
  store {sums} %signed.{v}, ptr %begin.at.{v}, align 1""")
        else:
            lines.append(f"  %signed.{v} = load {sums}, ptr %begin.at.{v}, align 1")
        lines.append(f"  %total.next.{v} = {_dot(lanes, f'%total.{v}', _OFFSETS, f'%signed.{v}')}")
    lines += [_again("begin.k", "begin.next", "1", "%steps", "begin", "begun"), "begun:"]
    lines += [f"  %start.{v} = sub {sums} zeroinitializer, %total.next.{v}" for v in range(vectors)]
    lines.append(f"""  %out.over = mul i64 %n, {size}
  %out.n = getelementptr i8, ptr %out.p, i64 %out.over
  br label %some
some:
  %m = phi i64 [0, %begun], [%m.next, %some.end]
  %m.over = icmp ugt i64 %m, %last
  %m.at = select i1 %m.over, i64 %last, i64 %m""")
    if transposed:
        lines.append(f"""  %m.block = udiv i64 %m.at, {block}
  %m.within = urem i64 %m.at, {block}
  %block.before = mul i64 %m.block, %block.bytes
  %within.bytes = mul i64 %m.within, {DEPTH}
  %a.before = add i64 %block.before, %within.bytes
  %a.first = getelementptr i8, ptr %room, i64 %a.before""")
    else:
        lines.append("""  %a.before = mul i64 %m.at, %K
  %a.first = getelementptr i8, ptr %rows.p, i64 %a.before""")
    lines.append("""  br label %step
step:
  %k = phi i64 [0, %some], [%k.next, %step]""")
    lines += [f"  %sum.{r}.{v} = phi {sums} [%start.{v}, %some], [%sum.next.{r}.{v}, %step]" for r, v in cells]
    lines.append(f"""  %other.over = mul i64 %k, {width * DEPTH}
  %other = getelementptr i8, ptr %panel.at, i64 %other.over
  %a.over = mul i64 %k, {step_bytes}
  %a = getelementptr i8, ptr %a.first, i64 %a.over""")
    for v in range(vectors):
        lines.append(f"""  %other.at.{v} = getelementptr i8, ptr %other, i64 {v * lanes * DEPTH}
  %other.{v} = load {sums}, ptr %other.at.{v}, align 1""")
    for r, v in cells:
        if v == 0:
            lines.append(f"""  %a.over.{r} = mul i64 {row_bytes}, {r}
  %a.at.{r} = getelementptr i8, ptr %a, i64 %a.over.{r}
  %a.four.{r} = load i32, ptr %a.at.{r}, align 1
  %a.alone.{r} = insertelement {sums} poison, i32 %a.four.{r}, i32 0
  %a.all.{r} = shufflevector {sums} %a.alone.{r}, {sums} poison, {sums} zeroinitializer""")
        lines.append(f"  %sum.next.{r}.{v} = {_dot(lanes, f'%sum.{r}.{v}', f'%a.all.{r}', f'%other.{v}')}")
    lines.append(f"""{_again("k", "k.next", "1", "%steps", "step", "some.end")}
some.end:
  %out.m.over = mul i64 %m.at, %out.row
  %out.m = getelementptr i8, ptr %out.n, i64 %out.m.over""")
    for r, v in cells:
        if v == 0:
            lines.append(f"""  %out.over.{r} = mul i64 %out.row, {r}
  %out.{r} = getelementptr i8, ptr %out.m, i64 %out.over.{r}""")
        lines.append(f"""  %float.{r}.{v} = sitofp {sums} %sum.next.{r}.{v} to <{lanes} x float>
  %scaled.{r}.{v} = fmul <{lanes} x float> %float.{r}.{v}, %scale.all
  %out.at.{r}.{v} = getelementptr i8, ptr %out.{r}, i64 {v * lanes * size}""")
        if half:
            lines.append(f"""  %half.{r}.{v} = fptrunc <{lanes} x float> %scaled.{r}.{v} to <{lanes} x bfloat>
  store <{lanes} x bfloat> %half.{r}.{v}, ptr %out.at.{r}.{v}, align 2""")
        else:
            lines.append(f"  store <{lanes} x float> %scaled.{r}.{v}, ptr %out.at.{r}.{v}, align 4")
    lines.append(f"""{_again("m", "m.next", str(num_rows), "%M", "some", "panel.end")}
panel.end:
{_again("n", "n.next", str(width), "%N", "panel", "point.end")}
point.end:
{_again("p", "p.next", "1", "%P", "point", "end")}
end:
  ret void
}}
declare {sums} {_instruction(lanes)}({sums}, {sums}, {sums})""")
    return "\n".join(lines)


def _again(name: str, following: str, step: str, end: str, start: str, after: str) -> str:
    """The end of a loop."""
    return f"""  %{following} = add i64 %{name}, {step}
  %{name}.more = icmp ult i64 %{following}, {end}
  br i1 %{name}.more, label %{start}, label %{after}"""


def _instruction(lanes: int) -> str:
    return f"@llvm.x86.avx512.vpdpbusd.{lanes * 32}"


def _dot(lanes: int, sums: str, unsigned: str, signed: str) -> str:
    kind = f"<{lanes} x i32>"
    return f"call {kind} {_instruction(lanes)}({kind} {sums}, {kind} {unsigned}, {kind} {signed})"


def _interleaved(name: str, start: str, stride: str, count: int) -> tuple[str, str]:
    """Lines that load so many bytes of each of four rows and put those of a column side by side, and the name of it all."""
    lines = [
        f"""  %{name}.over.{row} = mul i64 {stride}, {row}
  %{name}.at.{row} = getelementptr i8, ptr {start}, i64 %{name}.over.{row}
  %{name}.row.{row} = load <{count} x i8>, ptr %{name}.at.{row}, align 1"""
        for row in range(DEPTH)
    ]
    one, two, four = (f"<{number} x i8>" for number in (count, 2 * count, DEPTH * count))
    after = ", ".join(f"i32 {place}" for place in range(2 * count))
    lines += [
        f"  %{name}.{pair} = shufflevector {one} %{name}.row.{row}, {one} %{name}.row.{row + 1}, <{2 * count} x i32> <{after}>"
        for pair, row in (("low", 0), ("high", 2))
    ]
    mixed = ", ".join(f"i32 {row * count + column}" for column in range(count) for row in range(DEPTH))
    lines.append(f"""  %{name}.bytes = shufflevector {two} %{name}.low, {two} %{name}.high, <{DEPTH * count} x i32> <{mixed}>
  %{name}.four = bitcast {four} %{name}.bytes to <{count} x i32>""")
    return "\n".join(lines), f"%{name}.four"
