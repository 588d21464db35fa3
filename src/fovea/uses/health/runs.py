"""Which images of a data set trained runs can judge: those that they did not learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fovea import repeat
from fovea.data.find import same
from fovea.data.types import Dataset
from fovea.engine.progress import Display
from fovea.errors import ConfigError, RunError
from fovea.resolve import data_config, prepare_data
from fovea.run import Run
from fovea.uses.health.album import Album
from fovea.uses.health.suspects import Judged, judge


def judged_by(path: str, data: str, options: dict[str, Any], display: Display) -> tuple[Album, Judged]:
    """The data as the runs of a folder saw it, and what they say of it.

    A run judges its own val and test; of other data than its own, everything. The runs of `--folds` judge all of theirs.

    Args:
        path: a run, or a group of runs.
        options: fields of DataConfig that were given.
    """
    if path != "" and repeat.is_group(path):
        runs = repeat.members(path)
        if not runs:
            raise RunError(f"{path} holds no run yet: go on with it by fovea train --resume {path}")
    else:
        runs = [Run(path)]
    fixed = [name for name in ("image_size", "resize", "val_fraction") if name in options]
    if fixed:
        option = "--" + fixed[0].replace("_", "-")
        raise ConfigError(f"{option} is that of the run with --run: leave it out, or inspect without --run")
    own = [same(data, run.config.data.name) for run in runs]
    if not any(own):
        preprocess = runs[0].info.preprocess
        seen = {"image_size": preprocess.image_size[0], "resize": preprocess.resize}
        dataset = prepare_data(data_config(data, {**options, **seen}), display)
        album = Album(dataset)
        return album, judge(album, [(run, dataset, list(dataset.splits)) for run in runs])
    kept = {name: value for name, value in options.items() if value}
    datasets = [prepare_data(run.config.data.model_copy(update=kept), display, run) for run in runs]
    album = Album(replace(datasets[0], config=datasets[0].config.model_copy(update={"name": data})))
    return album, judge(album, [(run, each, _held_out(each)) for run, each in zip(runs, datasets, strict=True)])


def _held_out(dataset: Dataset) -> list[str]:
    return [name for name in dataset.splits if name != "train"]
