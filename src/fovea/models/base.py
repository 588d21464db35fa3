"""What every model may say about itself, and how one is built by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fovea import registry
from fovea.config import OptimConfig
from fovea.errors import ConfigError


class Model(nn.Module):
    """A module from `(B, C, H, W)` standardized images to `(B, K)` logits, with hooks that it may override."""

    takes_soft_labels = True  # False: it makes no sense to train it on shares of classes, as MixUp and CutMix do

    def init_from_data(self, images: Tensor) -> None:
        """Set weights from `(N, C, H, W)` standardized training images; called once, before the first step."""

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """The optimizer's parameter groups; by default one, with the config's lr and weight decay.

        A group may have a `weight_decay` of its own, and an `lr_scale` that multiplies its lr.
        """
        return [{"params": list(self.parameters())}]

    def feature_layer(self) -> str | None:
        """The module, by its name, whose output heat maps look at: the last that still has places (Grad-CAM).

        By default None: the last to run that gives `(B, C, H, W)` with more than one place.
        """
        return None

    def hidden_weights(self) -> list[Tensor]:
        """The weights that turn features into features, which `muon` orthogonalizes; by default those of all linear
        and convolution layers but the last, which gives the logits (Jordan et al. 2024: neither embeddings nor head).
        """
        layers = (m for m in self.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)))
        return [layer.weight for layer in layers if layer.weight.requires_grad][:-1]


def build_model(spec: str, num_classes: int, channels: int, image_size: tuple[int, int]) -> Model:
    """Build `name[:option=value]...` for the given data, with fresh weights. Raises ConfigError."""
    function, options = registry.model.bind(spec, num_given=3)
    built = function(num_classes, channels, image_size, **options)
    if not isinstance(built, Model):
        raise ConfigError(f"model '{spec}' is a {type(built).__name__}: it must derive from fovea.models.base.Model")
    return built


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
