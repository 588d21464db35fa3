"""2×2 patches of images through filters, a bias and ReLU, in one pass over memory, by a kernel that LLVM makes.

As operations of PyTorch, the first layer of fovea.models.record took up to a sixth of a step's gradients (EXPERIMENTS.md).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fovea.models.kernels import Kernel, compile_text, has_bf16
from fovea.models.vectors import LANES, Vectors

_AT_ONCE = LANES // 2  # filters; 24 are no multiple of 16


def whitened(pixels: Tensor, filters: Tensor, bias: Tensor, half: bool) -> Tensor:
    """`(H, W, B, C) float32` to `(H - 1, W - 1, B, F)`: each 2×2 times `(F, C, 2, 2)`, plus `(F,)`, or 0 where that is less.

    F is a multiple of 8. With `half` the result is bfloat16. Only the bias has a gradient.
    """
    out: Tensor = _Whitened.apply(pixels, filters, bias, half)
    return out


class _Whitened(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, filters: Tensor, bias: Tensor, half: bool) -> Tensor:
        height, width, count, channels = pixels.shape
        num_filters = len(filters)
        weights = filters.permute(2, 3, 1, 0).contiguous()
        dtype = torch.bfloat16 if half else torch.float32
        out = pixels.new_empty(height - 1, width - 1, count, num_filters, dtype=dtype)
        tensors = (pixels, weights, bias.contiguous(), out)
        kernel = _forward(channels, num_filters, half)
        kernel(*[tensor.data_ptr() for tensor in tensors], height - 1, width - 1, count)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        given, num_filters = gradient.contiguous(), out.shape[-1]
        sums = torch.zeros(num_filters)
        kernel = _backward(num_filters, out.dtype == torch.bfloat16)
        kernel(out.data_ptr(), given.data_ptr(), sums.data_ptr(), out.numel() // num_filters)
        return None, None, sums, None


@lru_cache(maxsize=16)
def _forward(channels: int, num_filters: int, half: bool) -> Kernel:
    """Of pixels, weights `(2, 2, C, F)`, biases, where results go; then how many rows and columns of patches, and images."""
    vectors = Vectors(_AT_ONCE, has_bf16())
    starts = range(0, num_filters, _AT_ONCE)
    sums = [vectors.load(vectors.address("%bias", str(start), 4), half=False) for start in starts]
    for tap, corner in enumerate(("here", "right", "below", "across")):
        for channel in range(channels):
            value = vectors.load_everywhere(vectors.address(f"%{corner}", str(channel), 4))
            before = (tap * channels + channel) * num_filters
            for number, start in enumerate(starts):
                weight = vectors.load(vectors.address("%weights", str(before + start), 4), half=False)
                sums[number] = vectors.fma(value, weight, sums[number])
    for start, total in zip(starts, sums, strict=True):
        vectors.store(vectors.positive(total, total), vectors.address("%to", str(start), 2 if half else 4), half)
    lines = "\n".join(vectors.lines)
    text = f"""define void @kernel(ptr noalias %pixels, ptr noalias %weights, ptr noalias %bias, ptr noalias %out, i64 %H, i64 %W, i64 %N) {{
entry:
  %pixel.bytes = mul i64 %N, {4 * channels}
  %wide = add i64 %W, 1
  %row.bytes = mul i64 %wide, %pixel.bytes
  br label %row
row:
  %y = phi i64 [0, %entry], [%y.next, %row.end]
  %row.before = mul i64 %y, %row.bytes
  %patches.before = mul i64 %y, %W
  br label %patch
patch:
  %x = phi i64 [0, %row], [%x.next, %patch.end]
  %left = mul i64 %x, %pixel.bytes
  %before = add i64 %row.before, %left
  %number = add i64 %patches.before, %x
  %results.before = mul i64 %number, %N
  br label %image
image:
  %n = phi i64 [0, %patch], [%n.next, %image]
  %n.bytes = mul i64 %n, {4 * channels}
  %at = add i64 %before, %n.bytes
  %here = getelementptr i8, ptr %pixels, i64 %at
  %right = getelementptr i8, ptr %here, i64 %pixel.bytes
  %below = getelementptr i8, ptr %here, i64 %row.bytes
  %across = getelementptr i8, ptr %below, i64 %pixel.bytes
  %result = add i64 %results.before, %n
  %result.bytes = mul i64 %result, {(2 if half else 4) * num_filters}
  %to = getelementptr i8, ptr %out, i64 %result.bytes
{lines}
  %n.next = add i64 %n, 1
  %n.more = icmp ult i64 %n.next, %N
  br i1 %n.more, label %image, label %patch.end
patch.end:
  %x.next = add i64 %x, 1
  %x.more = icmp ult i64 %x.next, %W
  br i1 %x.more, label %patch, label %row.end
row.end:
  %y.next = add i64 %y, 1
  %y.more = icmp ult i64 %y.next, %H
  br i1 %y.more, label %row, label %end
end:
  ret void
}}
{vectors.declarations()}"""
    return compile_text(text, 4, 3)


@lru_cache(maxsize=4)
def _backward(num_filters: int, half: bool) -> Kernel:
    """Of results, their gradients and `(F,)` sums, to which the gradients of results above 0 are added; then how many there are."""
    vectors = Vectors(_AT_ONCE, has_bf16())
    size = 2 if half else 4
    for start in range(0, num_filters, _AT_ONCE):
        result, gradient = (vectors.load(vectors.address(f"%{name}", str(start), size), half) for name in ("r", "g"))
        sums = vectors.address("%sums", str(start), 4)
        total = vectors.add(vectors.load(sums, half=False), vectors.positive(result, gradient))
        vectors.store(total, sums, half=False)
    lines = "\n".join(vectors.lines)
    text = f"""define void @kernel(ptr noalias %results, ptr noalias %gradients, ptr noalias %sums, i64 %N) {{
entry:
  br label %each
each:
  %n = phi i64 [0, %entry], [%n.next, %each]
  %before = mul i64 %n, {size * num_filters}
  %r = getelementptr i8, ptr %results, i64 %before
  %g = getelementptr i8, ptr %gradients, i64 %before
{lines}
  %n.next = add i64 %n, 1
  %n.more = icmp ult i64 %n.next, %N
  br i1 %n.more, label %each, label %end
end:
  ret void
}}
{vectors.declarations()}"""
    return compile_text(text, 3, 1)
