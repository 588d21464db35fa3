"""The network of the CIFAR-10 speed records: a whitening first layer, then a few wide 3×3 convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.device import has_llvm
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.models.blocks import check_size
from fovea.models.pixels_first import GELU, BatchNorm, NormGELU, NormReLU, images_first, pixels_first
from fovea.models.vectors import LANES
from fovea.models.winograd import Conv3x3
from fovea.registry import model

FORMS = ("record",)

# kernel, stride, padding, most filters (each with its negative besides)
_STEMS = {"overlap": (2, 1, 0, 12), "stride": (4, 2, 1, 32), "patch": (8, 4, 2, 32)}


_BIAS_LEARNS = 3 / 8  # of the run, as in airbench94: then the first stage needs no gradient of what goes in


class Record(Model):
    """Whitened patches, stages of 3×3 convolutions with batch normalization, a global maximum, and a linear head.

    After Jordan 2024 ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498), sections 3.1 to 3.3: frozen
    whitening filters and their negatives, the first convolutions begun as the identity, normalization that shifts but
    does not scale. The first layer's activation is ReLU, which has both signs of each filter.
    """

    def __init__(
        self, num_classes: int, channels: int, widths: tuple[int, ...], depths: tuple[int, ...], stem: str,
        filters: int, activation: str = "relu",
    ) -> None:  # fmt: skip
        super().__init__()
        kernel, stride, padding, most = _STEMS[stem]
        num_filters = min(filters or most, channels * kernel**2)
        self.whiten = nn.Conv2d(channels, 2 * num_filters, kernel, stride, padding, bias=False)
        self.whiten.weight.requires_grad = False
        # Apart from the convolution, whose gradient with respect to the bias alone costs as much as to the weight.
        self.bias = nn.Parameter(torch.zeros(2 * num_filters))
        layers: list[nn.Module] = []
        before = 2 * num_filters
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += _unit(before, width, activation, halve=stage > 0 or stride == 1)
            others = [layer for _ in range(depth - 1) for layer in _unit(width, width, activation)]
            if depth > 2:
                others[-1] = _norm(BatchNorm, width)  # the activation comes after the sum
                others = [_Skip(*others), GELU() if activation == "gelu" else nn.ReLU()]
            layers += others
            before = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes, bias=False)
        # The record's head learns 12.6 times as fast as its biases; the same, as a factor of its input (SGD moves it
        # by the square), with weights that begin so much smaller.
        gain = math.sqrt(0.67 / 0.053)
        nn.init.normal_(self.head.weight, std=1 / gain)
        self._scale = gain / before

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        x = self.stages(self._whitened(images))
        logits: Tensor = self.head(torch.amax(x, dim=(2, 3)) * self._scale)
        return logits

    def _whitened(self, images: Tensor) -> Tensor:
        """The whitened patches, shifted, through ReLU."""
        if self._has_kernel(images):
            from fovea.models.whitening import whitened  # llvmlite is loaded where it is used

            half = torch.is_autocast_enabled("cpu")
            with torch.autocast("cpu", enabled=False):
                return images_first(whitened(pixels_first(images), self.whiten.weight, self.bias, half))
        x = self.whiten(images.contiguous(memory_format=torch.channels_last)) + self.bias[:, None, None]
        return F.relu(x)

    def _has_kernel(self, images: Tensor) -> bool:
        """Whether the first layer can be one kernel: in training on a CPU, where there is a gradient of the bias at most."""
        return (
            self.training
            and self.whiten.stride == (1, 1)
            and images.device.type == "cpu"
            and images.dtype == torch.float32
            and has_llvm()
            and not len(self.whiten.weight) % (LANES // 2)
            and not (images.requires_grad or self.whiten.weight.requires_grad)
        )

    def settle(self, share: float) -> None:
        """The biases behind the whitening filters stop first."""
        if share >= _BIAS_LEARNS:
            self.bias.requires_grad = False

    def init_from_data(self, images: Tensor) -> None:
        """Filters that turn the patches of `(N, C, H, W)` images into uncorrelated numbers of variance 1."""
        kernel, stride = self.whiten.kernel_size[0], self.whiten.stride[0]
        step = stride if stride > 2 else 1
        # Hundreds of thousands of patches: more change nothing. Of large pictures fewer, so that they fit into 500 MB.
        numbers = self.whiten.weight[0].numel() * (images.shape[2] // step) * (images.shape[3] // step)
        images = images[:: max(1, len(images) // max(50, min(500, 40_000_000 // numbers)))]
        # (N, C, H', W', k, k) to rows of C·k·k, in the order of a filter's weights
        patches = (
            images.unfold(2, kernel, step).unfold(3, kernel, step).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        )
        covariance = patches.T.double() @ patches.double() / len(patches)
        variances, directions = torch.linalg.eigh(covariance)
        half = len(self.whiten.weight) // 2
        # Smallest last; 5e-4 keeps directions that hold nothing but noise from being blown up.
        filters = (directions / (variances + 5e-4).sqrt()).T.flip(0)[:half]
        with torch.no_grad():
            self.whiten.weight.copy_(torch.cat([filters, -filters]).view_as(self.whiten.weight))


class _Skip(nn.Sequential):
    """Adds what goes in to what comes out."""

    def forward(self, input: Tensor) -> Tensor:
        changed: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return input + changed


def _unit(before: int, after: int, activation: str, halve: bool = False) -> list[nn.Module]:
    """A convolution that passes the first channels on as they are, a normalization that shifts but does not scale, ReLU or GELU."""
    convolution = Conv3x3(before, after, pool=halve)
    nn.init.dirac_(convolution.weight.data[:before])
    return [convolution, _norm(NormGELU if activation == "gelu" else NormReLU, after)]


def _norm(kind: type[BatchNorm], channels: int) -> BatchNorm:
    norm = kind(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


def _numbers(name: str, text: Any) -> tuple[int, ...]:
    parts = str(text).split("/")
    if not all(part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"record:{name}={text}: write whole numbers from 1, such as 64/128/128")
    return tuple(map(int, parts))


@model
def record(
    num_classes: int, channels: int, image_size: tuple[int, int], widths: str = "64/256/256", depths: str = "2/2/2",
    stem: str = "overlap", filters: int = 0, activation: str = "relu",
) -> Model:  # fmt: skip
    """The network of the CIFAR-10 speed records; its first layer comes from the data.

    Args:
        widths: channels of each stage, each of which halves the image (under stem=stride and patch, not the first).
        depths: convolutions of each stage; from 3 on, all but the first are one residual block.
        stem: overlap (2×2 patches), stride (4×4 patches, two pixels apart: a quarter of the work in the first stage), or
            patch (8×8, four apart, for pictures of some 100 pixels: a sixteenth).
        filters: of the first layer, each with its negative besides; 0: 12, or 32 under stem=stride and patch.
        activation: relu or gelu, which bends where ReLU has an edge (Hendrycks & Gimpel 2016).
    """
    if stem not in _STEMS:
        raise ConfigError(f"record:stem={stem}: there are {', '.join(_STEMS)}")
    sizes, counts = _numbers("widths", widths), _numbers("depths", depths)
    if len(sizes) != len(counts):
        raise ConfigError(f"record: widths={widths} and depths={depths} differ in their number of stages")
    stride = _STEMS[stem][1]
    check_size("record", image_size, 2 ** len(sizes) + 1 if stride == 1 else stride * 2 ** (len(sizes) - 1))
    if activation not in ("relu", "gelu"):
        raise ConfigError(f"record:activation={activation}: there are relu, gelu")
    if filters < 0:
        raise ConfigError(f"record:filters={filters} must be at least 1 (0: as many as suit the stem)")
    return Record(num_classes, channels, sizes, counts, stem, filters, activation)
