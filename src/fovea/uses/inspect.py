"""What is in a data set, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fovea import files
from fovea.data.preprocess import statistics
from fovea.data.types import Dataset
from fovea.uses import plots

_GRID_IMAGES = 32


def inspect_data(dataset: Dataset) -> dict[str, Any]:
    """Classes, counts, sizes, modes, value ranges and statistics, as plain data."""
    mean, std = statistics(dataset.train.images)
    low, high = (int(f(dataset.train.images)) for f in (torch.min, torch.max))
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


def draw_inspection(dataset: Dataset, facts: dict[str, Any], out: Path) -> list[Path]:
    """Draw samples.png and balance.png and write inspect.json into `out`."""
    samples, balance = out / "samples.png", out / "balance.png"
    draw_samples(samples, dataset)
    plots.draw_balance(balance, dataset.classes, facts["per_class"])
    files.write_json(out / "inspect.json", facts)
    return [samples, balance, out / "inspect.json"]


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
    plots.draw_images(path, picked.images, captions, f"Training images of {dataset.name}")
