"""AlexNet (Krizhevsky, Sutskever & Hinton 2012, section 3.5), with a first layer for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.models.base import Model
from fovea.models.blocks import check_dropout, check_size, decay_weights_only, init_for_relu, widened
from fovea.registry import model

FORMS = ("alexnet", "alexnet:widen=0.25")
_LEAST = 15  # three poolings of 3×3 at stride 2, without padding: 15 pixels become 7, 3, 1


class AlexNet(Model):
    """Five convolutions with overlapping max-pooling, then three linear layers with dropout.

    Not the paper's: the first kernels are 5×5 at stride 1, since 11×11 at stride 4 would leave 8 of 32 pixels; the
    layers are not divided between two GPUs; no response normalization, which VGG's authors found useless (Simonyan &
    Zisserman 2015, section 4); and first weights by He et al. 2015, which came later.
    """

    def __init__(
        self, num_classes: int, channels: int, image_size: tuple[int, int], widen: float, dropout: float
    ) -> None:
        super().__init__()
        check_size("alexnet", image_size, _LEAST)
        check_dropout("alexnet", dropout)
        w1, w2, w3, w4, w5, hidden = widened("alexnet", (96, 256, 384, 384, 256, 4096), widen)
        self.features = nn.Sequential(
            nn.Conv2d(channels, w1, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(w1, w2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(w2, w3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(w3, w4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(w4, w5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        height, width = (((side + 1) // 8) - 1 for side in image_size)  # three times (side - 1) // 2
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(w5 * height * width, hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        init_for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        logits: Tensor = self.classifier(torch.flatten(self.features(images), 1))
        return logits

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """Weights decay, biases do not."""
        return decay_weights_only(self)


@model
def alexnet(
    num_classes: int, channels: int, image_size: tuple[int, int], widen: float = 1.0, dropout: float = 0.5
) -> Model:
    """AlexNet (2012): five convolutions, ReLU, dropout, three linear layers."""
    return AlexNet(num_classes, channels, image_size, widen, dropout)
