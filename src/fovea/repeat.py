"""The same training with several seeds: a group of runs in one folder.

group.yaml                 the config; its seed is the first run's
group.json                 the seeds
seed-0/  seed-1/  ...      run folders
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
from fovea.data.types import Dataset
from fovea.engine.progress import Display
from fovea.errors import ConfigError, RunError
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
    config, dataset = api.resolve(data, recipe, settings, display, **options)
    name = f"{api.folder_name(config.data.name)}-{config.recipe}-seeds"
    path = create_run(None if out is None else str(out), name)
    try:
        files.write_text(path / "group.yaml", config.to_yaml())
        files.write_json(path / "group.json", {"seeds": list(range(config.seed, config.seed + seeds))})
        return _finish(path, config, dataset, display)
    finally:
        if not any(path.glob("seed-*")):  # not even the first run began
            shutil.rmtree(path)


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


def _finish(path: Path, config: RunConfig, dataset: Dataset | None, display: Display) -> Path:
    folders = _folders(path)
    try:
        for number, (seed, folder) in enumerate(folders.items(), start=1):
            display.say(f"run {number} of {len(folders)}: seed {seed}")
            if (folder / "report.html").is_file():  # the last file that a run writes
                continue
            if (folder / "resume.pt").is_file():
                api.resume(folder, display=display)
                continue
            if folder.exists():  # killed before its first weights were saved
                shutil.rmtree(folder)
            api.train_config(config.model_copy(update={"seed": seed}), dataset, str(folder), display)
    except KeyboardInterrupt:
        print(f"all seeds go on with: fovea train --resume {shlex.quote(str(path))}", file=sys.stderr)
        raise
    compare(members(path), path)
    return path


def _folders(path: Path) -> dict[int, Path]:
    try:
        seeds = json.loads((path / "group.json").read_text(encoding="utf-8"))["seeds"]
        return {int(seed): path / f"seed-{int(seed)}" for seed in seeds}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / 'group.json'} is damaged ({error}): restore it, or train anew") from None
