"""What the network looked at: Grad-CAM heat maps (Selvaraju et al. 2017), by captum, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import matplotlib as mpl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.data.preprocess import Preprocess, to_unit
from fovea.device import exact_float32
from fovea.errors import ConfigError
from fovea.models.base import Model

HOW_TO_GET = 'heat maps of what the network looked at need the package captum: pip install "fovea[explain]"'
_BATCH = 32  # images at a time: a backward pass keeps all maps of all layers
_SIDE = 128  # pixels of a drawn heat map, at least: smooth, however small the picture
_GAP = 6  # white pixels between a picture and its heat map
_STRENGTH = 0.55  # of the colour over the picture, at most: both can be seen


def can_explain() -> bool:
    """Is captum installed?"""
    return find_spec("captum") is not None


def heat_maps(model: Model, preprocess: Preprocess, images: Tensor, targets: Sequence[int]) -> Tensor | None:
    """Where the evidence for class `targets[i]` lies in image i: `(N, H, W)` float32, 0 to 1; None where the model has no map.

    Grad-CAM weighs the channels of the last map of features (`Model.feature_layer`) by their mean gradient. In networks
    of tokens, where channels come last, each place has its own gradient (HiResCAM, Draelos & Carin 2020). Each map is
    scaled by its own highest value: it says where, not how much.

    Args:
        images: `(N, C, H, W) uint8`.

    Raises ConfigError where captum is missing.
    """
    if not can_explain():
        raise ConfigError(HOW_TO_GET)
    device = next(model.parameters()).device
    standardize = preprocess.standardizer(device)
    size = preprocess.image_size
    with exact_float32():
        layer, shape = _last_map(model, standardize(to_unit(images[:1].to(device))))
        if layer is None:
            return None
        parts = []
        for rows in torch.split(torch.arange(len(images)), _BATCH):
            chosen = torch.tensor([targets[row] for row in rows.tolist()], device=device)
            maps = _attribute(model, layer, shape, standardize(to_unit(images[rows].to(device))), chosen)
            parts.append(
                F.interpolate(maps.clamp(min=0)[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].cpu()
            )
    heat = torch.cat(parts)
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_(min=1e-30)


def beside(model: Model, preprocess: Preprocess, images: Tensor, *targets: Sequence[int]) -> Tensor | None:
    """Each picture with its heat maps to the right, one for each list of classes, `(N, 3, H', W') uint8`.

    None where the model has no map. Raises ConfigError where captum is missing.
    """
    parts = [_enlarged(images)]
    for classes in targets:
        heat = heat_maps(model, preprocess, images, classes)
        if heat is None:
            return None
        parts += [torch.full_like(parts[0][..., :_GAP], 255), _overlay(parts[0], heat)]
    return torch.cat(parts, dim=3)


def _overlay(pictures: Tensor, heat: Tensor) -> Tensor:
    """Heat `(N, H, W)`, 0 to 1, in colours over grey pictures."""
    smooth = F.interpolate(heat[:, None], size=pictures.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)
    colours = torch.from_numpy(mpl.colormaps["inferno"](smooth[:, 0].numpy())[..., :3]).float().permute(0, 3, 1, 2)
    grey = pictures.float().mean(dim=1, keepdim=True)  # so that every colour is the heat's
    share = _STRENGTH * smooth.sqrt()
    return ((1 - share) * grey + share * 255 * colours).round().clamp(0, 255).to(torch.uint8)


def _enlarged(images: Tensor) -> Tensor:
    times = -(-_SIDE // min(images.shape[2:]))
    large = images.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
    return large.expand(-1, 3, -1, -1) if large.shape[1] == 1 else large


def _attribute(model: Model, layer: nn.Module, shape: torch.Size, images: Tensor, targets: Tensor) -> Tensor:
    """`(B, h, w)`, of either sign."""
    from captum.attr import LayerGradCam, LayerGradientXActivation

    height, width = images.shape[2:]
    if _is_map(shape, height / width):
        found: Tensor = LayerGradCam(model, layer).attribute(images, target=targets)
        return found.detach()[:, 0]
    places: Tensor = LayerGradientXActivation(model, layer).attribute(images, target=targets).detach().sum(dim=-1)
    if places.ndim == 3:
        return places
    grid = _grid(places.shape[1], height / width)
    return places[:, places.shape[1] - grid[0] * grid[1] :].view(-1, *grid)  # tokens of no place come first


def _last_map(model: Model, image: Tensor) -> tuple[nn.Module | None, torch.Size]:
    """The layer to look at, and the shape of what it gives for one image."""
    ratio = image.shape[2] / image.shape[3]
    seen: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append((module, output.shape))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    name = model.feature_layer()
    if name is not None:
        wanted = model.get_submodule(name)
        usable = [found for found in seen if found[0] is wanted and _has_places(found[1], ratio)]
    else:
        usable = [found for found in seen if _is_map(found[1], ratio)]
    return usable[-1] if usable else (None, torch.Size())


def _is_map(shape: torch.Size, ratio: float) -> bool:
    """Channels first: of `(B, H, W, C)`, the last two numbers are no sides of such an image."""
    return len(shape) == 4 and shape[2] * shape[3] > 1 and _sides(shape[2], shape[3], ratio)


def _has_places(shape: torch.Size, ratio: float) -> bool:
    if len(shape) == 3:
        height, width = _grid(shape[1], ratio)
        return height * width > 1
    return _is_map(shape, ratio) or (len(shape) == 4 and shape[1] * shape[2] > 1 and _sides(shape[1], shape[2], ratio))


def _sides(height: int, width: int, ratio: float) -> bool:
    """Could these be the sides of a map of an image with this ratio? Strides round, by less than a place each."""
    return abs(height - width * ratio) <= max(1.0, ratio)


def _grid(num_tokens: int, ratio: float) -> tuple[int, int]:
    """Height and width of the largest grid of the image's ratio that so many tokens hold."""
    width = int((num_tokens / ratio) ** 0.5 + 1e-9)
    return max(1, round(width * ratio)), width
