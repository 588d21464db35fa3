"""Batches from images that stay on the device: no worker processes, no copies of single images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from fovea import registry
from fovea.augment.types import Augmentation, Draw, Mixed, mixes_labels
from fovea.data.balance import balanced_order
from fovea.data.hardest import Hardest
from fovea.data.preprocess import Preprocess, Standardize, to_unit
from fovea.data.types import Split
from fovea.errors import ConfigError

# Small batches are made several at a time, about this many pixels: at batch 4, what an operation costs does not depend
# on its size (EXPERIMENTS.md).
_CHUNK_PIXELS = 256 * 32 * 32


class Loader:
    """Cuts a split into batches, augments and standardizes them.

    The order and the augmentations of an epoch follow from the seed and the epoch's number alone, so a
    resumed run sees what an uninterrupted one would have seen.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, batch_size: int, device: torch.device, seed: int = 0,
        augment: Sequence[str] = (), shuffle: bool = False, num_classes: int | None = None, balanced: bool = False,
        hardest: Hardest | None = None,
    ) -> None:  # fmt: skip
        self._split = split if device.type == "cpu" or not _fits(split, device) else _moved(split, device)
        self._on_host = self._split.store.device.type == "cpu"
        self._labels = split.labels.to(device)
        self._preprocess = preprocess
        self.batch_size = batch_size
        self._device = device
        self._seed = seed
        self._augmentations = build_augmentations(augment)
        self._num_movers = num_movers(augment)
        self._num_classes = num_classes or 0
        mixer = mixing(augment)
        if mixer and batch_size == 1:
            raise ConfigError(f"{mixer} mixes the images of a batch: it needs a batch_size of 2 or more")
        if mixer and not num_classes:
            self._num_classes = int(split.labels.max()) + 1
        self._shuffle = shuffle
        self._balanced = balanced  # an epoch of as many images, but of all classes equally many
        self._hardest = hardest or Hardest(len(split), 1.0)

    def __len__(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-self.num_images // self.batch_size)

    @property
    def num_images(self) -> int:
        """Images in an epoch."""
        return self._hardest.num_chosen

    def order(self, epoch: int) -> Tensor:
        """Row numbers in the order in which epoch `epoch` (from 1) takes them, `(N,) int64` on the CPU."""
        if not self._shuffle:
            return torch.arange(len(self._labels))
        generator = self._generator(epoch, torch.device("cpu"))
        if self._balanced:
            return balanced_order(self._labels.cpu(), generator)
        return self._hardest.choose(torch.randperm(len(self._labels), generator=generator))

    def learn(self, epoch: int, losses: Tensor) -> None:
        """Tell it the losses of the images that `epoch` gave, `(M,)` on the CPU: those of large loss come again."""
        if self._hardest.leaves_out:
            self._hardest.learn(self.order(epoch)[: len(losses)], losses)

    def epoch(self, epoch: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(B, C, H, W) float32` standardized images and `(B,) int64` labels.

        Where an augmentation mixes labels, they are `(B, K) float32` probabilities.
        """
        generator = self._generator(epoch, self._device)
        standardize = self._preprocess.standardizer(self._device)
        finish = Standardize(self._preprocess, self._device)
        # Augmentations may mix the images of a batch: they see one at a time.
        pixels = self.batch_size * self._split.store.shape[2] * self._split.store.shape[3]
        together = 1 if self._augmentations else max(1, _CHUNK_PIXELS // pixels)
        for picked in torch.split(self.order(epoch), together * self.batch_size):
            rows = picked.to(self._device)
            images = self._images(picked if self._on_host else rows)
            times = self._hardest.times_shown(picked, epoch).to(self._device)
            draw = Draw(generator, times, rows, self._seed)
            labels = self._labels[rows]
            for augment in self._augmentations[: self._num_movers]:
                images = cast(Tensor, augment(images, draw))
            if self._num_movers == len(self._augmentations):
                images = finish(images)
            else:
                images = to_unit(images)
            for augment in self._augmentations[self._num_movers :]:
                changed = augment(images, draw)
                if isinstance(changed, Mixed):
                    images, labels = changed.images, changed.targets(labels, self._num_classes)
                else:
                    images = changed
            if self._num_movers < len(self._augmentations):
                images = standardize(images)
            yield from zip(torch.split(images, self.batch_size), torch.split(labels, self.batch_size), strict=True)

    def _images(self, rows: Tensor) -> Tensor:
        """`(B, C, H, W) uint8` on the device."""
        images = self._split.pick(rows)
        if self._on_host and self._device.type == "cuda":  # the copy goes on beside what the device computes
            return images.pin_memory().to(self._device, non_blocking=True)
        return images.to(self._device)

    def _generator(self, epoch: int, device: torch.device) -> torch.Generator:
        # An odd multiplier keeps (seed, epoch) pairs apart; the modulus keeps the seed within 63 bits.
        return torch.Generator(device).manual_seed((self._seed * 1_000_003 + epoch) % 2**63)


def _fits(split: Split, device: torch.device) -> bool:
    """Is there so much room on the device that the network will not miss what the images take?"""
    if device.type != "cuda":
        return True
    return len(split) * split.store[:1].numel() < torch.cuda.mem_get_info(device)[0] / 2


def _moved(split: Split, device: torch.device) -> Split:
    """The split with its images on the device, brought there some at a time."""
    store = torch.empty((len(split), *split.store.shape[1:]), dtype=torch.uint8, device=device)
    start = 0
    for images in split.chunks():
        store[start : start + len(images)] = images.to(device)
        start += len(images)
    return replace(split, store=store, rows=None)


def num_movers(specs: Sequence[str]) -> int:
    """How many of them, from the first on, only move pixels."""
    marked = [hasattr(registry.augmentation.bind(spec, num_given=2)[0], "moves_pixels") for spec in specs]
    return [*marked, False].index(False)


def build_augmentations(specs: Sequence[str]) -> list[Augmentation]:
    """`["mirror", "shift:2"]` to callables. Raises ConfigError, also where labels are mixed twice or not at the end."""
    built: list[Augmentation] = []
    mixer = ""
    for spec in specs:
        function, options = registry.augmentation.bind(spec, num_given=2)
        built.append(_with_options(function, options))
        name = spec.partition(":")[0]
        if mixer and mixes_labels(function):
            raise ConfigError(f"{mixer} and {name} both mix labels: choose one of them")
        if mixer:
            raise ConfigError(f"{mixer} mixes finished images: put it last, after {name}")
        mixer = name if mixes_labels(function) else ""
    return built


def mixing(specs: Sequence[str]) -> str:
    """The name of the augmentation that mixes labels, which is the last; empty where none does."""
    last = specs[-1] if specs else ""
    return last.partition(":")[0] if last and mixes_labels(registry.augmentation.bind(last, num_given=2)[0]) else ""


def _with_options(function: Callable[..., Tensor | Mixed], options: dict[str, object]) -> Augmentation:
    return lambda images, draw: function(images, draw, **options)
