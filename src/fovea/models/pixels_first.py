"""Layers for activations that lie in memory pixel by pixel, all images of a batch side by side: `(H, W, B, C)`.

Winograd's convolution leaves them so (fovea.models.winograd), as then each of its steps goes over
whole rows of B·C numbers, with nothing to gather. To the outside their shape stays `(B, C, H, W)`: only the strides differ.
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


class NormReLU(BatchNorm):
    """Batch normalization, then ReLU: in training on a CPU without a second tensor between them."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        if not (self.training and input.device.type == "cpu" and lies_pixels_first(input)):
            return F.relu(super().forward(input))
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        pixels = pixels_first(input)
        rows = pixels.view(-1, pixels.shape[3], 1, 1)
        running = self.running_mean, self.running_var
        out = _NormReLU.apply(rows, self.weight, self.bias, running, self.momentum, self.eps)
        return images_first(out.view_as(pixels))


class _NormReLU(torch.autograd.Function):
    """Of `(N, C, 1, 1)`. What autograd sees of both at once is one operation, so ReLU may write over what it reads."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor],
        momentum: float,
        eps: float,
    ) -> Tensor:
        out, *of_batch = torch.native_batch_norm(rows, weight, bias, running[0], running[1], True, momentum, eps)
        ctx.save_for_backward(rows, out.relu_(), weight, *running, *of_batch)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, out, weight, *statistics = ctx.saved_tensors
        masked = torch.ops.aten.threshold_backward(gradient, out, 0)
        found = torch.ops.aten.native_batch_norm_backward(
            masked, rows, weight, *statistics, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return (*found, None, None, None)
