"""Layers for activations that lie in memory pixel by pixel, all images of a batch side by side: `(H, W, B, C)`.

Winograd's convolution leaves them so (fovea.models.winograd), as then each of its steps goes over
whole rows of B·C numbers, with nothing to gather. To the outside their shape stays `(B, C, H, W)`: only the strides differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fovea.device import has_llvm
from fovea.models.vectors import LANES

Activation: TypeAlias = Literal["none", "relu", "gelu"]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


def pixels_first(images: Tensor) -> Tensor:
    """`(B, C, H, W)` as contiguous `(H, W, B, C)`: a view where they lie so already."""
    if images.is_contiguous():  # a matrix to turn over, which torch does three times as fast
        count, channels, height, width = images.shape
        return images.view(count * channels, height * width).t().contiguous().view(height, width, count, channels)
    return images.permute(2, 3, 0, 1).contiguous()


def images_first(pixels: Tensor) -> Tensor:
    """`(H, W, B, C)` as `(B, C, H, W)`: always a view."""
    return pixels.permute(2, 3, 0, 1)


def lies_pixels_first(images: Tensor) -> bool:
    """Whether `pixels_first` of `(B, C, H, W)` would be a view."""
    return images.permute(2, 3, 0, 1).is_contiguous()


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that leaves the order in memory as it is, in training on a CPU in few passes over memory."""

    activation: Activation = "none"
    group_size = 0  # images that `by_groups` takes together; 0: all

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        if self.training and self.has_kernels() and self._suits(input):
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            pixels, running = pixels_first(input), (self.running_mean, self.running_var)
            rows, size = pixels.flatten(0, 1), self.group_size or len(input)
            out = _Norm.apply(rows, size, self.activation, self.weight, self.bias, running, self.momentum, self.eps)
            return images_first(out.view_as(pixels))
        if lies_pixels_first(input):
            pixels = pixels_first(input)
            rows = super().forward(pixels.view(-1, pixels.shape[3], 1, 1))
            out = images_first(rows.view_as(pixels))
        else:
            out = super().forward(input)
        return _ACTIVATIONS[self.activation](out)

    def has_kernels(self) -> bool:
        """Whether there are kernels for so many channels (fovea.models.normalize)."""
        return has_llvm() and not self.num_features % LANES

    def _suits(self, images: Tensor) -> bool:
        return (
            images.device.type == "cpu"
            and images.dtype in (torch.float32, torch.bfloat16)
            and (lies_pixels_first(images) or self.group_size > 0)
        )


def by_groups(model: nn.Module, size: int) -> bool:
    """From now on, in training on a CPU, normalize `size` images at a time by their own statistics (ghost batches: Hoffer et
    al. 2017), as if each group came by itself; running averages move by the mean of the groups. False where a layer cannot.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    able = [layer for layer in norms if isinstance(layer, BatchNorm) and layer.has_kernels()]
    if len(able) < len(norms):
        return False
    for layer in able:
        layer.group_size = size
    return True


class NormReLU(BatchNorm):
    """Batch normalization, then ReLU."""

    activation = "relu"


class NormGELU(BatchNorm):
    """Batch normalization, then GELU."""

    activation = "gelu"


class GELU(nn.GELU):
    """GELU, in training on a CPU by the same kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        on_cpu = input.device.type == "cpu" and input.dtype in (torch.float32, torch.bfloat16) and has_llvm()
        if not (self.training and on_cpu and input.dim() == 4 and lies_pixels_first(input)) or input.shape[1] % LANES:
            return super().forward(input)
        pixels = pixels_first(input)
        out: Tensor = _GELU.apply(pixels.flatten(0, 1))
        return images_first(out.view_as(pixels))


class _GELU(torch.autograd.Function):
    """Of `(H·W, B, C)`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        from fovea.models.normalize import shifted

        ctx.save_for_backward(rows)
        one = torch.ones(1, rows.shape[2])
        return shifted(rows, one, torch.zeros_like(one), rows.shape[1], "gelu")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        from fovea.models.normalize import gradient_through

        (rows,) = ctx.saved_tensors
        return gradient_through(rows, gradient.contiguous(), "gelu")


class _Norm(torch.autograd.Function):
    """Of `(H·W, B, C)`, and the activation after it (fovea.models.normalize)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, size: int, activation: Activation, weight: Tensor, bias: Tensor,
        running: tuple[Tensor, Tensor], momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        from fovea.models.normalize import counts, mean_and_variance, shifted  # llvmlite is loaded where it is used

        mean, variance = mean_and_variance(rows, size)
        numbers = counts(rows, size)
        running[0].lerp_(mean.mean(0), momentum)
        running[1].lerp_((variance * (numbers / (numbers - 1).clamp_(min=1))).mean(0), momentum)
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        shift = bias - mean * scale
        ctx.save_for_backward(rows, scale, shift, mean, inverse)
        ctx.size, ctx.activation = size, activation
        return shifted(rows, scale, shift, size, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from fovea.models.normalize import gradients

        rows, scale, shift, mean, inverse = ctx.saved_tensors
        given = gradient.contiguous()
        to_rows, *rest = gradients(rows, given, scale, shift, mean, inverse, ctx.size, ctx.activation)
        return (to_rows, None, None, *rest, None, None, None)
