"""What `import fovea` offers: each function joins data, engine and report for one thing that a person wants."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fovea import files
from fovea.config import RunConfig
from fovea.data.find import folder_name, same
from fovea.data.loader import Loader, mixing
from fovea.data.types import Dataset
from fovea.device import describe, memory_errors, pick_device
from fovea.engine.cost import Cost
from fovea.engine.evaluate import calibrate_run, evaluate_split, untrained_model
from fovea.engine.finetune import trains_head_only
from fovea.engine.gradients import in_int8
from fovea.engine.head import fit_head
from fovea.engine.progress import Display
from fovea.engine.train import OnEpoch, build, fit
from fovea.engine.views import views_of
from fovea.environment import environment
from fovea.errors import ConfigError, OutOfMemory, RunError, some
from fovea.models.base import Model
from fovea.models.cost import flops_if_countable, flops_text
from fovea.resolve import data_config, prepare_data, resolve, say_data
from fovea.run import ModelInfo, Run, create_run
from fovea.uses.gallery import draw_pictures
from fovea.uses.predict import Classifier
from fovea.uses.report import draw_charts, write_report


def load_data(name: str, display: Display | None = None, **options: Any) -> Dataset:
    """Load a data set by its registered name or folder; options are the fields of DataConfig. Raises DataError."""
    return prepare_data(data_config(name, options), display or Display(quiet=True))


def train(
    data: str | Dataset, recipe: str | None = None, out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, quiet: bool = False, on_epoch: OnEpoch | None = None,
    display: Display | None = None, **options: Any,
) -> Run:  # fmt: skip
    """Train, evaluate once on test, write the report; returns the run.

    Args:
        data: a name, a folder, or what `load_data` returned; a val split is drawn where the recipe wants one.
        recipe: None (or `auto`): settings that suit the data, and why, are said at the start.
        out: the run folder; by default runs/<data>-<recipe>, numbered where that is taken.
        settings: `{"optim.nesterov": True}`: any field of the config by its path.
        on_epoch: called with each row of results.csv.
        options: the everyday settings by name (epochs, batch_size, lr, model, augment, ...).
    """
    display = display or Display(quiet=quiet)
    config, dataset = resolve(data, recipe, settings, display, **options)
    if config.data.folds and config.data.fold is None:
        raise ConfigError("folds make a group of runs: train them by --folds, in Python by train_folds; or give a fold")
    return train_config(config, dataset, None if out is None else str(out), display, on_epoch)


def train_config(
    config: RunConfig, dataset: Dataset | None, out: str | None, display: Display, on_epoch: OnEpoch | None = None
) -> Run:
    """Train as `config` says into a new run folder; loads the data where it is not given."""
    if dataset is None:
        dataset = prepare_data(config.data, display)
        config = config.model_copy(update={"data": dataset.config})  # with the size that was chosen
        say_data(dataset, [], display)
    if config.patience and "val" not in dataset.splits:
        raise ConfigError(
            "--patience waits for a better epoch on val, and there is no val split: give --val-fraction 0.1"
        )
    config = _with_enough_epochs(config, len(dataset.train), display)
    device = pick_device(config.device)
    cost = Cost(device)
    with memory_errors(f"for model '{config.model}'", "try a smaller --model or --image-size"):
        model, info = build(config, dataset, display.say)
    info = replace(info, flops=flops_if_countable(model, dataset.channels, dataset.image_size))
    if info.flops is not None:
        display.say(f"{config.model}: {flops_text(info.flops)} for a forward pass of one image")
    try_augmentations(config, dataset, info, model)
    path = create_run(out, f"{folder_name(config.data.name)}-{config.recipe}")
    try:
        files.write_text(path / "config.yaml", config.to_yaml())
        computing = describe(device, info.precision, in_int8(config, model, info.precision, device))
        files.write_json(path / "environment.json", environment(config, computing))
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
    dataset = prepare_data(run.config.data, display, run)
    return _train_into(run, dataset, model, display, on_epoch, Cost(pick_device(run.config.device)))


def evaluate(
    run: Run | str | Path, data: str | Dataset | None = None, split: str = "test", device: str = "auto",
    data_dir: str | None = None, out: str | Path | None = None, display: Display | None = None,
    views: str | None = None, columns: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a run's best weights; returns what metrics.json holds.

    The run's own test split is written into the run folder; another split, data set or number of views into `out`, by
    default `evaluations/<data>-<split>[-<views>]` in the run folder.

    Args:
        views: `one`, `mirror` or `mirror-shift`, whose logits are averaged; by default those of the run.
        columns: `path=file`, of a manifest as `data`.
    """
    run = _as_run(run)
    views_of(views or "one")  # an unknown name says so before anything is loaded
    display = display or Display(quiet=True)
    dataset = _evaluation_data(run, data, split, {"data_dir": data_dir, "columns": columns}, display)
    if lacking := [name for name in run.info.classes if name not in dataset.classes]:
        display.say(f"no pictures of {some(lacking)} in {dataset.name}: measured on the other classes")
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


def _train_into(
    run: Run, dataset: Dataset, model: Model, display: Display, on_epoch: OnEpoch | None, cost: Cost
) -> Run:
    try:
        (fit_head if trains_head_only(run.config) else fit)(run, dataset, model, display, on_epoch, cost)
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
    steps = math.ceil(config.hardest * num_images / config.batch_size)
    epochs = math.ceil(config.min_steps / steps)
    if config.epochs is None or epochs <= config.epochs:
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


def _evaluation_data(
    run: Run, data: str | Dataset | None, split: str, options: dict[str, Any], display: Display
) -> Dataset:
    if isinstance(data, Dataset):
        return data
    place = {name: value for name, value in options.items() if value}
    own = run.config.data
    if data is None or same(data, own.name):
        return prepare_data(own.model_copy(update=place), display, run)
    # Nothing of other data was learned from: where it comes unsplit, all of it is measured.
    seen = {"image_size": run.info.preprocess.image_size[0], "resize": run.info.preprocess.resize}
    other = prepare_data(data_config(data, {**place, **seen}), display, for_training=False)
    return replace(other, splits={split: other.train}) if set(other.splits) == {"train"} else other


def _as_run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run(run)
