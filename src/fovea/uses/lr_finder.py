"""Looking for a learning rate before a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fovea import api
from fovea.data.types import Dataset
from fovea.device import memory_errors
from fovea.engine.finetune import trains_head_only
from fovea.engine.progress import Display
from fovea.engine.range_test import LrRange, range_test
from fovea.engine.train import build
from fovea.errors import ConfigError
from fovea.resolve import resolve
from fovea.uses.plots import draw_lr_range


def find_lr(
    data: str | Dataset, recipe: str | None = None, settings: Mapping[str, Any] | None = None,
    picture: str | Path | None = None, quiet: bool = False, display: Display | None = None, **options: Any,
) -> LrRange:  # fmt: skip
    """Propose a learning rate by a range test; takes what `train` takes, and leaves no run.

    The result's `lr` is the proposal, `rule` says where it comes from, `lrs` and `losses` are the curve.

    Args:
        picture: a PNG to draw the curve into.
    """
    if options.get("lr") is not None or "optim.lr" in (settings or {}):
        raise ConfigError("--find-lr looks for lr: give it none")
    display = display or Display(quiet=quiet)
    config, dataset = resolve(data, recipe, settings, display, **options)
    if trains_head_only(config):
        raise ConfigError("--find-lr: a head on a backbone that stays frozen is found without lr; train it")
    with memory_errors(f"at batch size {config.batch_size}", "try a smaller --batch-size, --model or --image-size"):
        model, info = build(config, dataset)
        api.try_augmentations(config, dataset, info, model)
        found = range_test(config, dataset, model, info.preprocess, info.precision, display)
    if picture is not None:
        draw_lr_range(Path(picture), found, f"{config.recipe} on {config.data.name}: {config.optim.name}")
    return found
