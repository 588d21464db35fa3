"""What is in a data set, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea import files
from fovea.data.loader import Loader, mixing
from fovea.data.preprocess import Preprocess, statistics
from fovea.data.types import Dataset
from fovea.uses import grid, plots

_GRID_IMAGES = 32
_AUGMENTED_EPOCHS = 4


def inspect_data(dataset: Dataset) -> dict[str, Any]:
    """Classes, counts, sizes, modes, value ranges and statistics, as plain data."""
    mean, std = statistics(dataset.train)
    low = min(int(images.min()) for images in dataset.train.chunks())
    high = max(int(images.max()) for images in dataset.train.chunks())
    standardized = [
        (value / 255 - m) / s for m, s in zip(mean, std, strict=True) for value in (low, high)
    ]  # fmt: skip
    facts = dataset.facts
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "num_images": {name: len(split) for name, split in dataset.splits.items()},
        "per_class": {name: split.counts(len(dataset.classes)) for name, split in dataset.splits.items()},
        "split_by_fovea": list(dataset.held_out),
        "sizes": [{"width": w, "height": h, "num_images": n} for (w, h), n in facts.sizes.most_common()],
        "modes": dict(facts.modes.most_common()),
        "skipped": list(facts.skipped.values()),
        "image_size": list(dataset.image_size),
        "channels": dataset.channels,
        "range": {
            "stored": [low, high],
            "unit": [low / 255, high / 255],
            "rescaled": [low / 255 * 2 - 1, high / 255 * 2 - 1],
            "standardized": [min(standardized), max(standardized)],
        },
        "mean": list(mean),
        "std": list(std),
    }


def draw_inspection(dataset: Dataset, facts: dict[str, Any], out: Path, augment: Sequence[str] = ()) -> list[Path]:
    """Draw samples.png, balance.png and, with augmentations, augmented.png; write inspect.json; returns the pictures."""
    written = [out / "samples.png", out / "balance.png"]
    # What does not fit says so before anything is written.
    after, captions = augmented(dataset, augment) if augment else ([], [])
    draw_samples(written[0], dataset)
    plots.draw_balance(written[1], dataset.classes, facts["per_class"])
    if after:
        written.append(out / "augmented.png")
        grid.draw_images(written[2], torch.cat(after), captions, f"The same images through {', '.join(augment)}")
    files.write_json(out / "inspect.json", facts)
    return written


def augmented(dataset: Dataset, augment: Sequence[str]) -> tuple[list[Tensor], list[str]]:
    """The first images of the classes as `(N, C, H, W) uint8`: before, and as some epochs would see them.

    With a caption for each: the epoch, and where labels are mixed, the shares of its classes.
    """
    train = dataset.train
    firsts = [int((train.labels == label).nonzero()[0]) for label in range(len(dataset.classes))]
    rows = torch.tensor((firsts + list(range(grid.COLUMNS)))[: min(grid.COLUMNS, len(train))])
    few = train.take(rows)
    height, width = dataset.image_size
    unit = Preprocess((height, width), dataset.channels, (0.0,) * dataset.channels, (1.0,) * dataset.channels)
    num_classes = len(dataset.classes)
    loader = Loader(few, unit, len(few), torch.device("cpu"), augment=augment, num_classes=num_classes)
    shown, captions = [few.images], ["before"] * len(few)
    if mixing(augment):
        captions = [dataset.classes[label] for label in few.labels.tolist()]
    for epoch in range(1, _AUGMENTED_EPOCHS + 1):
        images, labels = next(loader.epoch(epoch))
        shown.append(images.mul(255).round().to(torch.uint8))
        captions += [_shares(row, dataset.classes) if labels.ndim == 2 else f"epoch {epoch}" for row in labels]
    return shown, captions


def _shares(target: Tensor, classes: Sequence[str]) -> str:
    """`cat 70 %` over `dog 30 %`, of `(K,)` probabilities."""
    top = target.topk(min(2, len(target)))
    pairs = zip(top.values.tolist(), top.indices.tolist(), strict=True)
    return "\n".join(f"{classes[k]} {100 * share:.0f} %" for share, k in pairs if share > 0.005)


def draw_samples(path: Path, dataset: Dataset) -> None:
    """Training images, the classes in turn, each with its label."""
    train = dataset.train
    by_class = [(train.labels == label).nonzero().flatten().tolist() for label in range(len(dataset.classes))]
    rows: list[int] = []
    turn = 0
    while len(rows) < min(_GRID_IMAGES, len(train)):
        rows += [found[turn] for found in by_class if turn < len(found)]
        turn += 1
    picked = train.take(torch.tensor(rows[:_GRID_IMAGES]))
    captions = [dataset.classes[label] for label in picked.labels.tolist()]
    grid.draw_images(path, picked.images, captions, f"Training images of {dataset.name}")
