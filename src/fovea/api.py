"""What `import fovea` offers: each function joins data, engine and report for one thing that a person wants."""

from __future__ import annotations

import math
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fovea import files, registry
from fovea.config import DataConfig, RunConfig, everyday_settings, validated
from fovea.data.loader import Loader, build_augmentations, mixing
from fovea.data.prepare import prepare
from fovea.data.splits import HeldOut, split_off
from fovea.data.types import Dataset
from fovea.device import describe, hardware, memory_errors, pick_device, pick_precision
from fovea.engine.cost import Cost
from fovea.engine.evaluate import calibrate_run, evaluate_split, untrained_model
from fovea.engine.progress import Display
from fovea.engine.train import OnEpoch, build, fit
from fovea.engine.views import views_of
from fovea.errors import ConfigError, OutOfMemory, RunError, nearest
from fovea.models.base import Model
from fovea.models.cost import flops_if_countable, flops_text
from fovea.optim.build import check_optimizer, with_habits
from fovea.optim.schedules import build_schedule
from fovea.run import ModelInfo, Run, create_run
from fovea.uses.gallery import draw_pictures
from fovea.uses.predict import Classifier
from fovea.uses.report import draw_charts, write_report

DEFAULT_RECIPE = "simple"


def load_data(name: str, display: Display | None = None, **options: Any) -> Dataset:
    """Load a data set by its registered name or folder; options are the fields of DataConfig. Raises DataError."""
    return _prepare(_data_config(name, options), display or Display(quiet=True))


def train(
    data: str | Dataset, recipe: str = DEFAULT_RECIPE, out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, quiet: bool = False, on_epoch: OnEpoch | None = None,
    display: Display | None = None, **options: Any,
) -> Run:  # fmt: skip
    """Train by a recipe, evaluate once on test, write the report; returns the run.

    Args:
        data: a name, a folder, or what `load_data` returned; a val split is drawn where the recipe wants one.
        out: the run folder; by default runs/<data>-<recipe>, numbered where that is taken.
        settings: `{"optim.nesterov": True}`: any field of the config by its path.
        on_epoch: called with each row of results.csv.
        options: the everyday settings by name (epochs, batch_size, lr, model, augment, ...).
    """
    config, loaded = resolve(data, recipe, settings, **options)
    folder = None if out is None else str(out)
    display = display or Display(quiet=quiet)
    return train_config(config, loaded, folder, display, on_epoch)


def resolve(
    data: str | Dataset, recipe: str = DEFAULT_RECIPE, settings: Mapping[str, Any] | None = None, **options: Any
) -> tuple[RunConfig, Dataset | None]:
    """The config that a recipe and settings make, and the data set where it was given loaded. Raises ConfigError."""
    values = {**everyday_settings(**options), **(settings or {})}
    name = data if isinstance(data, str) else data.name
    if "epochs" in values:
        values = {"min_steps": 0, **values}  # who names the epochs gets them
    config: RunConfig = registry.recipe.get(recipe)(name)
    config = config.with_values(with_habits(config, values))
    # What cannot work says so before anything is loaded or written.
    config = config.model_copy(update={"precision": pick_precision(config.precision, pick_device(config.device))})
    check_optimizer(config.optim, given=values)
    build_schedule(config.schedule, num_steps=1)
    registry.model.bind(config.model, num_given=3)
    build_augmentations(config.augment)
    return _with_loaded(config, data, values) if isinstance(data, Dataset) else (config, None)


def train_config(
    config: RunConfig, dataset: Dataset | None, out: str | None, display: Display, on_epoch: OnEpoch | None = None
) -> Run:
    """Train as `config` says into a new run folder; loads the data where it is not given."""
    dataset = dataset or _prepare(config.data, display)
    display.say(str(dataset))
    config = _with_enough_epochs(config, len(dataset.train), display)
    device = pick_device(config.device)
    cost = Cost(device)
    with memory_errors(f"for model '{config.model}'", "try a smaller --model or --image-size"):
        model, info = build(config, dataset)
    info = replace(info, flops=flops_if_countable(model, dataset.channels, dataset.image_size))
    if info.flops is not None:
        display.say(f"{config.model}: {flops_text(info.flops)} for a forward pass of one image")
    try_augmentations(config, dataset, info, model)
    path = create_run(out, f"{folder_name(config.data.name)}-{config.recipe}")
    try:
        files.write_text(path / "config.yaml", config.to_yaml())
        files.write_json(path / "environment.json", _environment(config, describe(device, info.precision)))
        if dataset.held_out:
            files.write_json(path / "split.json", dataset.held_out)
        run = Run(path)
        run.save_info(info)
        return _train_into(run, dataset, model, display, on_epoch, cost)
    except OutOfMemory:
        if not (run.has("results.csv") and run.results):  # it would not go on either: make room for another try
            (path / "resume.pt").unlink(missing_ok=True)
        raise
    finally:
        if not (path / "resume.pt").exists():  # not even the first weights could be saved
            shutil.rmtree(path)


def resume(
    run: Run | str | Path, quiet: bool = False, display: Display | None = None, on_epoch: OnEpoch | None = None
) -> Run:
    """Go on with a run that was stopped, to the end that it would have had. Raises RunError."""
    run = _as_run(run)
    if not run.has("resume.pt"):
        raise RunError(f"{run.path / 'resume.pt'} is missing: this run cannot be resumed; train anew")
    model = untrained_model(run)
    files.remove_leftovers(run.path)
    display = display or Display(quiet=quiet)
    dataset = _prepare(run.config.data, display, run)
    return _train_into(run, dataset, model, display, on_epoch, Cost(pick_device(run.config.device)))


def evaluate(
    run: Run | str | Path, data: str | Dataset | None = None, split: str = "test", device: str = "auto",
    data_dir: str | None = None, out: str | Path | None = None, display: Display | None = None,
    views: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a run's best weights; returns what metrics.json holds.

    The run's own test split is written into the run folder; another split, data set or number of views into `out`, by
    default `evaluations/<data>-<split>[-<views>]` in the run folder.

    Args:
        views: `one`, `mirror` or `mirror-shift`, whose logits are averaged; by default those of the run.
    """
    run = _as_run(run)
    views_of(views or "one")  # an unknown name says so before anything is loaded
    display = display or Display(quiet=True)
    dataset = _evaluation_data(run, data, split, data_dir, display)
    target = evaluation_folder(run, dataset.name if data is not None else None, split, out, views)
    if target == run.path and not run.has("calibration.json"):  # a run older than it
        calibrate_run(run, dataset, pick_device(device))
    metrics = evaluate_split(run, dataset, split, pick_device(device), target, views)
    draw_pictures(run, dataset, split, target)
    if target == run.path:
        write_report(run)
    else:
        draw_charts(target, metrics)
    return metrics


def evaluation_folder(
    run: Run, data: str | None, split: str, out: str | Path | None = None, views: str | None = None
) -> Path:
    """Where `evaluate` writes: the run folder itself for the run's own test split, seen by the run's own views."""
    if out is not None:
        return Path(out)
    others = f"-{views}" if views not in (None, run.info.views) else ""
    if data is None and split == "test" and not others:
        return run.path
    return run.path / "evaluations" / f"{folder_name(data or run.config.data.name)}-{split}{others}"


def report(run: Run | str | Path) -> Path:
    """Write report.html anew from the run folder alone; returns its path. Raises RunError."""
    return write_report(_as_run(run))


def load(run: Run | str | Path, device: str = "auto") -> Classifier:
    """The trained classifier of a run folder. Raises RunError."""
    return Classifier.load(run, device)


def folder_name(name: str) -> str:
    """A data set's name as part of a folder's."""
    return Path(name.partition(":")[0]).resolve().name if Path(name).is_dir() else name.partition(":")[0]


def _train_into(
    run: Run, dataset: Dataset, model: Model, display: Display, on_epoch: OnEpoch | None, cost: Cost
) -> Run:
    try:
        fit(run, dataset, model, display, on_epoch, cost)
        calibrate_run(run, dataset, pick_device(run.config.device))
        if "test" in dataset.splits:
            evaluate_split(run, dataset, "test", pick_device(run.config.device), run.path)
            draw_pictures(run, dataset)
        write_report(run)
    except KeyboardInterrupt:
        if run.has("resume.pt"):
            print(f"\nstopped; go on with: fovea train --resume {shlex.quote(str(run.path))}", file=sys.stderr)
        raise
    return run


def _with_enough_epochs(config: RunConfig, num_images: int, display: Display) -> RunConfig:
    """More epochs where those of the recipe hold fewer than `min_steps`."""
    steps = math.ceil(num_images / config.batch_size)
    epochs = math.ceil(config.min_steps / steps)
    if epochs <= config.epochs:
        return config
    display.say(f"{epochs} epochs instead of {config.epochs}, as one holds {steps} steps only; --epochs overrides that")
    return config.model_copy(update={"epochs": epochs})


def try_augmentations(config: RunConfig, dataset: Dataset, info: ModelInfo, model: Model) -> None:
    """Run them once on two images: what does not fit images or model says so before there is a run folder."""
    few, batch_size = dataset.train.take(torch.arange(2)), min(2, config.batch_size)
    next(Loader(few, info.preprocess, batch_size, torch.device("cpu"), augment=config.augment).epoch())
    if mixing(config.augment) and not model.takes_soft_labels:
        raise ConfigError(
            f"{mixing(config.augment)} mixes labels, and model '{config.model}' cannot be trained on shares"
        )


def _with_loaded(config: RunConfig, data: Dataset, values: Mapping[str, Any]) -> tuple[RunConfig, Dataset]:
    """The config of a run on a data set that was loaded before; a val split is still drawn if the recipe wants one."""
    late = [path for path in values if path.startswith("data.") and path != "data.val_fraction"]
    if late:
        raise ConfigError(f"{late[0]} comes too late for a data set that is loaded already: give it to load_data")
    if "val" not in data.splits and config.data.val_fraction:
        data = split_off(data, data.config.model_copy(update={"val_fraction": config.data.val_fraction}))
    return config.model_copy(update={"data": data.config}), data


def _evaluation_data(
    run: Run, data: str | Dataset | None, split: str, data_dir: str | None, display: Display
) -> Dataset:
    if isinstance(data, Dataset):
        return data
    place = {"data_dir": data_dir} if data_dir else {}
    own = run.config.data
    if data is None or data == own.name or (Path(data).is_dir() and Path(data).resolve() == Path(own.name).resolve()):
        return _prepare(own.model_copy(update=place), display, run)
    # Nothing of other data was learned from: where it comes unsplit, all of it is measured.
    size = run.info.preprocess.image_size[0]
    other = _prepare(_data_config(data, {**place, "image_size": size}), display, for_training=False)
    return replace(other, splits={split: other.train}) if set(other.splits) == {"train"} else other


def _prepare(config: DataConfig, display: Display, run: Run | None = None, for_training: bool = True) -> Dataset:
    held_out = HeldOut(run.held_out, str(run.path / "split.json")) if run is not None else None

    def progress(done: int, total: int) -> None:
        if done == 1:
            display.start(total)
        display.advance(done, "decoding")

    with display:
        dataset = prepare(config, held_out, progress, for_training)
    for line in dataset.facts.skipped.values():
        print(f"skipped {line}", file=sys.stderr)
    return dataset


def _data_config(name: str, options: dict[str, Any]) -> DataConfig:
    unknown = [option for option in options if option not in DataConfig.model_fields]
    if unknown:
        raise ConfigError(f"unknown option '{unknown[0]}' of load_data{nearest(unknown[0], DataConfig.model_fields)}")
    return validated(DataConfig, {"name": name, **options})


def _environment(config: RunConfig, device: str) -> dict[str, Any]:
    packages = ["fovea", "torch", "torchvision", "numpy", *(["timm"] if find_spec("timm") else [])]
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": device,
        "hardware": hardware(),
        "seed": config.seed,
        "git_commit": _git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    """The commit of the folder that the run was started in, if it is a git checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _as_run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run(run)
