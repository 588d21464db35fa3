"""What sources yield and what training uses."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fovea.config import DataConfig

SPLITS = ("train", "val", "test")
CHUNK_BYTES = 8 << 20  # of images that are looked at together: counting values takes ten times that in memory


@dataclass(frozen=True)
class Place:
    """Where a source may look for files and put downloads: directories in order, the last one for downloads."""

    candidates: tuple[Path, ...]


class Picture(Protocol):
    """A picture's file, wherever it lies: a path, or a member of an archive. `str()` names it in messages."""

    def read_bytes(self) -> bytes:
        """The whole file. Raises OSError."""


@dataclass(frozen=True)
class RawSplit:
    """One split as a source yields it: an array `(N, C, H, W) uint8`, or pictures that are still to be decoded."""

    images: Tensor | Sequence[Picture]
    labels: Sequence[int]
    ids: Sequence[str]  # what a person would call each image: a relative path, or `test/17`
    groups: Sequence[str] | None = None  # images of one group stay on one side of every split


@dataclass(frozen=True)
class RawData:
    """What a source yields. Where there is no `test`, one is split from `train`."""

    classes: tuple[str, ...]
    splits: dict[str, RawSplit]
    bad: Mapping[str, str] = field(default_factory=dict)  # what had to be left out, by id, row or path, and why
    notes: tuple[str, ...] = ()  # what was left out with good reason


@dataclass(frozen=True)
class Split:
    """Decoded images of one split. Splits of one data set may share a store, which may be mapped from a file."""

    store: Tensor  # (M, C, H, W) uint8, 0 to 255
    labels: Tensor  # (N,) int64
    ids: tuple[str, ...]
    rows: Tensor | None = None  # (N,) int64: which images of the store are this split's, in order; None: all

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """All of them, `(N, C, H, W) uint8`: a copy where the store is shared. What may be large goes by `pick`."""
        return self.store if self.rows is None else self.store[self.rows]

    def pick(self, rows: Tensor) -> Tensor:
        """The images of some rows, `(B, C, H, W) uint8`: of a mapped store, only these are read."""
        rows = rows if self.rows is None else self.rows[rows]
        if self.store.device.type == "cpu":  # PyTorch shares this out among threads that then wait for each other
            return torch.from_numpy(self.store.numpy().take(rows.numpy(), axis=0))
        return self.store.index_select(0, rows)

    def take(self, rows: Tensor) -> Split:
        """The given rows as a split of their own, on the same store."""
        ids = tuple(self.ids[i] for i in rows.tolist())
        return Split(self.store, self.labels[rows], ids, rows if self.rows is None else self.rows[rows])

    def chunks(self) -> Iterator[Tensor]:
        """All images in order, `(B, C, H, W) uint8`, some megabytes at a time."""
        size = max(1, CHUNK_BYTES // max(1, self.store[:1].numel()))
        return (self.pick(rows) for rows in torch.split(torch.arange(len(self)), size))

    def counts(self, num_classes: int) -> list[int]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()

    def fingerprint(self) -> int:
        """A checksum of pixels and labels: has the data changed since?"""
        checksum = zlib.crc32(self.labels.numpy().data)
        for images in self.chunks():
            checksum = zlib.crc32(images.contiguous().numpy().data, checksum)
        return checksum


@dataclass(frozen=True)
class FileFact:
    """One picture's file, before anything was resized."""

    width: int
    height: int
    mode: str  # Pillow's name: L, RGB, RGBA, P, CMYK, ...
    digest: str  # of the file's bytes: equal files have equal ones


@dataclass
class FileFacts:
    """What was found while decoding, before anything was resized."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height)
    modes: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)  # id: why it cannot be decoded
    files: dict[str, FileFact] = field(default_factory=dict)  # by id; empty where the data came decoded
    notes: list[str] = field(default_factory=list)  # what was decided on the way: one line each, for the log


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for training."""

    config: DataConfig
    classes: tuple[str, ...]
    splits: dict[str, Split]
    facts: FileFacts
    held_out: dict[str, list[str]]  # ids of the splits that Fovea made itself (none where the data came split)
    groups: Mapping[str, str] = field(default_factory=dict)  # id: group; images of one group stay on one side

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
        return self._any.store.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self._any.store.shape[2:]
        return height, width

    @property
    def _any(self) -> Split:
        return next(iter(self.splits.values()))

    def __str__(self) -> str:
        parts = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        height, width = self.image_size
        return f"{self.name}: {len(self.classes)} classes, {parts}, {width}×{height} pixels, {self.channels} channels"
