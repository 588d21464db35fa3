"""How good a classifier is, from its logits; every share comes with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

METRICS_KEYS = (
    "accuracy", "accuracy_interval", "num_images", "loss", "per_class", "confusion", "classes", "split", "views",
)  # fmt: skip
Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point
_TOP = (2, 3, 4, 5)
_RESAMPLES = 1000  # of the bootstrap: its ends then vary by about a fiftieth of the interval (Efron & Tibshirani 1993)
_UNEQUAL = 1.5  # the largest class has so many times the images of the smallest: below, both accuracies nearly agree


def wilson_interval(num_correct: float, num_images: float) -> tuple[float, float]:
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


def f1_interval(num_correct: int, num_involved: int) -> tuple[float, float]:
    """95 % interval of a class's F1; (0, 1) of no images.

    Among the images that are of the class or were called so, the share that are both is a plain share, J, and
    F1 = 2J / (1 + J) grows with it: the ends of its Wilson interval become those of F1.
    """
    low, high = wilson_interval(num_correct, num_involved)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def mean_interval(correct: Sequence[int], totals: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean of independent shares; those of no images are left out.

    Wilson's interval with the number of images that would give one share the variance of this mean (Korn & Graubard
    1998), the smaller of two estimates: from each share's own variance, and as if all shares were the mean, which
    does not vanish where all are 0 or 1. It held the true mean in 92 to 99 of 100 simulated splits (EXPERIMENTS.md).
    """
    known = [(k / n, n) for k, n in zip(correct, totals, strict=True) if n]
    if not known:
        return 0.0, 1.0
    mean = sum(share for share, _ in known) / len(known)
    number = len(known) ** 2 / sum(1 / n for _, n in known)
    variance = sum(share * (1 - share) / n for share, n in known) / len(known) ** 2
    if variance > 0:
        number = min(number, mean * (1 - mean) / variance)
    return wilson_interval(mean * number, number)


def compute_metrics(
    logits: Tensor, labels: Tensor, classes: Sequence[str], split: str, views: int = 1
) -> dict[str, Any]:
    """What metrics.json holds, but for what temperatures and thresholds add to it.

    Args:
        logits: `(N, K)` float.
        labels: `(N,)` int64.
        views: how many views of each image the logits average.
    """
    num_classes = logits.shape[1]
    confusion = torch.bincount(labels * num_classes + logits.argmax(dim=1), minlength=num_classes**2)
    confusion = confusion.view(num_classes, num_classes)  # rows: truth
    return {
        **plain_metrics(logits, labels),
        "num_images": len(labels),
        **class_metrics(confusion.tolist(), classes),
        "top_k": _top_k(logits, labels),
        "confusion": confusion.tolist(),
        "classes": list(classes),
        "split": split,
        "views": views,
    }


def plain_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """`accuracy` with its interval, and `loss`, the mean cross-entropy."""
    num_correct = int((logits.argmax(dim=1) == labels).sum())
    return {
        "accuracy": num_correct / len(labels),
        "accuracy_interval": list(wilson_interval(num_correct, len(labels))),
        "loss": F.cross_entropy(logits.double(), labels).item(),
    }


def class_metrics(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """`balanced_accuracy`, `macro_precision`, `macro_f1` with their intervals, and `per_class`: all from counts by truth and prediction.

    Macro averages are plain means over the classes; those that have no images in the split are left out.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    correct, support = counts.diagonal(), counts.sum(axis=1)
    recall, precision, f1 = _averages(correct, support, counts.sum(axis=0))
    balanced = list(mean_interval(correct.tolist(), support.tolist()))
    if int(correct.sum()) < int(counts.sum()):
        _, precisions, f1s = _averages(*_resampled(counts))
        macro = [np.quantile(values, (0.025, 0.975)).tolist() for values in (precisions, f1s)]
    else:  # without a mistake there is nothing to resample; all three means are 1 then
        macro = [balanced, balanced]
    return {
        "balanced_accuracy": float(recall),
        "balanced_accuracy_interval": balanced,
        "macro_precision": float(precision),
        "macro_precision_interval": macro[0],
        "macro_f1": float(f1),
        "macro_f1_interval": macro[1],
        "per_class": [_of_class(counts, row, name) for row, name in enumerate(classes)],
    }


def completed(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run older than some of them, with those that follow from its counts."""
    if "balanced_accuracy" in metrics:
        return metrics
    return {**metrics, **class_metrics(metrics["confusion"], metrics["classes"])}


def unequal(metrics: dict[str, Any]) -> bool:
    """Do the classes differ so much in size that accuracy speaks mostly of the large ones?"""
    sizes = [row["support"] for row in metrics["per_class"] if row["support"]]
    return bool(sizes) and max(sizes) >= _UNEQUAL * min(sizes)


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


def _top_k(logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """The share of images whose class is among the k with the highest logits, where there are more than k classes."""
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)  # how many classes stand before the true one
    found = []
    for k in _TOP:
        if k < logits.shape[1]:
            num_correct = int((ranks < k).sum())
            interval = list(wilson_interval(num_correct, len(labels)))
            found.append({"k": k, "accuracy": num_correct / len(labels), "interval": interval})
    return found


def _of_class(counts: NDArray[np.int64], row: int, name: str) -> dict[str, Any]:
    """In the field's terms a class's accuracy is its recall: the share of its images that were recognized."""
    correct, support, predicted = int(counts[row, row]), int(counts[row].sum()), int(counts[:, row].sum())
    recall = correct / support if support else 0.0
    recall_interval = list(wilson_interval(correct, support))
    return {
        "class": name,
        "accuracy": recall,
        "precision": correct / predicted if predicted else 0.0,
        "recall": recall,
        "f1": 2 * correct / (support + predicted) if support + predicted else 0.0,
        "support": support,
        "interval": recall_interval,
        "precision_interval": list(wilson_interval(correct, predicted)),
        "recall_interval": recall_interval,
        "f1_interval": list(f1_interval(correct, support + predicted - correct)),
    }


def _averages(
    correct: NDArray[np.int64], support: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Macro recall, precision and F1, `(...)` each, from counts of each class, `(..., K)`; of nothing they are 0."""
    there = support > 0
    num_classes = there.sum(axis=-1).clip(1)
    shares = (correct / support.clip(1), correct / predicted.clip(1), 2 * correct / (support + predicted).clip(1))
    return tuple((share * there).sum(axis=-1) / num_classes for share in shares)


def _resampled(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """`_averages`' counts, `(R, K)` each, of as many images drawn with replacement; the same ones each time."""
    truth, guess = counts.nonzero()
    numbers = counts[truth, guess]
    rounds = max(
        200, min(_RESAMPLES, 2_000_000 // len(numbers))
    )  # many classes, many cells: within a second all the same
    drawn = np.random.default_rng(0).multinomial(int(numbers.sum()), numbers / numbers.sum(), size=rounds)
    cells = np.arange(len(numbers))

    def summed(group: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        place = (cells[kept], group[kept])
        table = csr_array((np.ones(int(kept.sum()), dtype=np.int64), place), shape=(len(cells), len(counts)))
        return np.asarray(drawn @ table)

    everywhere = np.ones(len(cells), dtype=bool)
    return summed(truth, truth == guess), summed(truth, everywhere), summed(guess, everywhere)
