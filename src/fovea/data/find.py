"""What DATA on the command line is: a folder, an archive, a manifest, a data set of Hugging Face, or a registered name."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from fovea import registry
from fovea.config import DataConfig, data_dir_candidates, split_list
from fovea.data.tree import ARCHIVES
from fovea.data.types import Place, RawData, RawSplit
from fovea.errors import ConfigError, DataError, UnknownName

KINDS = "a folder of class folders, a zip or tar of one, a CSV or Parquet manifest, or a name that `fovea list` shows"
_MANIFESTS = (".csv", ".tsv", ".txt", ".parquet")
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
_BY_PATH = ("folder", "archive", "manifest", "hf")  # sources whose option is a place
_SHOWN = 3


def find(config: DataConfig) -> RawData:
    """What the source of `config.name` yields. Raises DataError, also for what it had to leave out without `skip_bad`."""
    place = Place(tuple(Path(c).expanduser() for c in data_dir_candidates(config.data_dir)))
    function, options = _source(config.name)
    takes = inspect.signature(function).parameters
    if "columns" in options:  # of `manifest:labels.csv:columns=path=file`
        options["columns"] = split_list(options["columns"])
    for option, value in (("columns", config.columns), ("group", config.group)):
        if value and option not in takes:
            raise ConfigError(f"--{option} is for your own pictures: {config.name} has no {option} to choose")
        if value:
            options[option] = value
    raw: RawData = function(place, **options)
    if raw.bad and not config.skip_bad:
        names = "; ".join(islice(raw.bad.values(), _SHOWN))
        more = f" (and {len(raw.bad) - _SHOWN} more)" if len(raw.bad) > _SHOWN else ""
        raise DataError(f"{names}{more}: mend or remove them, or go on without them by --skip-bad")
    _check_groups(config, raw.splits)
    return raw


def folder_name(name: str) -> str:
    """A data set's name as part of a folder's: `pictures` of `my/pictures.tar.gz`, `name` of `hf:owner/name`."""
    kind, _, rest = name.partition(":")
    if not Path(name).exists() and kind in _BY_PATH:
        name = rest.partition(":")[0].removeprefix("path=").removeprefix("name=")
    path = Path(name)
    if path.is_dir():
        return path.resolve().name
    if path.is_file() or kind in _BY_PATH:
        endings = [e for e in (*ARCHIVES, *_MANIFESTS) if path.name.lower().endswith(e)]
        return path.name[: -max(map(len, endings))] if endings else path.name
    return name.partition(":")[0]


def same(name: str, other: str) -> bool:
    """Do two values of DATA mean the same?"""
    return name == other or (Path(name).exists() and Path(name).resolve() == Path(other).resolve())


def _source(name: str) -> tuple[Callable[..., RawData], dict[str, Any]]:
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        from fovea.data.sources.hf import is_saved

        return (registry.source.get("hf"), {"name": str(path)}) if is_saved(path) else _by_path("folder", path)
    if path.is_file():
        return _of_file(path)
    first = name.partition(":")[0]
    if first in registry.source.names():
        return registry.source.bind(name, num_given=1)
    known = registry.source.names()
    likely = _likely(path)
    is_path = any(mark in name for mark in "/\\.~")
    if is_path or (likely and not difflib.get_close_matches(name, known, n=1)):
        owner, _, rest = name.partition("/")
        on_hub = all(re.fullmatch(r"\w[\w.-]*", part) for part in (owner, rest))
        hub = f"; of the Hugging Face hub it would be hf:{name}" if on_hub else ""
        raise DataError(f"no folder or file {name}{likely}{hub}: DATA is {KINDS}")
    raise UnknownName("data set", name, known, f"; or give {KINDS.partition(', or')[0]}")


def _of_file(path: Path) -> tuple[Callable[..., RawData], dict[str, Any]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        from fovea.data.sources.hf import holds_pictures

        return (registry.source.get("hf"), {"name": str(path)}) if holds_pictures(path) else _by_path("manifest", path)
    if name.endswith(_MANIFESTS):
        return _by_path("manifest", path)
    if name.endswith(_PICTURES):
        raise DataError(f"{path} is one picture: DATA is {KINDS}; `fovea predict` says what is in one")
    if name.endswith((".json", ".jsonl", ".xml", ".xls", ".xlsx", ".ods")):
        raise DataError(f"{path} is no manifest that is read: save it as CSV with the columns path and label")
    if name.endswith((".7z", ".rar", ".zst")):
        raise DataError(f"{path} is an archive that is not read: unpack it and give the folder, or pack it as a zip")
    return _by_path("archive", path)


def _by_path(kind: str, path: Path) -> tuple[Callable[..., RawData], dict[str, Any]]:
    return registry.source.get(kind), {"path": str(path)}


def _likely(path: Path) -> str:
    """What lies where `path` should, and has nearly its name; for a message."""
    try:
        names = [
            e.name for e in os.scandir(path.parent) if e.is_dir() or e.name.lower().endswith((*ARCHIVES, *_MANIFESTS))
        ]
    except OSError:
        return ""
    # With and without endings: `pictures` may mean pictures.zip.
    stems = {name.partition(".")[0]: name for name in names} | {name: name for name in names}
    close = difflib.get_close_matches(path.name, stems, n=1, cutoff=0.6)
    return f" (did you mean '{path.parent / stems[close[0]]}'?)" if close else ""


def _check_groups(config: DataConfig, splits: dict[str, RawSplit]) -> None:
    """What belongs together must not stand on two sides of a split that came with the data."""
    seen: dict[str, str] = {}
    for name, split in splits.items():
        for group in split.groups or ():
            if seen.setdefault(group, name) != name:
                raise DataError(
                    f"{config.name}: the group '{group}' is in {seen[group]} and in {name}: mend the split, or take the "
                    "splits as they are by --group none"
                )
