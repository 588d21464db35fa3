"""Batch normalization, with ReLU or without, in as few passes over memory as there can be, by kernels that LLVM makes.

PyTorch goes over the numbers five times on the way forward and eight times on the way back; here it is three and five. What the
kernels add up is taken about the first row, as variances of numbers far from 0 would drown in rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fovea.models.kernels import Kernel, compile_text, has_bf16
from fovea.models.vectors import LANES, Vectors

Kind: TypeAlias = Literal["sums", "out", "back sums", "back"]

# What each kernel reads and writes of rows, and what it knows of each channel.
_ROWS: dict[Kind, tuple[str, ...]] = {
    "sums": ("x",), "out": ("x", "to"), "back sums": ("x", "gradient"), "back": ("x", "gradient", "to")
}  # fmt: skip
_CHANNELS: dict[Kind, tuple[str, ...]] = {
    "sums": ("about", "first", "second"),
    "out": ("scale", "shift"),
    "back sums": ("scale", "shift", "about", "first", "second"),
    "back": ("scale", "shift", "about", "slope", "offset"),
}


def mean_and_variance(pixels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Of each channel of each group of `(P, N, C)`, C a multiple of `LANES`, to `(G, C) float32`.

    A group is the next `size` of N; the last may be smaller. The variance is that of the numbers themselves, not of what they
    are drawn from.
    """
    about = pixels[0, ::size].float().contiguous()
    first, second = torch.zeros(2, *about.shape).unbind()
    _run("sums", size, (pixels,), (about, first, second))
    numbers = counts(pixels, size)
    first /= numbers
    return about + first, (second / numbers - first.square()).clamp_(min=0)


def shifted(pixels: Tensor, scale: Tensor, shift: Tensor, size: int, relu: bool) -> Tensor:
    """`pixels * scale + shift`, for `(G, C) float32`, or with `relu` the larger of 0 and that."""
    out = torch.empty_like(pixels)
    _run("out", size, (pixels, out), (scale, shift), relu)
    return out


def gradients(
    pixels: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor, size: int, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of `(P, N, C)` pixels, and of the `(C,)` weight and bias, from that of `shifted`.

    `mean` and `inverse`, of the standard deviation, are those of the groups, from which scale and shift come.
    """
    to_bias, sums = torch.zeros(2, *mean.shape).unbind()
    _run("back sums", size, (pixels, gradient), (scale, shift, mean, to_bias, sums), relu)
    to_weight = sums * inverse
    # scale (g - mean of g - x^ (mean of g x^)), where x^ = (x - mean) inverse
    numbers = counts(pixels, size)
    slope = -scale * to_weight * inverse / numbers
    offset = -scale * to_bias / numbers
    found = torch.empty_like(pixels)
    _run("back", size, (pixels, gradient, found), (scale, shift, mean, slope, offset), relu)
    return found, to_weight.sum(0), to_bias.sum(0)


def counts(pixels: Tensor, size: int) -> Tensor:
    """`(G, 1)`: how many numbers of a channel a group has."""
    num_pixels, length = pixels.shape[:2]
    return torch.tensor([[float(num_pixels * min(size, length - start))] for start in range(0, length, size)])


def _run(
    kind: Kind, size: int, pixels: tuple[Tensor, ...], channels: tuple[Tensor, ...], relu: bool = False
) -> None:  # fmt: skip
    num_pixels, length, width = pixels[0].shape
    kernel = _compiled(kind, pixels[0].dtype == torch.bfloat16, relu)
    bytes_each = width * pixels[0].element_size(), width * 4
    rows, known = ([tensor.data_ptr() for tensor in tensors] for tensors in (pixels, channels))
    for number, start in enumerate(range(0, length, size)):
        there = (address + start * bytes_each[0] for address in rows)
        of_group = (address + number * bytes_each[1] for address in known)
        kernel(*there, *of_group, num_pixels, min(size, length - start), width, length)


@lru_cache(maxsize=16)
def _compiled(kind: Kind, half: bool, relu: bool) -> Kernel:
    return compile_text(_text(kind, half, relu), len(_ROWS[kind]) + len(_CHANNELS[kind]), 4)


def _text(kind: Kind, half: bool, relu: bool) -> str:
    """LLVM's text: pixel by pixel, row by row of the group, some channels at a time. Sums lie in memory, which is a cache's."""
    size = 2 if half else 4
    vectors = Vectors(LANES, has_bf16())
    row = {name: vectors.address(f"%{name}.row", "%c", size) for name in _ROWS[kind]}
    channel = {name: vectors.address(f"%{name}", "%c", 4) for name in _CHANNELS[kind]}
    known = {name: vectors.load(address, half=False) for name, address in channel.items()}
    x = vectors.load(row["x"], half)
    value = x if kind == "sums" else vectors.fma(x, known["scale"], known["shift"])
    if kind == "out":
        vectors.store(vectors.positive(value, value) if relu else value, row["to"], half)
    elif kind == "sums":
        apart = vectors.subtract(x, known["about"])
        vectors.store(vectors.add(known["first"], apart), channel["first"], half=False)
        vectors.store(vectors.fma(apart, apart, known["second"]), channel["second"], half=False)
    else:
        gradient = vectors.load(row["gradient"], half)
        through = vectors.positive(value, gradient) if relu else gradient
        apart = vectors.subtract(x, known["about"])
        if kind == "back sums":
            vectors.store(vectors.add(known["first"], through), channel["first"], half=False)
            vectors.store(vectors.fma(apart, through, known["second"]), channel["second"], half=False)
        else:
            straight = vectors.fma(through, known["scale"], known["offset"])
            vectors.store(vectors.fma(apart, known["slope"], straight), row["to"], half)
    given = ", ".join(f"ptr noalias %{name}" for name in (*_ROWS[kind], *_CHANNELS[kind]))
    starts = "\n".join(f"  %{name}.row = getelementptr i8, ptr %{name}, i64 %before" for name in _ROWS[kind])
    lines = "\n".join(vectors.lines)
    return f"""define void @kernel({given}, i64 %P, i64 %N, i64 %C, i64 %length) {{
entry:
  %row.bytes = mul i64 %C, {size}
  br label %pixel
pixel:
  %p = phi i64 [0, %entry], [%p.next, %pixel.end]
  %rows.before = mul i64 %p, %length
  br label %row
row:
  %n = phi i64 [0, %pixel], [%n.next, %row.end]
  %number = add i64 %rows.before, %n
  %before = mul i64 %number, %row.bytes
{starts}
  br label %some
some:
  %c = phi i64 [0, %row], [%c.next, %some]
{lines}
  %c.next = add i64 %c, {LANES}
  %c.more = icmp ult i64 %c.next, %C
  br i1 %c.more, label %some, label %row.end
row.end:
  %n.next = add i64 %n, 1
  %n.more = icmp ult i64 %n.next, %N
  br i1 %n.more, label %row, label %pixel.end
pixel.end:
  %p.next = add i64 %p, 1
  %p.more = icmp ult i64 %p.next, %P
  br i1 %p.more, label %pixel, label %end
end:
  ret void
}}
{vectors.declarations()}"""
