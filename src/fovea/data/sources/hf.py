"""Data sets of Hugging Face's `datasets`: saved on disk, as Parquet shards, or by name on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.data.sources.manifest import column_roles, in_order
from fovea.data.table import import_parquet, one_line
from fovea.data.tree import SPLIT_FOLDERS
from fovea.data.types import SPLITS, Picture, Place, RawData, RawSplit
from fovea.errors import ConfigError, DataError, nearest
from fovea.registry import source

_ROLES = ("image", "label", "group")
_LABEL_NAMES = ("label", "labels", "class", "target", "category")


@dataclass(frozen=True)
class Cell:
    """A picture in a row of a data set."""

    rows: Any  # a datasets.Dataset of the image column alone, which is not decoded
    row: int
    where: str

    def __str__(self) -> str:
        return f"{self.where}/{self.row}"

    def read_bytes(self) -> bytes:
        """The whole file. Raises OSError."""
        (cell,) = self.rows[self.row].values()
        if cell is not None and cell["bytes"] is not None:
            return bytes(cell["bytes"])
        if cell is None or not cell["path"]:
            raise OSError("the row holds no picture")
        return Path(cell["path"]).read_bytes()

    def signature(self) -> str:
        """Changes when the data set does."""
        return f"{self.rows._fingerprint}/{self.row}"


@source
def hf(
    place: Place, name: str, subset: str = "", revision: str = "", columns: tuple[str, ...] = (), group: str | None = None
) -> RawData:  # fmt: skip
    """A Hugging Face data set: hf:owner/name (hf:owner/name:subset), a saved folder, or Parquet shards.

    The columns of pictures and labels are found by their types; `--columns image=photo,label=kind` chooses others. The
    bytes of a picture are read when it is decoded. Nothing of it is run as code.
    """
    loaded = _load(name, subset, revision)
    parts = loaded if isinstance(loaded, dict) else {"train": loaded}
    named = {SPLIT_FOLDERS[part.lower()]: rows for part, rows in parts.items() if part.lower() in SPLIT_FOLDERS}
    beside = [part for part in parts if part.lower() not in SPLIT_FOLDERS]
    if not named:  # one part of a name of its own is what there is
        named, beside = {"train": parts[beside[0]]}, beside[1:]
    first = next(iter(named.values()))
    roles = _roles(name, first.features, columns, group)
    names = getattr(first.features[roles["label"]], "names", None)
    labels = {split: _labels(rows, roles["label"], names) for split, rows in named.items()}
    notes = [f"{name}: left out {', '.join(beside)}, which are no splits"] if beside else []
    for split in [split for split in labels if not any(labels[split])]:
        notes.append(f"{name}: left out {split}, which has no labels")
        del labels[split], named[split]
    known = labels.get("train") or [label for own in labels.values() for label in own]
    classes = tuple(names or in_order({label for label in known if label}))
    splits: dict[str, RawSplit] = {}
    bad: dict[str, str] = {}
    for split in [split for split in SPLITS if split in named]:
        splits[split] = _split(f"{name}/{split}", split, named[split], labels[split], roles, classes, bad)
    return RawData(classes, splits, bad, tuple(notes))


def is_saved(path: Path) -> bool:
    """Does `save_to_disk` leave such a folder, or does it hold Parquet shards with pictures in them?"""
    if (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    ):
        return True
    shards = _shards(path)
    return bool(shards) and holds_pictures(shards[0])


def holds_pictures(path: Path) -> bool:
    """Has a Parquet file a column of whole pictures? Then it is a data set, else a manifest."""
    parquet = import_parquet(str(path))
    import pyarrow

    try:
        schema = parquet.read_schema(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({one_line(error)})") from None
    types = [field.type for field in schema]
    return any(t == pyarrow.binary() or (pyarrow.types.is_struct(t) and t.get_field_index("bytes") >= 0) for t in types)


def _shards(path: Path) -> list[Path]:
    """Parquet files in the folder, in its `data`, and in folders that are named as splits are."""
    folders = [path, path / "data", *(path / name for name in SPLIT_FOLDERS)]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.parquet"))]


def _load(name: str, subset: str, revision: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f'{name} is a Hugging Face data set, which needs: pip install "fovea[hf]"') from None
    path = Path(name)
    try:
        if path.is_file() or (path.is_dir() and _shards(path)):
            return datasets.load_dataset("parquet", data_files=_by_split(path))
        if path.is_dir():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name, subset or None, revision=revision or None)
    except ConnectionError as error:
        raise DataError(
            f"hf:{name} is not in the local cache, and the hub cannot be reached ({one_line(error)}): try again with a "
            "network, or give the folder that save_to_disk wrote on another machine"
        ) from None
    except Exception as error:  # whatever a damaged file makes the readers below raise
        raise DataError(f"{name} cannot be read as a Hugging Face data set ({one_line(error)})") from None


def _by_split(path: Path) -> dict[str, list[str]]:
    """The shards by the split that is a word of their names: `train-00000-of-00002.parquet`, `test/0000.parquet`."""
    found: dict[str, list[str]] = {}
    for file in [path] if path.is_file() else _shards(path):
        words = re.split(r"[^a-z]+", "/".join(file.relative_to(path).parts).lower() or file.name.lower())
        split = next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "train")
        found.setdefault(split, []).append(str(file))
    return found


def _roles(name: str, features: Mapping[str, Any], columns: tuple[str, ...], group: str | None) -> dict[str, str]:
    """Role to column."""
    import datasets

    chosen = column_roles(columns, _ROLES)
    if group not in (None, "none"):
        chosen["group"] = group
    for role, column in chosen.items():
        if column not in features:
            raise DataError(f"{name} has no column '{column}' for {role}{nearest(column, features)}")
    binary = [
        n for n, f in features.items() if getattr(f, "dtype", "") == "binary" or (isinstance(f, dict) and "bytes" in f)
    ]
    images = [n for n, f in features.items() if isinstance(f, datasets.Image)] or binary
    labels = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    labels = labels or [n for n in features if n.lower() in _LABEL_NAMES]
    for role, found in (("image", images), ("label", labels)):
        if role in chosen:
            continue
        if len(found) != 1:
            what = (
                f"the columns {', '.join(found)} for {role}s"
                if found
                else f"no column of {role}s that is known by its type"
            )
            raise DataError(f"{name} has {what} (there are {', '.join(features)}): choose one by --columns {role}=NAME")
        chosen[role] = found[0]
    return chosen


def _labels(rows: Any, column: str, names: list[str] | None) -> list[str]:
    """The class of each row; empty where there is none."""
    values = rows.select_columns([column])[:][column]
    if names is not None:
        return [names[value] if value is not None and value >= 0 else "" for value in values]
    return ["" if value is None else str(value).strip() for value in values]


def _split(
    where: str, split: str, rows: Any, labels: list[str], roles: dict[str, str], classes: tuple[str, ...],
    bad: dict[str, str],
) -> RawSplit:  # fmt: skip
    import datasets

    bytes_only = rows.select_columns([roles["image"]]).cast_column(roles["image"], datasets.Image(decode=False))
    groups = rows.select_columns([roles["group"]])[:][roles["group"]] if "group" in roles else None
    position = {name: number for number, name in enumerate(classes)}
    kept = []
    for row, label in enumerate(labels):
        if label in position:
            kept.append(row)
        else:
            why = f"the class '{label}' is none of train's{nearest(label, classes)}" if label else "no label"
            bad[f"{split}/{row}"] = f"{where}/{row}: {why}"
    pictures: list[Picture] = [Cell(bytes_only, row, where) for row in kept]
    own = None if groups is None else [f"{split}/{row}" if groups[row] is None else str(groups[row]) for row in kept]
    return RawSplit(pictures, [position[labels[row]] for row in kept], [f"{split}/{row}" for row in kept], own)
