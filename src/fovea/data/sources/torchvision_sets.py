"""The data sets that torchvision knows, found or downloaded in its layout."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from fovea.data.types import Place, RawData, RawSplit
from fovea.errors import DataError
from fovea.registry import source

# plane and car: the short names of PyTorch's tutorial; the batches call them airplane and automobile.
CIFAR10_CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGIT_CLASSES = tuple(map(str, range(10)))


@source
def cifar10(place: Place) -> RawData:
    """CIFAR-10: 60,000 colour images of 32×32 pixels in 10 classes (Krizhevsky 2009)."""
    return _load(place, "cifar10", "CIFAR10", CIFAR10_CLASSES)


@source
def cifar100(place: Place) -> RawData:
    """CIFAR-100: 60,000 colour images of 32×32 pixels in 100 classes (Krizhevsky 2009)."""
    return _load(place, "cifar100", "CIFAR100")


@source
def mnist(place: Place) -> RawData:
    """MNIST: 70,000 handwritten digits of 28×28 pixels (LeCun et al. 1998)."""
    return _load(place, "mnist", "MNIST", DIGIT_CLASSES)


@source
def fashion_mnist(place: Place) -> RawData:
    """Fashion-MNIST: 70,000 pieces of clothing of 28×28 pixels in 10 classes (Xiao et al. 2017)."""
    return _load(place, "fashion-mnist", "FashionMNIST")


@source
def svhn(place: Place) -> RawData:
    """SVHN: 99,289 house-number digits of 32×32 pixels (Netzer et al. 2011)."""
    return _load(place, "svhn", "SVHN", DIGIT_CLASSES)


@dataclass(frozen=True)
class _Files:
    """What torchvision expects below a root: the files it reads, and the archives that it downloads."""

    needed: dict[str, str | None]  # relative path: md5, where one is published
    archives: dict[str, str]  # relative path: where it comes from


def _load(place: Place, name: str, class_name: str, classes: tuple[str, ...] | None = None) -> RawData:
    from torchvision import datasets

    kind = getattr(datasets, class_name)
    root = _find_or_download(place, name, kind)
    splits, found_classes = {}, classes
    for split in ("train", "test"):
        try:
            found = _open(kind, root, split)
        except Exception as error:  # the readers below torchvision raise whatever a damaged file makes them
            raise DataError(
                f"{name} in {root} cannot be read: {_one_line(error)}; delete its files and run again"
            ) from None
        labels = getattr(found, "labels", None) if class_name == "SVHN" else found.targets
        labels = torch.as_tensor(np.asarray(labels)).tolist()
        splits[split] = RawSplit(_as_nchw(found.data), labels, [f"{split}/{row}" for row in range(len(labels))])
        found_classes = found_classes or tuple(found.classes)
    assert found_classes is not None
    return RawData(found_classes, splits)


def _find_or_download(place: Place, name: str, kind: Any) -> Path:
    files = _files_of(kind)
    for root in place.candidates:
        if any((root / path).exists() for path in files.needed):
            _check_whole(name, root, files)
            return root
    # An archive that was put somewhere by hand is unpacked there; else it is downloaded into the cache.
    by_hand = [root for root in place.candidates if any((root / archive).exists() for archive in files.archives)]
    root = by_hand[0] if by_hand else place.candidates[-1]
    print(f"{name}: {'unpacking' if by_hand else 'downloading'} into {root}", file=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            for split in ("train", "test"):
                _open(kind, root, split, download=True)
    except (URLError, OSError, RuntimeError) as error:
        looked = ", ".join(str(c) for c in place.candidates)
        wanted = "; ".join(f"{root / path} (from {url})" for path, url in files.archives.items())
        raise DataError(
            f"{name} is in none of {looked}, and fetching it failed ({_one_line(error)}): put {wanted} in place, or set "
            "FOVEA_DATA to where it is; the data set `digits` needs no download"
        ) from None
    return root


def _open(kind: Any, root: Path, split: str, download: bool = False) -> Any:
    if kind.__name__ == "SVHN":
        return kind(root, split=split, download=download)
    return kind(root, train=split == "train", download=download)


def _files_of(kind: Any) -> _Files:
    if hasattr(kind, "train_list"):  # CIFAR
        base = kind.base_folder
        needed = dict([*kind.train_list, *kind.test_list])
        needed[kind.meta["filename"]] = kind.meta["md5"]
        return _Files({f"{base}/{path}": md5 for path, md5 in needed.items()}, {kind.filename: kind.url})
    if hasattr(kind, "resources"):  # MNIST and its like
        raw = f"{kind.__name__}/raw"
        archives = {f"{raw}/{path}": kind.mirrors[-1] + path for path, _ in kind.resources}
        return _Files({path.removesuffix(".gz"): None for path in archives}, archives)
    parts = [kind.split_list[split] for split in ("train", "test")]
    return _Files({path: md5 for _, path, md5 in parts}, {path: url for url, path, _ in parts})


def _check_whole(name: str, root: Path, files: _Files) -> None:
    from torchvision.datasets.utils import check_integrity

    for relative, md5 in files.needed.items():
        path = root / relative
        if not path.is_file():
            raise DataError(f"{name} in {root} lacks {path}: put it back, or delete {path.parent} to fetch it anew")
        if not (check_integrity(str(path), md5) if md5 else _idx_is_whole(path)):
            raise DataError(
                f"{path} is damaged: delete it and put a good copy there, or delete the folder to fetch it anew"
            )


def _idx_is_whole(path: Path) -> bool:
    """Has an IDX file the length that its header promises? (Magic: two zeros, the type, the number of dimensions.)"""
    with path.open("rb") as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
            return False
        header = file.read(4 * magic[3])
    if len(header) != 4 * magic[3]:
        return False
    sizes = np.frombuffer(header, dtype=">u4")
    return bool(path.stat().st_size == 4 + 4 * len(sizes) + math.prod(sizes.tolist()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _as_nchw(data: Any) -> Tensor:
    """Any of torchvision's layouts to contiguous `(N, C, H, W) uint8`."""
    images = torch.as_tensor(data)
    if images.ndim == 3:
        return images[:, None].contiguous()
    return images.permute(0, 3, 1, 2).contiguous() if images.shape[-1] == 3 else images.contiguous()
