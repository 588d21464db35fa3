"""VGG (Simonyan & Zisserman 2015, table 1, columns A, B, D and E), with a head for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.models.blocks import check_size, conv_norm, decay_weights_only, init_for_relu, widened
from fovea.registry import model

FORMS = ("vgg:16", "vgg:11", "vgg:13", "vgg:19")
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # per stage
_WIDTHS = (64, 128, 256, 512, 512)
_LEAST = 16  # the fifth stage comes after four halvings


class VGG(Model):
    """Five stages of 3×3 convolutions, each followed by 2×2 max-pooling, then one linear layer.

    Not the paper's: batch normalization (Ioffe & Szegedy 2015) instead of first training a shallower network, and one
    linear layer on the mean over positions instead of three on 7×7 of them, which held 124 of VGG-16's 138 million
    parameters and of whose positions a 32-pixel image has one. Sizes that are no multiple of 32 are rounded up.
    """

    def __init__(
        self, num_classes: int, channels: int, image_size: tuple[int, int], depth: int, batch_norm: bool, widen: float
    ) -> None:
        super().__init__()
        if depth not in _CONVOLUTIONS:
            raise ConfigError(f"vgg:depth={depth}: there are {', '.join(map(str, _CONVOLUTIONS))}")
        check_size("vgg", image_size, _LEAST)
        layers: list[nn.Module] = []
        before = channels
        for num_convolutions, after in zip(_CONVOLUTIONS[depth], widened("vgg", _WIDTHS, widen), strict=True):
            for _ in range(num_convolutions):
                conv = conv_norm(before, after) if batch_norm else nn.Conv2d(before, after, 3, padding=1)
                layers += [conv, nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)
        init_for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        logits: Tensor = self.head(torch.mean(self.features(images), dim=(2, 3)))
        return logits

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """Weights decay, biases and normalization do not."""
        return decay_weights_only(self)


@model
def vgg(
    num_classes: int, channels: int, image_size: tuple[int, int], depth: int = 16, batch_norm: bool = True,
    widen: float = 1.0,
) -> Model:  # fmt: skip
    """VGG (2015): 11, 13, 16 or 19 layers of nothing but 3×3 convolutions, and one linear layer."""
    return VGG(num_classes, channels, image_size, depth, batch_norm, widen)
