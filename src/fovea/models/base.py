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

    def settle(self, share: float) -> None:
        """Stop training weights (`requires_grad`) that need not learn to the end; called before each step.

        `share` of the run is over: 0 before the first step, below 1 before the last.
        """

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
        return [layer.weight for layer in self._layers() if layer.weight.requires_grad][:-1]

    def by_depth(self) -> list[list[Tensor]]:
        """All parameters and buffers by depth, from the input on; the last ones are the head's: those of the one linear
        or convolution layer that gives the logits. Fine-tuning freezes, slows down and replaces by them.

        By default the order of registration counts, the head is the last layer, and a stage is a child of the model, or
        of a Sequential in it, with the norms that follow. Raises ConfigError where there is no such layer.
        """
        layers = self._layers()
        if not layers:
            raise ConfigError(f"{type(self).__name__} has no layer that gives the logits: override by_depth()")
        head = tensors_of(layers[-1])
        seen = set(map(id, head))
        stages: list[list[Tensor]] = [[]]
        for unit in self._units():
            own = [tensor for module in unit for tensor in tensors_of(module) if id(tensor) not in seen]
            seen.update(map(id, own))
            if _has_weights(own) and _has_weights(stages[-1]):
                stages.append([])
            stages[-1] += own
        return [*filter(None, stages), head]

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the same network for other classes, channels or sizes, changed to fit this one as far as they can be.

        By default, filters on RGB become filters on gray by their sum, and back in thirds: a gray image gives the same.
        """
        changed = dict(state)
        for name, own in self.state_dict().items():
            found = state.get(name)
            if found is None or own.ndim != 4 or found.ndim != 4:
                continue
            if (own.shape[1], found.shape[1]) == (1, 3):
                changed[name] = found.sum(1, keepdim=True)
            elif (own.shape[1], found.shape[1]) == (3, 1):
                changed[name] = found.expand(-1, 3, -1, -1) / 3
        return changed

    def _layers(self) -> list[nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d]:
        return [m for m in self.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]

    def _units(self) -> list[list[nn.Module]]:
        """The model's own tensors, then its children, Sequentials opened; each with all that is within."""
        children = [
            grandchild
            for child in self.children()
            for grandchild in (child.children() if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child])
        ]
        return [[self], *(list(child.modules()) for child in children)]


def tensors_of(module: nn.Module) -> list[Tensor]:
    """The module's own parameters and buffers, not those of its parts."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _has_weights(tensors: list[Tensor]) -> bool:
    return any(tensor.ndim >= 2 for tensor in tensors)


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
