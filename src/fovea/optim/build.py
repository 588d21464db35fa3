"""The optimizer that a config names.

A registered optimizer is a function of the model, its parameter groups, those of SETTINGS that it uses, and options of
its own. The defaults of its SETTINGS are what it takes where another than the recipe's optimizer is asked for: an lr
that suits SGD does not suit AdamW.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fovea import registry
from fovea.config import OptimConfig, RunConfig
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.depth import slower_below
from fovea.optim.schedules import bind_schedule

SETTINGS = ("lr", "momentum", "weight_decay", "nesterov")


def build_optimizer(config: OptimConfig, model: Model, lr_decay: float = 1.0) -> Optimizer:
    """The optimizer over the model's parameter groups; `lr_decay` is the lr of a stage over that above. Raises ConfigError."""
    function = registry.optimizer.get(_name(config.name))
    used = _used(function)
    _, options = registry.optimizer.bind(config.name, num_given=2 + len(used))
    groups = slower_below(model, model.param_groups(config), lr_decay)
    built: Optimizer = function(model, groups, **{name: getattr(config, name) for name in used}, **options)
    for group in built.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
    return built


def can_fuse(model: Model) -> bool:
    """Has torch one kernel for all parameters? Its arithmetic is the same, in another rounding."""
    return next(model.parameters()).device.type in ("cpu", "cuda")


def split_off(groups: list[dict[str, Any]], tensors: list[Tensor]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those of the groups' parameters that are among `tensors`, and the rest, in groups with the same settings."""
    chosen = set(map(id, tensors))
    both: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for wanted, half in zip((True, False), both, strict=True):
            params = [p for p in group["params"] if (id(p) in chosen) == wanted and p.requires_grad]
            if params:
                half.append({**group, "params": params})
    return both


def set_lr(optimizer: Optimizer, highest: list[float], factor: float) -> None:
    """Give each group its highest lr times `factor`."""
    for group, lr in zip(optimizer.param_groups, highest, strict=True):
        group["lr"] = lr * factor


def with_habits(config: RunConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, completed where they ask for another optimizer or schedule than the recipe's: by what suits that one."""
    completed = dict(values)
    optimizer, schedule = values.get("optim.name"), values.get("schedule.name")
    if optimizer is not None and _name(optimizer) != _name(config.optim.name):
        used = _used(registry.optimizer.get(_name(optimizer)))
        for name in SETTINGS:
            completed.setdefault(f"optim.{name}", used.get(name, 0))
    if schedule is not None and bind_schedule(schedule)(0.0) < 1:  # rises by itself
        completed.setdefault("schedule.warmup", 0)
    return completed


def check_optimizer(config: OptimConfig, given: Mapping[str, Any]) -> None:
    """Raises ConfigError where the optimizer cannot be, or has no use for a setting that was `given`."""
    used = _used(registry.optimizer.get(_name(config.name)))
    for name in SETTINGS:
        if f"optim.{name}" in given and name not in used and getattr(config, name):
            raise ConfigError(f"optim.{name}: {_name(config.name)} has none; it takes {', '.join(used)}")
    build_optimizer(config, _Smallest())


class _Smallest(Model):
    """A model of which an optimizer is built only to see whether it can be."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):  # the caller's random numbers stay as they were
            self.layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def _used(function: Any) -> dict[str, Any]:
    """The SETTINGS among the function's parameters, with their defaults."""
    parameters = inspect.signature(function).parameters
    return {name: parameters[name].default for name in SETTINGS if name in parameters}


def _name(spec: str) -> str:
    return spec.partition(":")[0]
