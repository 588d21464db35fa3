"""A small plain convolutional network with batch normalization (Ioffe & Szegedy 2015), for images of any size."""

import torch
from torch import Tensor, nn

from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.registry import model


class ConvNet(Model):
    """Stages of two 3×3 convolutions each; every stage after the first halves the image and doubles the width."""

    def __init__(self, num_classes: int, channels: int, image_size: tuple[int, int], width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"convnet:width={width} must be at least 1")
        # Halve until about 4 pixels are left: below that, 3×3 kernels see mostly padding.
        num_stages = min(4, max(1, min(image_size).bit_length() - 2))
        widths = [width * 2**stage for stage in range(num_stages)]
        layers: list[nn.Module] = []
        before = channels
        for stage, after in enumerate(widths):
            if stage:
                layers.append(nn.MaxPool2d(2))
            layers += [_conv(before, after), _conv(after, after)]
            before = after
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        x: Tensor = self.features(images)
        logits: Tensor = self.head(torch.amax(x, dim=(2, 3)))
        return logits


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


@model
def convnet(num_classes: int, channels: int, image_size: tuple[int, int], width: int = 16) -> Model:
    """A small batch-normalized convolutional network for images of any size."""
    return ConvNet(num_classes, channels, image_size, width)
