"""Any network of timm (PyTorch Image Models, Wightman 2019), with fresh weights or timm's own; the package is an extra."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.errors import ConfigError, RunError, UnknownName, some
from fovea.models.base import Model, tensors_of
from fovea.models.blocks import decay_weights_only
from fovea.registry import model

FORMS: tuple[str, ...] = ()  # more than a list can show: timm.list_models()
_PREFIX = "network."
_FROM_DATA = ("in_chans", "img_size")
_STRIDE = 32  # of nearly all of them, from the image to the last map
_LOADING = ("pretrained", "checkpoint_path", "cache_dir")  # the first stands for all that begin with it


class TimmModel(Model):
    """A timm network on images that are first resized to `size` (bilinear), where that is another.

    These networks were drawn for 224 pixels and keep one position of 32×32: of a 32-pixel image, one in all. At 128
    pixels they keep 4×4, as the networks do that were drawn for CIFAR. Enlarging costs what smaller strides would (the
    maps have the same sizes; only the first layer costs more), suits every architecture, convolutional or not, and
    leaves the network, and so the shapes and names of its weights, as timm has them.
    """

    def __init__(
        self, network: nn.Module, size: tuple[int, int], adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self._adapt = adapt
        # The weights go by timm's own names, so that files travel both ways.
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False)
        logits: Tensor = self.network(images)
        return logits

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        """Weights decay; biases, normalization and what the network itself exempts (position embeddings) do not."""
        spares = getattr(self.network, "no_weight_decay", None)
        return decay_weights_only(self, {_PREFIX + name for name in spares()} if spares is not None else ())

    def by_depth(self) -> list[list[Tensor]]:
        """By the depth that timm gives each parameter (its group_matcher), where the network has one."""
        head = self.network.get_classifier()  # type: ignore[operator]
        if not isinstance(head, (nn.Linear, nn.Conv2d)):
            kind = f"{type(head).__name__}, no one linear layer"
            raise ConfigError(f"the head of {type(self.network).__name__} is a {kind}: it cannot be told from the rest")
        matcher: Any = getattr(self.network, "group_matcher", None)
        if matcher is None:
            return super().by_depth()
        depths = timm_library().models.group_parameters(self.network, matcher(coarse=False), reverse=True)
        own = set(map(id, tensors_of(head)))
        stages: list[list[Tensor]] = [[] for _ in range(max(depths.values()) + 1)]
        for prefix, module in self.network.named_modules():
            names = [".".join(filter(None, (prefix, name))) for name, _ in module.named_parameters(recurse=False)]
            depth = max((depths.get(name, 0) for name in names), default=0)
            for tensor in tensors_of(module):
                if id(tensor) not in own:
                    stages[depth].append(tensor)
        return [*filter(None, stages), tensors_of(head)]

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """By timm: input filters summed or repeated, position embeddings interpolated. Raises RunError, naming tensors."""
        return self._adapt(state)

    def feature_layer(self) -> str | None:
        """The last stage that timm names; of a transformer's block, the norm before its attention: what comes later
        reaches the answer by the class token alone.
        """
        stages = getattr(self.network, "feature_info", None)
        if not stages:
            return None
        name = _PREFIX + stages[-1]["module"]
        return f"{name}.norm1" if hasattr(self.get_submodule(name), "norm1") else name


@model
def timm(
    num_classes: int, channels: int, image_size: tuple[int, int], name: str, min_side: int = 128, **options: Any
) -> Model:
    """Any network of the package timm by its name: timm:resnet26, timm:resnet26:drop_rate=0.1; see --pretrained.

    Images are enlarged until the shorter side has `min_side` pixels, and both are multiples of 32; 0 leaves them be.
    Other options go to the network. Raises ConfigError.
    """
    spec = f"timm:{name}"
    for option in options:
        if option in _FROM_DATA:
            raise ConfigError(f"{spec}:{option}=...: this follows from the data; leave it out")
        if option.startswith(_LOADING):
            raise ConfigError(f"{spec}:{option}=...: only fresh weights are built; start from timm's with --pretrained")
    size = _enlarged(image_size, min_side) if min_side > 0 else image_size
    library = timm_library()
    network = _create(library, spec, name, {"num_classes": num_classes, "in_chans": channels, **options}, size)
    _try(network, spec, num_classes, channels, size)

    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return _adapted(network, spec, name, {"in_chans": channels, **options}, size, state)

    return TimmModel(network, size, adapt)


def _adapted(
    network: nn.Module, spec: str, name: str, options: dict[str, Any], size: tuple[int, int], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """`state` as timm itself takes it into a network of our channels and size, and of the file's own classes.

    With other classes timm would take what fits and pass over the rest in silence.
    """
    library: ModuleType = timm_library()
    config: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    classifier = network.get_classifier()  # type: ignore[operator]
    names = [name for name, module in network.named_modules() if module is classifier] or [config.get("classifier")]
    head, first = (state.get(f"{_first(name)}.weight") for name in (names[0], config.get("first_conv")))
    num_classes = config.get("num_classes", 0) if head is None else len(head)
    channels, *side = config.get("input_size", (3, 224, 224))
    if first is not None and first.ndim == 4 and first.shape[1] in (1, 3):
        channels = first.shape[1]
    overlay = {
        "state_dict": dict(state), "num_classes": num_classes, "input_size": (channels, *side), "label_offset": 0,
    }  # fmt: skip
    options = {**options, "num_classes": num_classes, "pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        with torch.random.fork_rng([]):  # what it draws is replaced
            built = _create(library, spec, name, options, size)
    except ConfigError as error:
        both = (
            {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] != _first(names[0])}
            for tensors in (network.state_dict(), state)
        )
        raise RunError(_misfit(spec, *both) or str(error)) from None
    adapted: dict[str, Tensor] = built.state_dict()
    return adapted


def _first(names: str | tuple[str, ...] | None) -> str | None:
    return names[0] if isinstance(names, tuple) else names


def _misfit(spec: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What differs between a network's tensors and a file's."""
    other = [
        f"{name} ({list(found[name].shape)}, not {list(tensor.shape)})"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    parts = {"lacks": wanted.keys() - found.keys(), "has": found.keys() - wanted.keys(), "differs in": other}
    said = [f"{what} {some(sorted(names))}" for what, names in parts.items() if names]
    return f"it does not fit {spec}: it " + "; it ".join(said) if said else ""


def _enlarged(image_size: tuple[int, int], min_side: int) -> tuple[int, int]:
    scale = max(1.0, min_side / min(image_size))
    height, width = (_STRIDE * math.ceil(round(side * scale) / _STRIDE) for side in image_size)
    return height, width


def timm_library() -> ModuleType:
    try:
        import timm as library
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ConfigError('models of timm need the package timm: pip install "fovea[timm]"') from None
    return library


def _create(library: ModuleType, spec: str, name: str, options: dict[str, Any], size: tuple[int, int]) -> nn.Module:
    # Names that are not listed would be looked for on disk or on the network ("hf-hub:...").
    if name not in library.list_models() and name not in library.list_pretrained():
        raise UnknownName("timm model", name, library.list_models(), "; timm.list_models() has all names")
    try:
        try:
            network = library.create_model(name, img_size=size, **options)
        except TypeError as error:
            if _unexpected(error) != "img_size":
                raise
            network = library.create_model(name, **options)  # of networks that take any size
    except TypeError as error:
        option = _unexpected(error)
        raise ConfigError(f"{spec} takes no option '{option}'" if option else _refusal(spec, error)) from None
    except Exception as error:  # a bad value fails wherever the network first uses it
        raise ConfigError(_refusal(spec, error)) from None
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{spec} with these options is no network")
    return network


def _try(network: nn.Module, spec: str, num_classes: int, channels: int, size: tuple[int, int]) -> None:
    """One image: what the network cannot take says so before training. Raises ConfigError."""
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, channels, *size, device=next(network.parameters()).device))
    except Exception as error:  # the kinds are those of 1,300 networks
        height, width = size
        advice = f"it was drawn for {_native_side(network)} pixels: set min_side to that"
        raise ConfigError(f"{_refusal(spec, error)} (images of {width}×{height}; {advice})") from None
    finally:
        network.train()
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, num_classes):
        raise ConfigError(f"{spec} with these options does not give one logit a class")


def _native_side(network: nn.Module) -> int:
    config = getattr(network, "pretrained_cfg", None) or {}
    side: int = config.get("input_size", (3, 224, 224))[-1]
    return side


def _unexpected(error: TypeError) -> str | None:
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return found[1] if found else None


def _refusal(spec: str, error: Exception) -> str:
    return f"timm cannot build {spec}: {(str(error) or type(error).__name__).splitlines()[0]}"


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + _PREFIX)]:
        state[prefix + key[len(prefix + _PREFIX) :]] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _PREFIX + key[len(prefix) :]] = state.pop(key)
