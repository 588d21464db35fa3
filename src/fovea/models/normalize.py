"""Batch normalization and ReLU in as few passes over memory as there can be, by kernels that LLVM makes.

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


def mean_and_variance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel of `(N, C)`, C a multiple of `LANES`, to `(C,) float32`.

    The variance is that of the numbers themselves, not of what they are drawn from.
    """
    about = rows[0].float()
    first, second = torch.zeros(2, rows.shape[1]).unbind()
    _run("sums", (rows,), (about, first, second))
    first /= len(rows)
    return about + first, (second / len(rows) - first.square()).clamp_(min=0)


def shifted_relu(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The larger of 0 and `rows * scale + shift`, for `(C,) float32`."""
    out = torch.empty_like(rows)
    _run("out", (rows, out), (scale, shift))
    return out


def gradients(
    rows: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `(N, C)` rows, and of the `(C,)` weight and bias, from that of `shifted_relu`.

    `mean` and `inverse`, of the standard deviation, are those of the rows, from which scale and shift come.
    """
    to_bias, sums = torch.zeros(2, rows.shape[1]).unbind()
    _run("back sums", (rows, gradient), (scale, shift, mean, to_bias, sums))
    to_weight = sums * inverse
    # scale (g - mean of g - x^ (mean of g x^)), where x^ = (x - mean) inverse
    slope = -scale * to_weight * inverse / len(rows)
    offset = -scale * to_bias / len(rows)
    found = torch.empty_like(rows)
    _run("back", (rows, gradient, found), (scale, shift, mean, slope, offset))
    return found, to_weight, to_bias


def _run(kind: Kind, rows: tuple[Tensor, ...], channels: tuple[Tensor, ...]) -> None:
    count, width = rows[0].shape
    kernel = _compiled(kind, rows[0].dtype == torch.bfloat16)
    kernel(*(tensor.data_ptr() for tensor in (*rows, *channels)), count, width)


@lru_cache(maxsize=16)
def _compiled(kind: Kind, half: bool) -> Kernel:
    return compile_text(_text(kind, half), len(_ROWS[kind]) + len(_CHANNELS[kind]), 2)


def _text(kind: Kind, half: bool) -> str:
    """LLVM's text: row by row, some channels at a time. Sums lie in memory, which is a cache's."""
    size = 2 if half else 4
    vectors = Vectors(LANES, has_bf16())
    row = {name: vectors.address(f"%{name}.row", "%c", size) for name in _ROWS[kind]}
    channel = {name: vectors.address(f"%{name}", "%c", 4) for name in _CHANNELS[kind]}
    known = {name: vectors.load(address, half=False) for name, address in channel.items()}
    x = vectors.load(row["x"], half)
    value = x if kind == "sums" else vectors.fma(x, known["scale"], known["shift"])
    if kind == "out":
        vectors.store(vectors.positive(value, value), row["to"], half)
    elif kind == "sums":
        apart = vectors.subtract(x, known["about"])
        vectors.store(vectors.add(known["first"], apart), channel["first"], half=False)
        vectors.store(vectors.fma(apart, apart, known["second"]), channel["second"], half=False)
    else:
        through = vectors.positive(value, vectors.load(row["gradient"], half))
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
    return f"""define void @kernel({given}, i64 %N, i64 %C) {{
entry:
  %row.bytes = mul i64 %C, {size}
  br label %row
row:
  %n = phi i64 [0, %entry], [%n.next, %row.end]
  %before = mul i64 %n, %row.bytes
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
  br i1 %n.more, label %row, label %end
end:
  ret void
}}
{vectors.declarations()}"""
