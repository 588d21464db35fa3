"""What the families share: widths, first weights, which weights decay, and the smallest image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from fovea.errors import ConfigError


def conv_norm(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (at stride 1) and batch normalization, whose shift makes a bias needless."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(after)
    )


def widened(name: str, widths: Sequence[int], widen: float) -> list[int]:
    """The paper's numbers of channels times `widen`, rounded. Raises ConfigError where one would be 0."""
    found = [round(width * widen) if 0 < widen < float("inf") else 0 for width in widths]
    if min(found) < 1:
        raise ConfigError(f"{name}:widen={widen:g} leaves a layer without channels: take 1, 0.5 or 2, for instance")
    return found


def check_size(name: str, image_size: tuple[int, int], least: int) -> None:
    """Raises ConfigError where a side of `(height, width)` is below `least` pixels."""
    height, width = image_size
    if min(height, width) < least:
        raise ConfigError(
            f"model '{name}' needs images of at least {least}×{least} pixels, not {width}×{height}: "
            f"--image-size {least} enlarges pictures that are files; or take a model for smaller ones, such as convnet"
        )


def check_dropout(name: str, dropout: float) -> None:
    """Raises ConfigError where `dropout` is no share of the activations, 0 to below 1."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"{name}:dropout={dropout:g} must be at least 0 and below 1")


def init_for_relu(model: nn.Module) -> None:
    """Normal weights whose variance keeps a ReLU network's signal at its size, and biases of 0.

    He et al. 2015 (arXiv:1502.01852), eq. 10: standard deviation sqrt(2 / fan_in).
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def decay_weights_only(model: nn.Module, exempt: Collection[str] = ()) -> list[dict[str, Any]]:
    """The optimizer's groups: weights, which decay, then biases and normalization and `exempt` names, which do not.

    The papers decay everything. Pulling the scale and shift of a normalization to 0 limits nothing that the next
    layer's weights could not undo; He et al. 2019 (arXiv:1812.01187), section 3.1, leave them out, as most do since.
    """
    named = list(model.named_parameters())
    spared = [p for name, p in named if p.ndim <= 1 or name in exempt]
    decayed = [p for name, p in named if not (p.ndim <= 1 or name in exempt)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
