"""Residual networks (He et al. 2016, arXiv:1512.03385) for small images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.models.blocks import check_size, conv_norm, decay_weights_only, init_for_relu, widened
from fovea.registry import model

FORMS = ("resnet:20", "resnet:32", "resnet:44", "resnet:56", "resnet:110", "resnet:18", "resnet:34")
_IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # table 1
_BOTTLENECK_DEPTHS = (50, 101, 152)  # table 1; 50 and 152 are 6n+2, too, and would be taken for these


class Block(nn.Module):
    """Two 3×3 convolutions whose result is added to what came in (figure 2)."""

    def __init__(self, before: int, after: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = conv_norm(before, after, stride=stride)
        self.conv2 = conv_norm(after, after)
        self.stride, self.more_channels = stride, after - before
        changes = stride > 1 or after != before
        self.shortcut = conv_norm(before, after, 1, stride) if projection and changes else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, before, H, W)` to `(B, after, H / stride, W / stride)`, rounded up."""
        if self.shortcut is not None:
            kept = self.shortcut(x)
        else:  # option A: every other pixel, and zeros for the new channels; no parameters
            kept = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more_channels))
        return F.relu(self.conv2(F.relu(self.conv1(x))) + kept)


class ResNet(Model):
    """A 3×3 convolution, stages of residual blocks of which each but the first halves the image, one linear layer.

    Depth 6n+2: section 4.2, three stages of n blocks with 16, 32 and 64 channels, parameter-free shortcuts.
    Depth 18, 34: table 1, four stages with 64 to 512 channels, 1×1 projections where the size changes; a 3×3
    convolution at stride 1 stands for its 7×7 at stride 2 and pooling, which would leave one pixel of 32.
    """

    def __init__(self, num_classes: int, channels: int, image_size: tuple[int, int], depth: int, widen: float) -> None:
        super().__init__()
        wide = depth in _IMAGENET_BLOCKS
        blocks = _IMAGENET_BLOCKS[depth] if wide else (_blocks_per_stage(depth),) * 3
        check_size(f"resnet:{depth}", image_size, 2 ** (len(blocks) - 1))  # the last stage needs a pixel
        widths = widened("resnet", [(64 if wide else 16) * 2**stage for stage in range(len(blocks))], widen)
        self.stem = conv_norm(channels, widths[0])
        layers = []
        before = widths[0]
        for stage, (num_blocks, after) in enumerate(zip(blocks, widths, strict=True)):
            for block in range(num_blocks):
                layers.append(Block(before, after, 2 if stage and not block else 1, projection=wide))
                before = after
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)
        init_for_relu(self)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        x: Tensor = self.blocks(F.relu(self.stem(images)))
        logits: Tensor = self.head(torch.mean(x, dim=(2, 3)))
        return logits

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """Weights decay, biases and normalization do not."""
        return decay_weights_only(self)


def _blocks_per_stage(depth: int) -> int:
    if depth in _BOTTLENECK_DEPTHS:
        raise ConfigError(f"resnet:depth={depth} is built of bottlenecks for ImageNet: write timm:resnet{depth}")
    if depth < 8 or depth % 6 != 2:
        raise ConfigError(
            f"resnet:depth={depth}: there are 18 and 34 (four stages), and 6n+2, such as 20, 32, 56 and 110 (three)"
        )
    return (depth - 2) // 6


@model
def resnet(num_classes: int, channels: int, image_size: tuple[int, int], depth: int = 20, widen: float = 1.0) -> Model:
    """ResNet (2016): residual blocks; depth 6n+2 (20, 32, 56, 110, ...) as for CIFAR, or 18 and 34, with more channels."""
    return ResNet(num_classes, channels, image_size, depth, widen)
