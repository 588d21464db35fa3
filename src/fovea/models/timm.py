"""Any network of timm (PyTorch Image Models, Wightman 2019) with fresh weights; the package is an extra."""

from __future__ import annotations

import math
import re
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.errors import ConfigError, UnknownName
from fovea.models.base import Model
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

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size
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
    """Any network of the package timm by its name, with fresh weights: timm:resnet26, timm:resnet26:drop_rate=0.1.

    Images are enlarged until the shorter side has `min_side` pixels, and both are multiples of 32; 0 leaves them be.
    Other options go to the network. Raises ConfigError.
    """
    spec = f"timm:{name}"
    for option in options:
        if option in _FROM_DATA:
            raise ConfigError(f"{spec}:{option}=...: this follows from the data; leave it out")
        if option.startswith(_LOADING):
            raise ConfigError(f"{spec}:{option}=...: only fresh weights are built; load a file with --weights")
    size = _enlarged(image_size, min_side) if min_side > 0 else image_size
    network = _create(_library(), spec, name, {"num_classes": num_classes, "in_chans": channels, **options}, size)
    _try(network, spec, num_classes, channels, size)
    return TimmModel(network, size)


def _enlarged(image_size: tuple[int, int], min_side: int) -> tuple[int, int]:
    scale = max(1.0, min_side / min(image_size))
    height, width = (_STRIDE * math.ceil(round(side * scale) / _STRIDE) for side in image_size)
    return height, width


def _library() -> ModuleType:
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
