"""Batch normalization, with ReLU, GELU or neither, in as few passes over memory as there can be, by kernels that LLVM makes.

PyTorch goes over the numbers five times on the way forward and eight times on the way back; here it is three and five. What the
kernels add up is taken about the first row, as variances of numbers far from 0 would drown in rounding.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fovea.models.kernels import Kernel, compile_text, has_bf16
from fovea.models.pixels_first import Activation
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


# From -4 to 4, beyond which they are taken for 0 or 1: 1/2 + x P(x²), for GELU's x Φ(x) to 3e-4, for its slope to 1.4e-3.
_END = 4.0
_TERMS = 7


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


def shifted(pixels: Tensor, scale: Tensor, shift: Tensor, size: int, activation: Activation) -> Tensor:
    """`pixels * scale + shift`, for `(G, C) float32`, through the activation."""
    out = torch.empty_like(pixels)
    _run("out", size, (pixels, out), (scale, shift), activation)
    return out


def gradients(
    pixels: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor, size: int, activation: Activation
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of `(P, N, C)` pixels, and of the `(C,)` weight and bias, from that of `shifted`.

    `mean` and `inverse`, of the standard deviation, are those of the groups, from which scale and shift come.
    """
    to_bias, sums = torch.zeros(2, *mean.shape).unbind()
    _run("back sums", size, (pixels, gradient), (scale, shift, mean, to_bias, sums), activation)
    to_weight = sums * inverse
    # scale (g - mean of g - x^ (mean of g x^)), where x^ = (x - mean) inverse
    numbers = counts(pixels, size)
    slope = -scale * to_weight * inverse / numbers
    offset = -scale * to_bias / numbers
    found = torch.empty_like(pixels)
    _run("back", size, (pixels, gradient, found), (scale, shift, mean, slope, offset), activation)
    return found, to_weight.sum(0), to_bias.sum(0)


def _after(vectors: Vectors, value: str, activation: Activation) -> str:
    """What comes out of the activation."""
    if activation == "gelu":
        return vectors.times(value, _odd(vectors, value, _gelu()[0]))
    return vectors.positive(value, value) if activation == "relu" else value


def _before(vectors: Vectors, value: str, gradient: str, activation: Activation) -> str:
    """The gradient of what goes into it, from that of what comes out."""
    if activation == "gelu":
        return vectors.times(gradient, _odd(vectors, value, _gelu()[1]))
    return vectors.positive(value, gradient) if activation == "relu" else gradient


def _odd(vectors: Vectors, value: str, coefficients: tuple[float, ...]) -> str:
    """1/2 + x P(x²) of the nearest x that is not beyond the ends."""
    near = vectors.within(value, _END)
    square = vectors.times(near, near)
    return vectors.fma(near, vectors.polynomial(square, coefficients), vectors.constant(0.5))


@lru_cache(maxsize=1)
def _gelu() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The coefficients of P for Φ(x), and for the slope of x Φ(x): least squares, exact at the end."""
    x = _END * np.cos(np.linspace(0, np.pi / 2, 1000, endpoint=False))
    area = np.array([0.5 * math.erf(value / math.sqrt(2)) for value in x.tolist()])
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    powers = (x**2)[:, None] ** np.arange(_TERMS - 1)
    found = []
    for wanted in (area, area + x * density):
        rest = wanted - 0.5 * x / _END  # of x P(x²): what vanishes at the end is (x² - end²) Q(x²)
        q = np.linalg.lstsq((x * (x**2 - _END**2))[:, None] * powers, rest, rcond=None)[0]
        p = np.append(0, q) - np.append(_END**2 * q, 0)
        p[0] += 0.5 / _END
        found.append(tuple(p.tolist()))
    return found[0], found[1]


def gradient_through(pixels: Tensor, gradient: Tensor, activation: Activation) -> Tensor:
    """The gradient of `(P, N, C)` pixels from that of what comes out of an activation alone."""
    found = torch.empty_like(pixels)
    one = torch.ones(1, pixels.shape[2])
    nothing = torch.zeros_like(one)
    _run("back", pixels.shape[1], (pixels, gradient, found), (one, nothing, nothing, nothing, nothing), activation)
    return found


def counts(pixels: Tensor, size: int) -> Tensor:
    """`(G, 1)`: how many numbers of a channel a group has."""
    num_pixels, length = pixels.shape[:2]
    return torch.tensor([[float(num_pixels * min(size, length - start))] for start in range(0, length, size)])


def _run(
    kind: Kind, size: int, pixels: tuple[Tensor, ...], channels: tuple[Tensor, ...], activation: Activation = "none"
) -> None:  # fmt: skip
    num_pixels, length, width = pixels[0].shape
    kernel = _compiled(kind, pixels[0].dtype == torch.bfloat16, activation)
    bytes_each = width * pixels[0].element_size(), width * 4
    rows, known = ([tensor.data_ptr() for tensor in tensors] for tensors in (pixels, channels))
    for number, start in enumerate(range(0, length, size)):
        there = (address + start * bytes_each[0] for address in rows)
        of_group = (address + number * bytes_each[1] for address in known)
        kernel(*there, *of_group, num_pixels, min(size, length - start), width, length)


@lru_cache(maxsize=32)
def _compiled(kind: Kind, half: bool, activation: Activation) -> Kernel:
    return compile_text(_text(kind, half, activation), len(_ROWS[kind]) + len(_CHANNELS[kind]), 4)


def _text(kind: Kind, half: bool, activation: Activation) -> str:
    """LLVM's text: pixel by pixel, row by row of the group, some channels at a time. Sums lie in memory, which is a cache's."""
    size = 2 if half else 4
    vectors = Vectors(LANES, has_bf16())
    row = {name: vectors.address(f"%{name}.row", "%c", size) for name in _ROWS[kind]}
    channel = {name: vectors.address(f"%{name}", "%c", 4) for name in _CHANNELS[kind]}
    known = {name: vectors.load(address, half=False) for name, address in channel.items()}
    x = vectors.load(row["x"], half)
    value = x if kind == "sums" else vectors.fma(x, known["scale"], known["shift"])
    if kind == "out":
        vectors.store(_after(vectors, value, activation), row["to"], half)
    elif kind == "sums":
        apart = vectors.subtract(x, known["about"])
        vectors.store(vectors.add(known["first"], apart), channel["first"], half=False)
        vectors.store(vectors.fma(apart, apart, known["second"]), channel["second"], half=False)
    else:
        gradient = vectors.load(row["gradient"], half)
        through = _before(vectors, value, gradient, activation)
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
