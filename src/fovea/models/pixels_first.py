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
        if not lies_pixels_first(input):
            return F.max_pool2d(input, 2)
        pooled: Tensor = _MaxPool.apply(pixels_first(input))
        return images_first(pooled)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        first, *others = _corners(pixels)
        largest = first.clone()
        for other in others:
            torch.maximum(largest, other, out=largest)
        ctx.save_for_backward(pixels, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        pixels, largest = ctx.saved_tensors
        to_pixels = torch.zeros_like(pixels) if pixels.shape[0] % 2 or pixels.shape[1] % 2 else torch.empty_like(pixels)
        left, chosen = (
            gradient.clone(),
            torch.empty_like(largest),
        )  # 1 and 0 as floats: booleans cost four times as much
        for corner, target in zip(_corners(pixels), _corners(to_pixels), strict=True):
            torch.eq(corner, largest, out=chosen)
            torch.mul(left, chosen, out=target)
            left -= target  # of several equal pixels, as in black borders, the first one gets it all
        return to_pixels


def _corners(pixels: Tensor) -> list[Tensor]:
    """Of every 2×2 pixels of `(H, W, B, C)` the first, second, third and fourth: `(H // 2, W // 2, B, C)` views."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    return [pixels[row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
