"""Starting from what exists: which weights, what of them is taken, and what stays frozen for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fovea import registry
from fovea.config import FreezeConfig, RunConfig
from fovea.device import pick_device
from fovea.errors import ConfigError, RunError, some
from fovea.models.base import Model, tensors_of
from fovea.models.hub import default_model, pretrained_config, pretrained_file
from fovea.run import Run, read_weights

HUB = "hub"


@dataclass(frozen=True)
class Start:
    """Weights that a training starts from, of a network for other classes, channels or sizes."""

    where: str
    state: dict[str, Tensor]
    classes: tuple[str, ...] | None  # of the head's rows; None: none of ours
    mean: tuple[float, ...]  # what its images were standardized by
    std: tuple[float, ...]

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for images of so many channels."""
        return _of_channels(self.mean, channels), _of_channels(self.std, channels)


def starts(config: RunConfig) -> bool:
    """Does this training start from weights whose classes, channels or size may be others?"""
    return config.pretrained is not None or (config.weights is not None and Path(config.weights).is_dir())


def with_start(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with the network that `--pretrained` or `--weights RUN` brings, checked. Raises FoveaError.

    `values` are those that the user gave. Looks for the files, so that a missing one is told before any data is read.
    """
    if values.get("pretrained") is not None and values.get("weights") is not None:
        raise ConfigError("both --pretrained and --weights: a training starts from one of them")
    if values.get("weights") is not None:
        config = config.model_copy(update={"pretrained": None})
    named = "model" in values
    if config.pretrained is not None:
        config = _with_pretrained(config, config.pretrained, named)
    elif config.weights is not None and Path(config.weights).is_dir():
        config = _with_run(config, Run(config.weights), named)
    _check_freeze(config)
    # A head on fixed features sees them once, and is finished.
    return (
        config.model_copy(update={"epochs": 1, "minutes": None, "min_steps": 0}) if trains_head_only(config) else config
    )


def _with_pretrained(config: RunConfig, pretrained: str, named: bool) -> RunConfig:
    if not named:
        config = config.model_copy(update={"model": default_model(pick_device(config.device))})
    pretrained_config(config.model)
    if pretrained == HUB:
        pretrained_file(config.model)
    elif not named:
        raise ConfigError(f"--pretrained {pretrained}: say with --model timm:NAME which network's weights these are")
    elif not Path(pretrained).is_file():
        raise ConfigError(f"--pretrained: no weights file {pretrained}")
    return config


def _with_run(config: RunConfig, run: Run, named: bool) -> RunConfig:
    spec = run.info.model
    name = spec.partition(":")[0]
    if named:
        return config
    if name not in registry.model.names():
        raise RunError(
            f"{run.path} needs the model '{name}', which is not part of Fovea: give its file with --plugin, or another "
            "network with --model"
        )
    return config.model_copy(update={"model": spec})


def _check_freeze(config: RunConfig) -> None:
    what = config.freeze.what
    if what not in ("none", "backbone") and not (what.isdecimal() and int(what)):
        raise ConfigError(f"--freeze {what}: write backbone, none, or a number of stages, counted from the input")
    if what != "none" and not (starts(config) or config.weights):
        raise ConfigError(f"--freeze {what} keeps what was learned before: give --pretrained or --weights RUN, too")
    if what != "none" and config.part_size and not trains_head_only(config):
        raise ConfigError("--freeze does not go with part_size: give --set part_size=0")


def read_start(config: RunConfig) -> Start | None:
    """What the training starts from; None for fresh weights and for a file that fits exactly. Raises RunError."""
    if config.pretrained is not None:
        path = str(pretrained_file(config.model)) if config.pretrained == HUB else config.pretrained
        known = pretrained_config(config.model)
        return Start(path, read_weights(path), None, tuple(known.mean), tuple(known.std))
    if not starts(config):
        return None
    run = Run(str(config.weights))
    seen = run.info.preprocess
    return Start(str(config.weights), run.weights(), run.info.classes, seen.mean, seen.std)


def take(model: Model, start: Start, classes: tuple[str, ...]) -> str:
    """Put all that fits into `model`, classes that both know by their names, and say what that was. Raises RunError."""
    try:
        state = model.adapt(start.state)
    except RunError as error:
        raise RunError(f"{start.where}: {error}") from None
    head = set(map(id, model.by_depth()[-1]))
    taken, new, total = 0, [], 0
    kept: list[str] = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        found, size = state.get(name), tensor.numel()
        total += size
        if id(tensor) in head:
            kept = _take_rows(tensor.data, found, start.classes or (), classes)
            size = size * len(kept) // len(classes)
        elif found is not None and found.shape == tensor.shape:
            tensor.data.copy_(found)
        else:
            size = 0
        taken += size
        if not size:
            new.append(name)
    if not taken:
        raise RunError(
            f"nothing in {start.where} fits the model: leave --model out, or name the network that it belongs to"
        )
    parts = [f"start from {start.where}: {taken:,} of {total:,} weights"]
    parts += [f"new: {some(new)}"] if new else []
    parts += [f"kept in the head: {some(kept)}"] if kept and set(classes) != set(start.classes or ()) else []
    return "; ".join(parts)


def _take_rows(mine: Tensor, theirs: Tensor | None, before: tuple[str, ...], classes: tuple[str, ...]) -> list[str]:
    """Copy the rows of the classes that both know; returns their names."""
    if theirs is None or theirs.shape[1:] != mine.shape[1:] or len(theirs) != len(before) or len(mine) != len(classes):
        return []
    kept = [name for name in classes if name in before]
    for name in kept:
        mine[classes.index(name)] = theirs[before.index(name)]
    return kept


def trains_head_only(config: RunConfig) -> bool:
    """Is the backbone frozen from the first step to the last, so that its features can be computed once?"""
    freeze = config.freeze
    return freeze.what == "backbone" and freeze.until == 1 and freeze.cached


def head_of(model: Model, num_classes: int) -> nn.Linear | nn.Conv2d:
    """The layer that gives the logits. Raises ConfigError where there is no such layer, or not one alone."""
    last = set(map(id, model.by_depth()[-1]))
    for module in model.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or len(module.weight) != num_classes:
            continue
        if set(map(id, tensors_of(module))) == last:
            return module
    raise ConfigError(
        f"--freeze: no layer of {type(model).__name__} gives {num_classes} logits, so its head cannot be told from the rest: "
        "its by_depth() should end with the head; or give --freeze none"
    )


class Freezing:
    """Keeps the lower stages as they are, batch normalization's averages included, for the first part of a run."""

    def __init__(self, config: FreezeConfig, model: Model, num_classes: int) -> None:
        self._until = config.until
        self._parameters: list[nn.Parameter] = []
        self._modules: list[nn.Module] = []
        if config.what == "none":
            return
        head_of(model, num_classes)
        below = model.by_depth()[:-1]
        if config.what != "backbone":
            if int(config.what) > len(below):
                raise ConfigError(f"--freeze {config.what}: below its head, the model has {len(below)} stages")
            below = below[: int(config.what)]
        frozen = {id(tensor) for stage in below for tensor in stage}
        self._parameters = [p for p in model.parameters() if p.requires_grad and id(p) in frozen]
        # Whole blocks, so that what they drop at random (stochastic depth) stays in, too.
        tops = [m for m in model.modules() if _all_in(m, frozen)]
        self._modules = list({id(m): m for top in tops for m in top.modules()}.values())

    def at(self, share: float) -> None:
        """Freeze, or thaw, for a step before which `share` of the run was over: 0 at the first, below 1 at the last.

        To be called at every step: validation puts the whole network back into training mode.
        """
        frozen = self._until == 1 or share < self._until
        for parameter in self._parameters:
            parameter.requires_grad = not frozen
        for module in self._modules:
            module.training = not frozen


def _all_in(module: nn.Module, chosen: set[int]) -> bool:
    own = [id(tensor) for tensor in (*module.parameters(), *module.buffers())]
    return bool(own) and chosen.issuperset(own)


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """As they are, or their mean for each channel: of gray, or as often as there are channels."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels
