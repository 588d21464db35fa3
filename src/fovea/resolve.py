"""From what a person wrote to a config and its data: recipe or plan, options, settings, all checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fovea import registry
from fovea.config import DataConfig, RunConfig, everyday_settings, validated
from fovea.data.loader import build_augmentations, mixing
from fovea.data.prepare import prepare
from fovea.data.splits import HeldOut, how_split, read_split, split_off
from fovea.data.types import Dataset
from fovea.device import pick_device, pick_precision
from fovea.engine.finetune import with_start
from fovea.engine.progress import Display
from fovea.errors import ConfigError, nearest
from fovea.models.winograd import has_int8
from fovea.optim.build import check_optimizer, with_habits
from fovea.optim.schedules import build_schedule
from fovea.plan import AUTO, Facts, before, plan
from fovea.run import Run
from fovea.uses.health.check import short_check

START_RECIPE = "finetune"  # where no recipe is named and a training starts from pretrained weights or another run's


def resolve(
    data: str | Dataset, recipe: str | None, settings: Mapping[str, Any] | None, display: Display, **options: Any
) -> tuple[RunConfig, Dataset]:
    """The config that a recipe, or the plan for this data, and settings make, and the data. Raises FoveaError."""
    values = {**everyday_settings(**options), **(settings or {})}
    if "minutes" in values and "epochs" in values:
        raise ConfigError("--minutes and --epochs both say when the training ends: give one of them")
    if "minutes" in values:
        values = {"epochs": None, **values}
    if "minutes" in values or "epochs" in values:
        values = {"min_steps": 0, **values}  # who names the epochs gets them
    name = data if isinstance(data, str) else data.name
    if recipe is None and _goes_on(values):
        recipe = START_RECIPE
    planned = recipe in (None, AUTO)
    # What cannot work says so before anything is loaded or written.
    config = _checked(before(name) if planned else registry.recipe.get(str(recipe))(name), values)
    dataset = data if isinstance(data, Dataset) else prepare_data(config.data, display)
    reasons: list[str] = []
    if planned:
        device, model = pick_device(config.device).type, config.model if "model" in values else None
        chosen, why = plan(Facts.of(dataset), device, config.minutes, model)
        reasons = [reason.text for reason in why if not set(reason.settings) <= set(values)]
        config = _checked(chosen, values)
    config, dataset = _with_val(config, dataset, values, is_loaded=isinstance(data, Dataset))
    say_data(dataset, reasons, display)
    if not isinstance(data, Dataset):  # who loads it could look at it
        for line in short_check(dataset):
            display.say(line)
    return config, dataset


def say_data(dataset: Dataset, reasons: Sequence[str], display: Display) -> None:
    """What the data is, how it was split, and why the settings are as they are."""
    display.say("\n".join([str(dataset), *how_split(dataset.config, dataset.held_out), *reasons]))


def _goes_on(values: Mapping[str, Any]) -> bool:
    """Does the training start from what another one learned?"""
    weights = values.get("weights")
    return values.get("pretrained") is not None or (weights is not None and Path(weights).is_dir())


def _checked(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`base` with `values` set, if all parts that it names can be. Raises FoveaError."""
    config = with_start(base.with_values(with_habits(base, values)), values)
    device = pick_device(config.device)
    if "int8" in values and config.int8:
        _check_int8(config, device)
    elif values.get("precision", "auto") != "auto":
        config = config.model_copy(update={"int8": False})  # who names a precision wants that one
    config = config.model_copy(update={"precision": pick_precision(config.precision, device, config.int8)})
    check_optimizer(config.optim, given=values)
    build_schedule(config.schedule, num_steps=1)
    registry.model.bind(config.model, num_given=3)
    build_augmentations(config.augment)
    if config.data.split_file is not None:
        read_split(config.data.split_file)
    return _with_plain_losses(config, values)


def _check_int8(config: RunConfig, device: torch.device) -> None:
    """Raises ConfigError where bytes are asked for and could not be multiplied."""
    if device.type != "cpu":
        raise ConfigError(f"int8=true is for training on a CPU, not on {device.type}: leave it out")
    if not has_int8():
        raise ConfigError(
            "int8=true needs AVX512-VNNI and llvmlite, and a CPU without AMX, by which bf16 is as fast: leave it out"
        )
    if not config.part_size:
        raise ConfigError("int8=true needs batches that go through in parts: give --set part_size=125")


def _with_plain_losses(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Where images have no comparable losses of their own, a recipe's `hardest` gives way: as many steps on all images."""
    clash = mixing(config.augment) or ("" if config.balance == "none" else f"balance={config.balance}")
    if config.hardest == 1 or not clash:
        return config
    if "hardest" in values:
        raise ConfigError(
            f"hardest={config.hardest:g} compares the images' losses, and {clash} changes them: give one of both"
        )
    epochs = config.epochs
    if epochs and "epochs" not in values:
        epochs = max(1, round(epochs * config.hardest))
    return config.model_copy(update={"hardest": 1.0, "epochs": epochs})


def _with_val(
    config: RunConfig, dataset: Dataset, values: Mapping[str, Any], is_loaded: bool
) -> tuple[RunConfig, Dataset]:
    """The config's data is the data set's, but for the val split, which is still drawn where the config wants one."""
    late = [path for path in values if path.startswith("data.") and path != "data.val_fraction"]
    if is_loaded and late:
        raise ConfigError(f"{late[0]} comes too late for a data set that is loaded already: give it to load_data")
    if "val" not in dataset.splits and config.data.val_fraction:
        wanted = dataset.config.model_copy(update={"val_fraction": config.data.val_fraction})
        dataset = split_off(dataset, wanted)
    return config.model_copy(update={"data": dataset.config}), dataset


def prepare_data(config: DataConfig, display: Display, run: Run | None = None, for_training: bool = True) -> Dataset:
    held_out = HeldOut(run.held_out, str(run.path / "split.json")) if run is not None else None
    if run is not None:  # an earlier run's config does not name the size
        config = config.model_copy(update={"image_size": config.image_size or run.info.preprocess.image_size[0]})

    def progress(done: int, total: int) -> None:
        if done == 1:
            display.start(total)
        display.advance(done, "decoding")

    with display:
        dataset = prepare(config, held_out, progress, for_training)
    for line in dataset.facts.notes:
        display.say(line)
    for line in dataset.facts.skipped.values():
        print(f"skipped {line}", file=sys.stderr)
    return dataset


def data_config(name: str, options: dict[str, Any]) -> DataConfig:
    unknown = [option for option in options if option not in DataConfig.model_fields]
    if unknown:
        raise ConfigError(f"unknown option '{unknown[0]}' of load_data{nearest(unknown[0], DataConfig.model_fields)}")
    return validated(DataConfig, {"name": name, **options})
