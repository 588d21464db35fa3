"""Classes that are too small, or far smaller than others."""

from __future__ import annotations

import math

from fovea.data.types import Dataset
from fovea.errors import some
from fovea.uses.health.finding import Finding, Severity

# Rules of thumb, not measurements.
_FEW, _VERY_FEW = 30, 10  # training images of a class
_FEW_HELD_OUT = 10  # images of a class in test: its accuracy is then known to ± 30 points at best
_UNEVEN, _VERY_UNEVEN = 3.0, 20.0  # images of the largest class for one of the smallest


def check_classes(dataset: Dataset) -> list[Finding]:
    """Few images, classes that a split lacks, imbalance."""
    classes = dataset.classes
    train = dataset.train.counts(len(classes))
    found = []
    few = [label for label, count in enumerate(train) if count < _FEW]
    if few:
        few.sort(key=lambda label: train[label])
        shown = some([f"{classes[label]} ({train[label]})" for label in few])
        severity: Severity = "serious" if train[few[0]] < _VERY_FEW else "warning"
        text = (
            f"{_classes(len(few))} with fewer than {_FEW} training images: {shown}; a network learns such images by "
            "heart; add pictures, start from a pretrained network, or leave the class out"
        )
        found.append(Finding("few images", severity, text))
    for name, split in dataset.splits.items():
        counts = split.counts(len(classes))
        scarce = [label for label, count in enumerate(counts) if count < _FEW_HELD_OUT]
        if name == "train" or not scarce:
            continue
        shown = some([f"{classes[label]} ({counts[label]})" for label in scarce])
        lacking = any(counts[label] == 0 for label in scarce)
        text = (
            f"{_classes(len(scarce))} with fewer than {_FEW_HELD_OUT} {name} images: {shown}; how well "
            f"{'it is' if len(scarce) == 1 else 'they are'} recognized stays nearly unknown; put more into {name}"
        )
        found.append(Finding(f"few {name} images", "warning" if lacking else "note", text))
    return found + _imbalance(dataset, train)


def _imbalance(dataset: Dataset, train: list[int]) -> list[Finding]:
    smallest, largest = min(train), max(train)
    ratio = largest / max(1, smallest)
    if ratio < _UNEVEN:
        return []
    classes, total = dataset.classes, sum(train)
    effective = math.exp(-sum(count / total * math.log(count / total) for count in train if count))  # perplexity
    measured = "test" if "test" in dataset.splits else "train"
    counts = dataset.splits[measured].counts(len(classes))
    biggest, least = classes[train.index(largest)], classes[train.index(smallest)]
    always = counts[train.index(largest)] / max(1, sum(counts))
    text = (
        f"{biggest} has {ratio:.1f} times the training images of {least} ({largest:,} and {smallest:,}): "
        f"{len(classes)} classes count as {effective:.1f}, always answering {biggest} is right in {100 * always:.0f} % of "
        f"{measured}, and accuracy hides how the small ones fare; look at balanced accuracy, and train with "
        "--balance loss or --balance sample"
    )
    return [Finding("imbalance", "serious" if ratio >= _VERY_UNEVEN else "warning", text)]


def _classes(number: int) -> str:
    return "1 class" if number == 1 else f"{number} classes"
