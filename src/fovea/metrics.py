"""How good a classifier is, from its logits; every share comes with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

METRICS_KEYS = (
    "accuracy", "accuracy_interval", "num_images", "loss", "per_class", "confusion", "classes", "split", "views",
)  # fmt: skip
Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95 % interval of a share, 0 to 1 (Wilson 1927); (0, 1) of no images."""
    if not num_images:
        return 0.0, 1.0
    share = num_correct / num_images
    z2 = Z_95**2 / num_images
    centre = (share + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(share * (1 - share) / num_images + z2 / (4 * num_images))
    # The ends are exactly 0 and 1 there; rounding must not leave the range.
    low = 0.0 if num_correct == 0 else centre - half
    high = 1.0 if num_correct == num_images else centre + half
    return low, high


def compute_metrics(
    logits: Tensor, labels: Tensor, classes: Sequence[str], split: str, views: int = 1
) -> dict[str, Any]:
    """Everything that metrics.json holds.

    Args:
        logits: `(N, K)` float.
        labels: `(N,)` int64.
        views: how many views of each image the logits average.
    """
    num_images, num_classes = logits.shape
    predictions = logits.argmax(dim=1)
    confusion = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = confusion.view(num_classes, num_classes)  # rows: truth
    num_correct = int(confusion.diagonal().sum())
    return {
        "accuracy": num_correct / num_images,
        "accuracy_interval": list(wilson_interval(num_correct, num_images)),
        "num_images": num_images,
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "per_class": [_class_metrics(confusion, row, name) for row, name in enumerate(classes)],
        "confusion": confusion.tolist(),
        "classes": list(classes),
        "split": split,
        "views": views,
    }


def most_confused(metrics: dict[str, Any], count: int = 10) -> list[tuple[str, str, int]]:
    """(truth, prediction, images) of the largest counts off the diagonal."""
    classes = metrics["classes"]
    pairs = [
        (classes[truth], classes[prediction], number)
        for truth, row in enumerate(metrics["confusion"])
        for prediction, number in enumerate(row)
        if truth != prediction and number
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def _class_metrics(confusion: Tensor, row: int, name: str) -> dict[str, Any]:
    """In the field's terms a class's accuracy is its recall: the share of its images that were recognized."""
    correct = int(confusion[row, row])
    support = int(confusion[row].sum())
    predicted = int(confusion[:, row].sum())
    recall = correct / support if support else 0.0
    precision = correct / predicted if predicted else 0.0
    return {
        "class": name,
        "accuracy": recall,
        "precision": precision,
        "recall": recall,
        "f1": 2 * correct / (support + predicted) if support + predicted else 0.0,
        "support": support,
        "interval": list(wilson_interval(correct, support)),
    }
