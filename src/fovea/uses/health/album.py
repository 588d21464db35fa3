"""All images of a data set in one row, and what one pass over them measures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fovea.data.types import Dataset
from fovea.uses.health.cores import on_all_cores
from fovea.uses.health.descriptors import Descriptors, describe
from fovea.uses.health.finding import Seen

_CHUNK_VALUES = 2**22  # pixel values at a time on each core: 16 MB as float32, however large the images are
_GREY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
Tick = Callable[[int, str], None]  # how many images are done, and of what


@dataclass(frozen=True)
class Measures:
    """Of each image, in the album's order."""

    digests: list[bytes]  # of the pixels: equal images have equal ones
    brightness: Tensor  # (N,) float32, the mean grey level in [0, 1]
    contrast: Tensor  # (N,) its standard deviation
    sharpness: Tensor  # (N,) the Laplacian's mean square over the variance: low where blurred, high where noisy
    descriptors: Descriptors


class Album:
    """The splits of a data set one after the other; `row` counts through all of them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.names = list(dataset.splits)
        sizes = [len(split) for split in dataset.splits.values()]
        self._starts = [sum(sizes[:number]) for number in range(len(sizes))]
        self.split = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.labels = torch.cat([split.labels for split in dataset.splits.values()])

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row by id."""
        ids = [image_id for split in self.dataset.splits.values() for image_id in split.ids]
        return {image_id: row for row, image_id in enumerate(ids)}

    def pick(self, rows: Tensor) -> Tensor:
        """The images of some rows, `(B, C, H, W) uint8`."""
        store = next(iter(self.dataset.splits.values())).store
        images = torch.empty((len(rows), *store.shape[1:]), dtype=torch.uint8)
        for number, split in enumerate(self.dataset.splits.values()):
            here = (self.split[rows] == number).nonzero().flatten()
            if len(here):
                images[here] = split.pick(rows[here] - self._starts[number])
        return images

    def seen(self, row: int, note: str = "", **facts: Any) -> Seen:
        """What a finding says of an image."""
        number = int(self.split[row])
        split = self.dataset.splits[self.names[number]]
        label = self.dataset.classes[int(self.labels[row])]
        return Seen(split.ids[row - self._starts[number]], self.names[number], label, note, facts, row)

    def digests(self) -> list[bytes]:
        """Of the pixels of each image."""
        parts = on_all_cores(lambda rows: _digests(self.pick(rows)), self._chunks())
        return [digest for part in parts for digest in part]

    def measure(self, tick: Tick) -> Measures:
        """One pass over all images."""
        digests: list[bytes] = []
        figures, descriptors = [], []
        for hashed, measured, described in on_all_cores(lambda rows: _measure(self.pick(rows)), self._chunks()):
            digests += hashed
            figures.append(measured)
            descriptors.append(described)
            tick(len(digests), "looking at")
        brightness, contrast, sharpness = torch.cat(figures).unbind(1)
        return Measures(digests, brightness, contrast, sharpness, Descriptors.cat(descriptors))

    def _chunks(self) -> tuple[Tensor, ...]:
        """Rows in order, so many that their images take little memory."""
        values = next(iter(self.dataset.splits.values())).store[0].numel()
        return torch.split(torch.arange(len(self)), max(1, min(1000, _CHUNK_VALUES // values)))


def _measure(images: Tensor) -> tuple[list[bytes], Tensor, Descriptors]:
    return _digests(images), _figures(images), describe(images)


def _digests(images: Tensor) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.contiguous().numpy()]


def _figures(images: Tensor) -> Tensor:
    """Brightness, contrast and sharpness of `(B, C, H, W) uint8` images, `(B, 3)`."""
    grey = ((images.float() * _GREY).sum(1) if images.shape[1] == 3 else images[:, 0].float()) / 255
    middle = grey[:, 1:-1, 1:-1]
    laplacian = 4 * middle - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    variance, mean = torch.var_mean(grey, dim=(1, 2), correction=0)
    sharpness = laplacian.square().mean((1, 2)) / variance.clamp_min(1e-5)
    return torch.stack([mean, variance.sqrt(), sharpness], 1)
