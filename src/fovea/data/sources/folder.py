"""A folder of class folders, flat or already split."""

from pathlib import Path

from fovea.data.preprocess import list_files
from fovea.data.types import Place, RawData, RawSplit
from fovea.errors import DataError
from fovea.registry import source

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@source
def folder(place: Place, path: str) -> RawData:
    """Your own pictures: PATH/<class>/*, or PATH/{train,val,test}/<class>/*."""
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"no folder {path}")
    folders = _folders(root)
    named = [(SPLIT_FOLDERS[f.name.lower()], f) for f in folders if f.name.lower() in SPLIT_FOLDERS and _folders(f)]
    split_folders = dict(named)
    if len(split_folders) < len(named):
        raise DataError(
            f"{path} has two folders for one split: {', '.join(f.name for _, f in named)}; keep one of each"
        )
    if "train" not in split_folders:  # also where `train` is a class: it holds no class folders
        split_folders = {"train": root}
    classes = tuple(f.name for f in _folders(split_folders["train"]))
    if not classes:
        raise DataError(f"{split_folders['train']} holds no class folders: put the pictures into {path}/<class>/")
    return RawData(classes, {name: _split(root, place, classes) for name, place in split_folders.items()})


def _split(root: Path, folder: Path, classes: tuple[str, ...]) -> RawSplit:
    unknown = [f.name for f in _folders(folder) if f.name not in classes]
    if unknown:
        raise DataError(f"{folder} has the class '{unknown[0]}', which the training images lack")
    files = [(file, label) for label, name in enumerate(classes) for file in list_files(folder / name)]
    return RawSplit(
        [file for file, _ in files],
        [label for _, label in files],
        [file.relative_to(root).as_posix() for file, _ in files],
    )


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
