"""From a picture in any file to what a model takes; saved with each model, so that predicting repeats it exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fovea.config import Resize
from fovea.data.decode import Fit, decode_image
from fovea.data.types import Split
from fovea.errors import DataError

_BLOCK = 1 << 16  # floats: 256 kB, half of a core's second-level cache


@dataclass(frozen=True)
class Preprocess:
    """How pictures become tensors: decode, resize, rescale, standardize."""

    image_size: tuple[int, int]  # height, width
    channels: int  # 1 or 3
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    resize: Resize = "crop"  # an earlier run, which does not name it, cut the middle out

    def decode(self, path: Path) -> Tensor:
        """One picture as `(C, H, W) uint8`. Raises DataError naming the file."""
        return decode_image(path, Fit(self.image_size, self.channels, self.resize))

    def standardizer(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """A function from `(B, C, H, W)` float32 in [0, 1] to `(x - mean) / std`, in place."""
        shape = (1, self.channels, 1, 1)
        mean = torch.tensor(self.mean, device=device).view(shape)
        std = torch.tensor(self.std, device=device).view(shape)
        return lambda images: images.sub_(mean).div_(std)

    def to_json(self) -> dict[str, Any]:
        """What model.json holds."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Preprocess:
        """Undo `to_json`. Raises KeyError, TypeError or ValueError where a part is missing or no number."""
        height, width = map(int, value["image_size"])
        mean, std = (tuple(map(float, value[name])) for name in ("mean", "std"))
        resize = value.get("resize", "crop")
        if resize not in get_args(Resize):
            raise ValueError(f"resize {resize}")
        return Preprocess((height, width), int(value["channels"]), mean, std, resize)


class Standardize:
    """`(B, C, H, W) uint8` to `(x / 255 - mean) / std` float32, bit for bit as `to_unit` and `standardizer` do it.

    On a CPU, block by block: each goes through all four operations while it is in a core's cache, where whole batches
    would travel to memory and back for every one (benchmarks/folder.md). By NumPy, whose threads, unlike PyTorch's, do
    not wait for each other at every operation.
    """

    def __init__(self, preprocess: Preprocess, device: torch.device) -> None:
        self._whole = preprocess.standardizer(device)
        self._mean, self._std = (np.array(each, np.float32) for each in (preprocess.mean, preprocess.std))
        self._blockwise = device.type == "cpu"
        self._num_threads = torch.get_num_threads()

    def __call__(self, images: Tensor) -> Tensor:
        """Leaves `images` as they are."""
        if not self._blockwise or images.numel() < 2 * _BLOCK:
            return self._whole(to_unit(images))
        result = torch.empty(images.shape)
        pixels, values = images.numpy(), result.numpy()
        step = max(1, _BLOCK // (images.shape[2] * images.shape[3]))

        def work(start: int, stop: int) -> None:
            for first in range(start, stop, step):
                block = slice(first, min(first + step, stop))
                for channel, (mean, std) in enumerate(zip(self._mean, self._std, strict=True)):
                    part = values[block, channel]
                    np.copyto(part, pixels[block, channel])
                    np.divide(part, np.float32(255), out=part)
                    np.subtract(part, mean, out=part)
                    np.divide(part, std, out=part)

        bounds = [len(pixels) * share // self._num_threads for share in range(self._num_threads + 1)]
        own, *rest = itertools.pairwise(bounds)
        others = [_threads().submit(work, *pair) for pair in rest]
        work(*own)
        for other in others:
            other.result()
        return result


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor()


def to_unit(images: Tensor) -> Tensor:
    """`uint8` 0 to 255 to float32 0 to 1, as torchvision's ToTensor does it."""
    return images.float().div_(255)


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of a split's images, in units of [0, 1]."""
    # Counting the 256 values is exact, and needs no float copy of the images.
    counts = torch.zeros(split.store.shape[1], 256, dtype=torch.float64)
    for part in split.chunks():
        for channel, values in enumerate(part.unbind(1)):
            rows = values.reshape(len(part), -1).contiguous().numpy()
            counts[channel] += torch.tensor(Image.fromarray(rows).histogram())  # six times as fast as bincount
    counts /= counts[0].sum()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = counts @ values
    variance = (counts @ values.square() - mean.square()).clamp_(min=0)
    # A constant channel has no spread to divide by.
    std = torch.where(variance > 1e-12, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(std.tolist())


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files, folders (all files below them) and globs to files. Raises DataError for one that matches nothing."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = list_files(path)
            if not files:
                raise DataError(f"{pattern}: the folder holds no files")
        elif path.exists():
            files = [path]
        else:
            start = Path(path.anchor) if path.is_absolute() else Path()
            try:
                files = sorted(p for p in start.glob(str(path.relative_to(path.anchor))) if p.is_file())
            except ValueError as error:
                raise DataError(f"{pattern}: no pattern that names files ({error})") from None
            if not files:
                raise DataError(f"{pattern}: no such file, folder or match")
        found += files
    return found


def list_files(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted, without hidden ones and those that file managers leave."""
    # A link that leads nowhere counts as a file, so that it is named rather than passed over.
    found = (p for p in folder.rglob("*") if p.is_file() or (p.is_symlink() and not p.exists()))
    files = (p for p in found if p.name not in ("Thumbs.db", "desktop.ini"))
    return sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))
