"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.models.blocks import check_dropout, check_size, decay_weights_only, init_for_relu, widened
from fovea.registry import model

FORMS = ("wide-resnet:16:4", "wide-resnet:16:2", "wide-resnet:16:8", "wide-resnet:28:10", "wide-resnet:40:2")
_LEAST = 4  # three stages, of which two halve the image


class Block(nn.Module):
    """Normalization, ReLU and a 3×3 convolution, twice, with dropout between (figure 1d), added to what came in."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride > 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, before, H, W)` to `(B, after, H / stride, W / stride)`, rounded up."""
        activated = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(activated)
        result: Tensor = kept + self.conv2(self.dropout(F.relu(self.norm2(self.conv1(activated)))))
        return result


class WideResNet(Model):
    """Table 1: a 3×3 convolution, three stages of (depth - 4) / 6 blocks with 16, 32 and 64 channels times `widen`."""

    def __init__(
        self, num_classes: int, channels: int, image_size: tuple[int, int], depth: int, widen: float, dropout: float
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ConfigError(f"wide-resnet:depth={depth}: there is 6n+4, such as 16, 22, 28 and 40")
        check_size("wide-resnet", image_size, _LEAST)
        check_dropout("wide-resnet", dropout)
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        layers = []
        before = 16
        for stage, after in enumerate(widened("wide-resnet", (16, 32, 64), widen)):
            for block in range((depth - 4) // 6):
                layers.append(Block(before, after, 2 if stage and not block else 1, dropout))
                before = after
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, num_classes)
        init_for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        x = F.relu(self.norm(self.blocks(self.stem(images))))
        logits: Tensor = self.head(torch.mean(x, dim=(2, 3)))
        return logits

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """Weights decay, biases and normalization do not."""
        return decay_weights_only(self)


@model
def wide_resnet(
    num_classes: int, channels: int, image_size: tuple[int, int], depth: int = 16, widen: float = 4.0,
    dropout: float = 0.0,
) -> Model:  # fmt: skip
    """WideResNet (2016): fewer layers with more channels; depth 6n+4, wide-resnet:28:10 is the paper's best known."""
    return WideResNet(num_classes, channels, image_size, depth, widen, dropout)
