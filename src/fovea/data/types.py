"""What sources yield and what training uses."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fovea.config import DataConfig

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Place:
    """Where a source may look for files and put downloads: directories in order, the last one for downloads."""

    candidates: tuple[Path, ...]


@dataclass(frozen=True)
class RawSplit:
    """One split as a source yields it: an array `(N, C, H, W) uint8`, or paths that are still to be decoded."""

    images: Tensor | Sequence[Path]
    labels: Sequence[int]
    ids: Sequence[str]  # what a person would call each image: a relative path, or `test/17`


@dataclass(frozen=True)
class RawData:
    """What a source yields. Where there is no `test`, one is split from `train`."""

    classes: tuple[str, ...]
    splits: dict[str, RawSplit]


@dataclass(frozen=True)
class Split:
    """Decoded images of one split."""

    images: Tensor  # (N, C, H, W) uint8, 0 to 255
    labels: Tensor  # (N,) int64
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> Split:
        """The given rows as a split of their own."""
        return Split(self.images[rows], self.labels[rows], tuple(self.ids[i] for i in rows.tolist()))

    def counts(self, num_classes: int) -> list[int]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()

    def fingerprint(self) -> int:
        """A checksum of pixels and labels: has the data changed since?"""
        return zlib.crc32(self.labels.numpy().data, zlib.crc32(self.images.contiguous().numpy().data))


@dataclass
class FileFacts:
    """What was found while decoding, before anything was resized."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height)
    modes: Counter[str] = field(default_factory=Counter)  # Pillow's names: L, RGB, RGBA, P, CMYK, ...
    skipped: dict[str, str] = field(default_factory=dict)  # path: why it cannot be decoded


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for training."""

    config: DataConfig
    classes: tuple[str, ...]
    splits: dict[str, Split]
    facts: FileFacts
    held_out: dict[str, list[str]]  # ids of the splits that Fovea made itself (none where the data came split)

    @property
    def name(self) -> str:
        """`cifar10`, or a folder as the user wrote it."""
        return self.config.name

    @property
    def train(self) -> Split:
        """The images to learn from."""
        return self.splits["train"]

    @property
    def channels(self) -> int:
        """1 (grayscale) or 3 (RGB)."""
        return self._any.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self._any.images.shape[2:]
        return height, width

    @property
    def _any(self) -> Split:
        return next(iter(self.splits.values()))

    def __str__(self) -> str:
        parts = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        height, width = self.image_size
        return f"{self.name}: {len(self.classes)} classes, {parts}, {width}×{height} pixels, {self.channels} channels"
