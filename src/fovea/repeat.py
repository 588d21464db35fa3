"""The same training with several seeds, or on several folds: a group of runs in one folder.

group.yaml                 the config; its seed is the first run's
group.json                 the seeds, or the folds
seed-0/  seed-1/  ...      run folders; of folds fold-1/  fold-2/  ...
compare.json  compare.png  the group's figures
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fovea import api, files
from fovea.config import RunConfig
from fovea.data.find import folder_name
from fovea.data.splits import split_off
from fovea.data.types import Dataset
from fovea.engine.progress import Display
from fovea.errors import ConfigError, RunError
from fovea.resolve import resolve
from fovea.run import Run, create_run, read_text
from fovea.uses.compare import compare


def train_seeds(
    data: str | Dataset, seeds: int, recipe: str | None = None, out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, quiet: bool = False, display: Display | None = None, **options: Any,
) -> Path:  # fmt: skip
    """Train `seeds` times, from the config's seed on, and compare; returns the group's folder.

    Takes what `train` takes. The data is loaded and split once: the runs differ in first weights, order and augmentation.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least 1")
    display = display or Display(quiet=quiet)
    config, dataset = resolve(data, recipe, settings, display, **options)
    return _begin(config, {"seeds": list(range(config.seed, config.seed + seeds))}, out, dataset, display)


def train_folds(
    data: str, folds: int, recipe: str | None = None, out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, quiet: bool = False, display: Display | None = None, **options: Any,
) -> Path:  # fmt: skip
    """Train `folds` times, each time with another fold as the test split, and compare; returns the group's folder.

    Takes what `train` takes, of data without a test split. Every image is in the test split of exactly one run; a val
    split is drawn from the other folds. The folds are stratified by class, and keep groups together.
    """
    if folds < 2:
        raise ConfigError(f"--folds {folds}: at least 2")
    display = display or Display(quiet=quiet)
    first = {**(settings or {}), "data.folds": folds, "data.fold": 1}
    # What cannot be dealt says so here, before anything is written.
    config, _ = resolve(data, recipe, first, display, **options)
    config = config.model_copy(update={"data": config.data.model_copy(update={"fold": None})})
    dataset = _unsplit(config, display)
    return _begin(config, {"folds": list(range(1, folds + 1))}, out, dataset, display)


def resume_seeds(path: str | Path, quiet: bool = False, display: Display | None = None) -> Path:
    """Go on with a group that was stopped: finish the run under way, then train what is missing."""
    path = Path(path)
    config = RunConfig.from_yaml(read_text(path / "group.yaml"), str(path / "group.yaml"))
    return _finish(path, config, None, display or Display(quiet=quiet))


def is_group(path: str | Path) -> bool:
    """Is this the folder of a group?"""
    return (Path(path) / "group.json").is_file()


def members(path: str | Path) -> list[Run]:
    """The runs of a group that are there, by seed. Raises RunError."""
    return [Run(folder) for folder in _folders(Path(path)).values() if (folder / "model.json").is_file()]


def _begin(
    config: RunConfig, members: dict[str, list[int]], out: str | Path | None, dataset: Dataset, display: Display
) -> Path:
    (kind,) = members
    path = create_run(None if out is None else str(out), f"{folder_name(config.data.name)}-{config.recipe}-{kind}")
    try:
        files.write_text(path / "group.yaml", config.to_yaml())
        files.write_json(path / "group.json", members)
        return _finish(path, config, dataset, display)
    finally:
        if not any(path.glob(f"{kind.removesuffix('s')}-*")):  # not even the first run began
            shutil.rmtree(path)


def _finish(path: Path, config: RunConfig, dataset: Dataset | None, display: Display) -> Path:
    folders = _folders(path)
    kind = "fold" if config.data.folds else "seed"
    try:
        for number, (member, folder) in enumerate(folders.items(), start=1):
            display.say(f"run {number} of {len(folders)}: {kind} {member}")
            if (folder / "report.html").is_file():  # the last file that a run writes
                continue
            if (folder / "resume.pt").is_file():
                api.resume(folder, display=display)
                continue
            if folder.exists():  # killed before its first weights were saved
                shutil.rmtree(folder)
            if kind == "fold":
                dataset = dataset or _unsplit(config, display)
                own = _fold(config, dataset, member)
                api.train_config(own, split_off(dataset, own.data), str(folder), display)
            else:
                api.train_config(config.model_copy(update={"seed": member}), dataset, str(folder), display)
    except KeyboardInterrupt:
        print(f"all {kind}s go on with: fovea train --resume {shlex.quote(str(path))}", file=sys.stderr)
        raise
    compare(members(path), path)
    return path


def _fold(config: RunConfig, dataset: Dataset, number: int) -> RunConfig:
    """The config of one fold's run, with the size at which the pictures were decoded."""
    data = config.data.model_copy(update={"fold": number, "image_size": dataset.config.image_size})
    return config.model_copy(update={"data": data})


def _unsplit(config: RunConfig, display: Display) -> Dataset:
    """The data before any fold is kept apart."""
    whole = {**config.data.model_dump(exclude={"name"}), "folds": 0, "test_fraction": 0.0, "val_fraction": 0.0}
    return api.load_data(config.data.name, display, **whole)


def _folders(path: Path) -> dict[int, Path]:
    """Seed, or number of the fold, to the folder of its run."""
    try:
        ((kind, numbers),) = json.loads((path / "group.json").read_text(encoding="utf-8")).items()
        name = {"seeds": "seed", "folds": "fold"}[kind]
        return {int(number): path / f"{name}-{int(number)}" for number in numbers}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path / 'group.json'} is damaged ({error}): restore it, or train anew") from None
