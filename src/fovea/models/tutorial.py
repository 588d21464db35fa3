"""The network of PyTorch's "Training a classifier" tutorial: LeNet-5 (LeCun et al. 1998), ReLU, max-pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.models.base import Model
from fovea.models.blocks import check_size
from fovea.registry import model


class Net(Model):
    """Two convolutions and three linear layers, under the tutorial's names, so that weights travel both ways."""

    def __init__(self, num_classes: int, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        check_size("tutorial", image_size, 16)  # of which a pixel is left after both poolings
        height, width = (((side - 4) // 2 - 4) // 2 for side in image_size)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        x = self.pool(F.relu(self.conv1(images)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


@model
def tutorial(num_classes: int, channels: int, image_size: tuple[int, int]) -> Model:
    """The PyTorch tutorial's network: 2 convolutions, 3 linear layers; 62,006 parameters on CIFAR-10."""
    return Net(num_classes, channels, image_size)
