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

from fovea.device import has_llvm
from fovea.models.vectors import LANES


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
    """Batch normalization, then ReLU: in training on a CPU in few passes over memory (fovea.models.normalize)."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        if not (self.training and self._suits(input) and has_llvm()):
            return F.relu(super().forward(input))
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        pixels = pixels_first(input)
        rows, running = pixels.view(-1, pixels.shape[3]), (self.running_mean, self.running_var)
        out = _NormReLU.apply(rows, self.weight, self.bias, running, self.momentum, self.eps)
        return images_first(out.view_as(pixels))

    def _suits(self, images: Tensor) -> bool:
        return (
            images.device.type == "cpu"
            and images.dtype in (torch.float32, torch.bfloat16)
            and not self.num_features % LANES
            and lies_pixels_first(images)
        )


class _NormReLU(torch.autograd.Function):
    """Of `(N, C)`."""

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
        from fovea.models.normalize import mean_and_variance, shifted_relu  # llvmlite is loaded where it is used

        mean, variance = mean_and_variance(rows)
        running[0].lerp_(mean, momentum)
        running[1].lerp_(variance * (len(rows) / max(1, len(rows) - 1)), momentum)
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        shift = bias - mean * scale
        ctx.save_for_backward(rows, scale, shift, mean, inverse)
        return shifted_relu(rows, scale, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from fovea.models.normalize import gradients

        rows, *known = ctx.saved_tensors
        return (*gradients(rows, gradient.contiguous(), *known), None, None, None)
