"""Which folders of a tree are splits and which are classes: the same for a folder on disk and for an archive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fovea.data.types import SPLITS, Picture, RawData, RawSplit
from fovea.errors import ConfigError, DataError, nearest, some

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# What systems and archivers leave beside pictures; names that begin with a dot are left out, too.
_LEFTOVERS = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin")
TABLES = (".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
# Endings that no picture has. A file of any other ending, or of none, is decoded, and named where that fails.
_NO_PICTURES = {
    ".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".html", ".htm", ".css", ".js", ".py", ".ipynb", ".sh", ".bat", ".pdf", ".doc", ".docx", ".odt", ".rtf",
    ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".npy", ".npz", ".mat", ".pkl", ".h5", ".parquet", ".arrow", ".db",
    ".sqlite", ".pt", ".pth", ".safetensors", ".onnx", ".mp3", ".wav", ".flac", ".mp4", ".mov", ".avi", ".mkv",
    ".webm", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".url", ".lnk",
}  # fmt: skip
_SHOWN = 6  # names in a message


@dataclass
class Node:
    """A folder: its folders and its pictures by name, and the names of other files (of `TABLES` and `ARCHIVES`, for messages)."""

    folders: dict[str, Node] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def count(self) -> int:
        """How many pictures are here and below."""
        return len(self.pictures) + sum(node.count() for node in self.folders.values())

    def filled(self) -> dict[str, Node]:
        """The folders with pictures."""
        return {name: node for name, node in self.folders.items() if node.count()}

    def walk(self, prefix: str) -> Iterator[tuple[str, Picture]]:
        """Every picture with its path below the root, in the order of its parts."""
        for name in sorted([*self.folders, *self.pictures]):
            if name in self.folders:
                yield from self.folders[name].walk(f"{prefix}{name}/")
            if name in self.pictures:
                yield f"{prefix}{name}", self.pictures[name]


@dataclass
class Tree:
    """What a scan found."""

    where: str  # the folder or archive as the user wrote it
    root: Node = field(default_factory=Node)
    bad: dict[str, str] = field(default_factory=dict)  # path below the root: what is wrong with it
    endings: Counter[str] = field(default_factory=Counter)  # of the files that are no pictures

    def takes(self, node: Node, name: str) -> bool:
        """May a file of this name be a picture? Others are counted, and tables and archives remembered in `node`."""
        ending = name[name.rfind(".") :].lower() if "." in name else ""
        if ending not in _NO_PICTURES:
            return True
        self.endings[ending] += 1
        if ending in TABLES or name.lower().endswith(ARCHIVES):
            node.others.append(name)
        return False


def is_leftover(name: str) -> bool:
    """Is it hidden, or something that file managers and archivers leave?"""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def unwrap(node: Node, prefix: str = "") -> tuple[Node, str]:
    """Through folders that hold nothing but one folder, down to where they branch; `node` itself where they never do."""
    inner, path = node, prefix
    while not inner.pictures:
        filled = inner.filled()
        if len(filled) > 1 or any(name.lower() in SPLIT_FOLDERS and child.filled() for name, child in filled.items()):
            return inner, path
        if len(filled) != 1:
            break
        ((name, inner),) = filled.items()
        path = f"{path}{name}/"
    return node, prefix


def lone_table(tree: Tree) -> str | None:
    """The path of the one table that must say what the pictures are, where their folders do not."""
    top, _ = unwrap(tree.root)
    filled = top.filled()
    if _split_folders(tree, top) or (len(filled) > 1 and not _all_are_splits(filled)):
        return None
    node, prefix = tree.root, ""
    while not node.others and not node.pictures and len(node.filled()) == 1:
        ((name, node),) = node.filled().items()
        prefix = f"{prefix}{name}/"
    tables = [name for name in node.others if name.lower().endswith(TABLES)]
    return prefix + tables[0] if len(tables) == 1 else None


def by_folder(tree: Tree, group: str | None = None) -> RawData:
    """Splits and classes by the names of folders. Raises DataError.

    Args:
        group: `parent`, the folders below the class folders, or a regular expression on file names.
    """
    top, prefix = unwrap(tree.root)
    named = _split_folders(tree, top)
    outer = {split: (top.folders[name], f"{prefix}{name}/") for split, name in named.items()} or {
        "train": (top, prefix)
    }
    inner = {split: unwrap(*place) for split, place in outer.items()} if named else outer
    known = [inner["train"][0]] if "train" in inner else [node for node, _ in inner.values()]
    classes = tuple(sorted({name for node in known for name in node.folders}))
    _check_classes(tree, *inner.get("train", (top, prefix)), classes, bool(named))
    # A split of one class looks like a folder around others: the level whose names train knows is meant.
    places = {split: outer[split] if set(outer[split][0].folders) & set(classes) else inner[split] for split in inner}
    splits = {split: _split(tree, *places[split], classes, group) for split in SPLITS if split in places}
    return RawData(classes, splits, tree.bad, tuple(_notes(tree, top, named, [node for node, _ in places.values()])))


def _notes(tree: Tree, top: Node, named: dict[str, str], read: Sequence[Node]) -> list[str]:
    """What was left out."""
    notes = []
    beside = {name: node.count() for name, node in top.filled().items() if named and name not in named.values()}
    if beside:
        notes.append(f"{tree.where}: left out {_some(beside)}, as beside {', '.join(named.values())} it is no split")
    loose = sum(len(node.pictures) for node in [*read, *([top] if named else [])])
    if loose:
        notes.append(f"{tree.where}: left out {_pictures(loose)} in no class folder")
    if tree.endings:
        endings = ", ".join(f"{ending} {count:,}" for ending, count in tree.endings.most_common(_SHOWN))
        notes.append(f"{tree.where}: left out files that are no pictures by their endings ({endings})")
    return notes


def _split_folders(tree: Tree, top: Node) -> dict[str, str]:
    """Split to the name of its folder; empty where the folders are classes."""
    named = [(SPLIT_FOLDERS[n.lower()], n) for n in sorted(top.folders) if n.lower() in SPLIT_FOLDERS]
    named = [(split, name) for split, name in named if top.folders[name].folders]
    found = dict(named)
    if len(found) < len(named):
        names = ", ".join(name for _, name in named)
        raise DataError(f"{tree.where} has two folders for one split: {names}; keep one of each")
    # `train` alone may be a class of vehicles; without it, `val` and `test` are splits only where nothing is beside them.
    return found if "train" in found or len(found) == len(top.filled()) > 1 else {}


def _all_are_splits(names: Iterable[str]) -> bool:
    return all(name.lower() in SPLIT_FOLDERS for name in names)


def _check_classes(tree: Tree, node: Node, prefix: str, classes: tuple[str, ...], is_split: bool) -> None:
    where = f"{tree.where}/{prefix}".rstrip("/")
    if not classes:
        inside = f"; its {node.others[0]} may be what you mean: give that by itself" if node.others else ""
        raise DataError(f"{where} holds no class folders: put the pictures into {where}/<class>/{inside}")
    if not is_split and len(classes) > 1 and _all_are_splits(classes):
        raise DataError(
            f"{where} has {', '.join(classes)}, but no class folders in them: put the pictures into "
            f"{where}/{classes[-1]}/<class>/, or give a manifest with the columns path, label and split"
        )


def _split(tree: Tree, node: Node, prefix: str, classes: tuple[str, ...], group: str | None) -> RawSplit:
    for name in sorted(set(node.folders) - set(classes)):
        count = node.folders[name].count()
        if count:
            tree.bad[prefix + name] = (
                f"{tree.where}/{prefix}{name} ({_pictures(count)}) has the class '{name}', which the training images "
                f"lack{nearest(name, classes)}"
            )
    ids: list[str] = []
    pictures: list[Picture] = []
    labels: list[int] = []
    groups: list[str] = []
    grouping = _grouping(group)
    for label, name in enumerate(classes):
        if name not in node.folders:
            continue
        start = f"{prefix}{name}/"
        for image_id, picture in node.folders[name].walk(start):
            ids.append(image_id)
            pictures.append(picture)
            labels.append(label)
            if grouping is not None:
                groups.append(grouping(image_id, len(start), tree.where))
    return RawSplit(pictures, labels, ids, groups if grouping is not None else None)


def _grouping(group: str | None) -> Callable[[str, int, str], str] | None:
    """A function from an id, and where in it the path below the class begins, to the picture's group."""
    if group in (None, "none"):
        return None
    if group == "parent":
        return lambda image_id, start, where: image_id[start:].rpartition("/")[0] or image_id
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ConfigError(f"--group {group}: a folder takes parent, or a regular expression ({error})") from None

    def by_name(image_id: str, start: int, where: str) -> str:
        found = pattern.search(image_id.rpartition("/")[2])
        if found is None:
            raise ConfigError(
                f"--group {group}: as a regular expression it does not match {where}/{image_id}; a folder takes parent, "
                "or an expression that finds the group in every file's name"
            )
        return found.group(1) if pattern.groups else found.group()

    return by_name


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _some(counts: dict[str, int]) -> str:
    return some([f"{name} ({_pictures(count)})" for name, count in counts.items()], _SHOWN)
