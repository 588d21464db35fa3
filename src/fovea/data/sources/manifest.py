"""A table that says which pictures there are: a CSV or Parquet file with a row a picture."""

from __future__ import annotations

import difflib
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fovea.data.table import Table, read_table
from fovea.data.tree import SPLIT_FOLDERS
from fovea.data.types import SPLITS, Picture, Place, RawData, RawSplit
from fovea.errors import ConfigError, DataError, nearest
from fovea.registry import source

# What a column is for, and the names by which it is found where --columns does not say.
_ROLES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path"),
    "label": ("label", "class", "target", "category"), "split": ("split",), "group": ("group",),
}  # fmt: skip
Find = Callable[[str], "Picture | None"]


@source
def manifest(place: Place, path: str, columns: tuple[str, ...] = (), group: str | None = None) -> RawData:
    """A CSV or Parquet table with columns path, label and, where wanted, split and group.

    Paths count from the table's own folder. Columns of other names are given by `--columns path=file,label=kind`.
    """
    file = Path(path)
    root = os.path.dirname(path)

    def find(text: str) -> Picture | None:
        found = os.path.join(root, text)
        return Path(found) if os.path.isfile(found) else None

    return from_table(read_table(file), find, columns, group)


@dataclass(frozen=True)
class _Row:
    number: int
    id: str
    picture: Picture
    label: str
    split: str
    group: str


def from_table(table: Table, find: Find, columns: Sequence[str] = (), group: str | None = None) -> RawData:
    """The pictures that a table names. Raises DataError.

    Args:
        find: from a path, as the table has it or with `/` for `\\`, to a file; None where there is none.
        columns: `path=file`: which of the table's columns has which role.
        group: the column of the groups; `none` for no groups, where the table has a column `group`.
    """
    place = _places(table, columns, group)
    if not table.rows:
        raise DataError(f"{table.where} names columns, but no pictures: it has no second row")
    bad: dict[str, str] = {}
    rows: list[_Row] = []
    for number, cells in table.rows:
        row = _row(table, number, cells, place, find, with_hint=not bad)
        if isinstance(row, _Row):
            rows.append(row)
        else:
            bad[f"row {number}"] = f"{table.where} row {number}: {row}"
    if not rows:
        raise DataError(f"none of the {len(table.rows):,} rows can be used; {next(iter(bad.values()))}")
    rows = _without_repeats(table, rows, bad)
    classes = _classes(rows)
    known = set(classes)
    for row in rows:
        if row.label not in known:
            bad[f"row {row.number}"] = (
                f"{table.where} row {row.number}: the class '{row.label}' of {row.split} is none of train's"
                f"{nearest(row.label, classes)}"
            )
    position = {name: number for number, name in enumerate(classes)}
    splits = {}
    for name in SPLITS:
        own = [row for row in rows if row.split == name and row.label in known]
        if own:
            groups = [row.group for row in own] if "group" in place else None
            labels = [position[row.label] for row in own]
            splits[name] = RawSplit([row.picture for row in own], labels, [row.id for row in own], groups)
    notes = []
    if "group" in place and group is None:
        column = table.columns[place["group"]]
        notes.append(
            f"{table.where}: rows of one {column} stay on one side of every split (--group none: they need not)"
        )
    ordered = dict(sorted(bad.items(), key=lambda item: int(item[0].removeprefix("row "))))
    return RawData(classes, splits, ordered, tuple(notes))


def column_roles(columns: Sequence[str], roles: Sequence[str]) -> dict[str, str]:
    """`["path=file"]` to `{"path": "file"}`. Raises ConfigError."""
    chosen = {}
    for text in columns:
        role, equals, name = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--columns {text}: write role=column, for instance {roles[0]}=file,label=kind")
        if role not in roles:
            raise ConfigError(f"--columns {text}: unknown role '{role}'{nearest(role, roles)}")
        chosen[role] = name
    return chosen


def _places(table: Table, columns: Sequence[str], group: str | None) -> dict[str, int]:
    """Role to the number of its column."""
    chosen = column_roles(columns, list(_ROLES))
    if group is not None:
        chosen["group"] = group
    doubled = {name for name in table.columns if table.columns.count(name) > 1}
    lower = [name.lower() for name in table.columns]
    places = {}
    for role, names in _ROLES.items():
        if role == "group" and group == "none":
            continue
        if role in chosen:
            if chosen[role] not in table.columns:
                option = f"--group {group}" if role == "group" and group else f"--columns {role}={chosen[role]}"
                raise DataError(
                    f"{table.where} has no column '{chosen[role]}' for {option}{nearest(chosen[role], table.columns)}"
                )
            places[role] = list(table.columns).index(chosen[role])
        elif found := [name for name in names if name in lower]:
            places[role] = lower.index(found[0])
        elif role in ("path", "label"):
            there = ", ".join(table.columns)
            raise DataError(
                f"{table.where} has no column '{role}' (there are {there}): say which it is by --columns {role}=NAME"
            )
    if used := doubled & {table.columns[number] for number in places.values()}:
        raise DataError(f"{table.where} has two columns '{min(used)}': rename one of them")
    return places


def _row(
    table: Table, number: int, cells: Sequence[str], place: Mapping[str, int], find: Find, with_hint: bool
) -> _Row | str:
    """A row, or what is wrong with it."""
    if len(cells) != len(table.columns):
        return f"{len(cells)} cells, where the first row names {len(table.columns)} columns"
    value = {role: cells[column] for role, column in place.items()}
    path, label = value["path"], value["label"]
    split = SPLIT_FOLDERS.get(value.get("split", "train").lower())
    if not path:
        return "no path"
    if not label:
        return f"{path} has no label"
    if split is None:
        given = value["split"]
        return f"unknown split '{given}'{nearest(given, SPLITS)}" if given else f"{path} has no split"
    if "://" in path:
        return f"{path} is an address: download it, and name the file"
    picture = find(path)
    if picture is None and "\\" in path:
        path = path.replace("\\", "/")
        picture = find(path)
    if picture is None:
        hint = _likely(table.where, path) if with_hint else ""  # once: it takes a while
        below = "" if os.path.isabs(path) else f" below {posixpath.dirname(table.where) or 'this folder'}"
        return f"no file {path}{below}{hint}"
    return _Row(number, posixpath.normpath(path), picture, label, split, value.get("group") or f"row {number}")


def _likely(where: str, path: str) -> str:
    """The file that may be meant, for a message."""
    folder = Path(posixpath.dirname(where), path).parent
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return ""
    close = difflib.get_close_matches(Path(path).name, names, n=1, cutoff=0.6)
    return f" (did you mean '{posixpath.join(posixpath.dirname(path), close[0])}'?)" if close else ""


def _without_repeats(table: Table, rows: Sequence[_Row], bad: dict[str, str]) -> list[_Row]:
    """Each picture once; none whose rows contradict each other."""
    first: dict[str, _Row] = {}
    contradicted = set()
    for row in rows:
        before = first.setdefault(row.id, row)
        if before is row:
            continue
        say = f"{table.where} row {row.number}: {row.id} stands in row {before.number} already"
        if row.label != before.label:
            say += f", as '{before.label}' and not as '{row.label}'"
        elif row.split != before.split:
            say += f", in {before.split} and not in {row.split}"
        if (row.label, row.split) != (before.label, before.split):
            contradicted.add(row.id)
        bad[f"row {row.number}"] = say
    return [row for row in first.values() if row.id not in contradicted]


def _classes(rows: Sequence[_Row]) -> tuple[str, ...]:
    """Of the training pictures, where there are any."""
    return in_order({row.label for row in rows if row.split == "train"} or {row.label for row in rows})


def in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by their size, other names by their letters."""
    return tuple(sorted(names, key=(lambda n: (int(n), n)) if all(n.isdecimal() for n in names) else None))
