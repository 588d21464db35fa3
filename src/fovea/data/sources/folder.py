"""A folder of class folders, flat or already split."""

from __future__ import annotations

import os
from pathlib import Path

from fovea.data.sources.manifest import from_table
from fovea.data.table import read_table
from fovea.data.tree import Node, Tree, by_folder, is_leftover, lone_table
from fovea.data.types import Picture, Place, RawData
from fovea.errors import DataError
from fovea.registry import source


@source
def folder(place: Place, path: str, columns: tuple[str, ...] = (), group: str | None = None) -> RawData:
    """Your own pictures: PATH/<class>/*, or PATH/{train,val,test}/<class>/*.

    A folder that holds nothing but another is looked through. What lies in folders below a class folder is of the class.
    Without class folders, the one table (CSV or Parquet) that lies in the folder says what its pictures are.
    """
    tree = scan(path)
    table = lone_table(tree)
    if table is None:
        return by_folder(tree, group)
    root = Path(path, table).parent
    return from_table(read_table(Path(path, table)), lambda text: _file(root, text), columns, group)


def scan(path: str) -> Tree:
    """Every folder and file below `path`, links followed, but never in a circle. Raises DataError."""
    tree = Tree(path.rstrip("/") or path)
    try:
        status = os.stat(path)
        _scan(tree, tree.where, "", tree.root, ((status.st_dev, status.st_ino),))
    except FileNotFoundError:
        raise DataError(f"no folder {path}") from None
    if "" in tree.bad:
        raise DataError(tree.bad[""])
    return tree


def _scan(tree: Tree, path: str, prefix: str, node: Node, above: tuple[tuple[int, int], ...]) -> None:
    try:
        with os.scandir(path) as entries:
            found = [entry for entry in entries if not is_leftover(entry.name)]
    except NotADirectoryError:
        raise DataError(f"{path} is no folder") from None
    except PermissionError:
        tree.bad[prefix.rstrip("/")] = f"{path}: no permission to read this folder"
        return
    except OSError as error:
        tree.bad[prefix.rstrip("/")] = f"{path}: {error.strerror}"
        return
    for entry in found:
        below = prefix + entry.name
        if not _is_text(entry.name):
            shown = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            tree.bad[prefix + shown] = f"{path}/{shown}: its name is no UTF-8"
            continue
        try:
            is_folder, is_link = entry.is_dir(), entry.is_symlink()
            if not is_folder:
                # A link that leads nowhere is named when it is decoded; a pipe or a device is passed over.
                if (is_link or entry.is_file()) and tree.takes(node, entry.name):
                    node.pictures[entry.name] = Path(entry.path)
                continue
            status = entry.stat()
        except OSError as error:
            tree.bad[below] = f"{entry.path}: {error.strerror}"
            continue
        own = (status.st_dev, status.st_ino)
        if own in above:
            tree.bad[below] = f"{entry.path}: a link that leads back to a folder above it"
            continue
        inner = node.folders[entry.name] = Node()
        _scan(tree, entry.path, f"{below}/", inner, (*above, own))


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _file(root: Path, text: str) -> Picture | None:
    path = root / text
    return path if path.is_file() else None
