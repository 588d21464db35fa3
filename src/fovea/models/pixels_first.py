"""Layers for activations that lie in memory pixel by pixel, all images of a batch side by side: `(H, W, B, C)`.

Winograd's convolution leaves them so (fovea.models.winograd), as then each of its steps is one matrix product over rows of
B·C numbers, with nothing to gather. To the outside their shape stays `(B, C, H, W)`: only the strides differ.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def pixels_first(images: Tensor) -> Tensor:
    """`(B, C, H, W)` as contiguous `(H, W, B, C)`: a view where they lie so already."""
    return images.permute(2, 3, 0, 1).contiguous()


def images_first(pixels: Tensor) -> Tensor:
    """`(H, W, B, C)` as `(B, C, H, W)`: always a view."""
    return pixels.permute(2, 3, 0, 1)


def lies_pixels_first(images: Tensor) -> bool:
    """Whether `pixels_first` of `(B, C, H, W)` would be a view."""
    return images.permute(2, 3, 0, 1).is_contiguous()


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that leaves the order in memory as it is."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        if not lies_pixels_first(input):
            return super().forward(input)
        pixels = pixels_first(input)
        rows = super().forward(pixels.view(-1, pixels.shape[3], 1, 1))
        return images_first(rows.view_as(pixels))


class MaxPool2x2(nn.Module):
    """The maximum of every 2×2 pixels; an odd last row or column is left out."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, H // 2, W // 2)`."""
        if not lies_pixels_first(input) or min(input.shape[2:]) < 2:  # torch refuses what is too small
            return F.max_pool2d(input, 2)
        pooled: Tensor = _MaxPool.apply(pixels_first(input))
        return images_first(pooled)


class _MaxPool(torch.autograd.Function):
    """Keeps which of the four it was, a quarter of what went in: 0 to 3 as floats, booleans cost four times as much."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        height, width, *rest = pixels.shape
        largest = pixels.new_empty(height // 2, width // 2, *rest)
        chosen = torch.empty_like(largest) if ctx.needs_input_grad[0] else None
        greater = torch.empty_like(largest[0])
        for row in range(height // 2):  # what comes between stays in the caches
            first, *others = _corners(pixels[2 * row : 2 * row + 2])
            best = largest[row].copy_(first[0])
            if chosen is not None:
                chosen[row].zero_()
            for number, other in enumerate(others, start=1):
                if chosen is not None:  # of several equal pixels, as in black borders, the first one
                    torch.gt(other[0], best, out=greater)
                    torch.maximum(chosen[row], greater.mul_(number), out=chosen[row])
                torch.maximum(best, other[0], out=best)
        ctx.save_for_backward(chosen)
        ctx.shape = pixels.shape
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (chosen,) = ctx.saved_tensors
        odd = ctx.shape[0] % 2 or ctx.shape[1] % 2
        to_pixels = (gradient.new_zeros if odd else gradient.new_empty)(ctx.shape)
        taken = torch.empty_like(chosen[0])
        for row, given in enumerate(gradient):
            for number, target in enumerate(_corners(to_pixels[2 * row : 2 * row + 2])):
                torch.eq(chosen[row], number, out=taken)
                torch.mul(given, taken, out=target[0])
        return to_pixels


def _corners(pixels: Tensor) -> list[Tensor]:
    """Of every 2×2 pixels of `(H, W, B, C)` the first, second, third and fourth: `(H // 2, W // 2, B, C)` views."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    return [pixels[row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
