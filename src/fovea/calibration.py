"""What a probability is worth: temperature, calibration error, and when to say "I don't know".

calibration.json     of a run: the temperature and the thresholds, chosen on val
reliability.csv      of an evaluation: how often the classifier was right, by how sure it was
coverage.csv         of an evaluation: how often it was right among those that it was surest of
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from fovea import files
from fovea.errors import RunError
from fovea.metrics import wilson_interval
from fovea.run import Run, read_text

NUM_BINS = 15  # of the calibration error (Guo et al. 2017)
TARGETS = (0.9, 0.95, 0.99)  # accuracy among the answered images, for which thresholds are sought
RELIABILITY_COLUMNS = (
    "temperature", "low", "high", "num_images", "confidence", "accuracy", "accuracy_low", "accuracy_high",
)  # fmt: skip
COVERAGE_COLUMNS = ("coverage", "threshold", "accuracy", "accuracy_low", "accuracy_high")
_RANGE = (math.log(0.05), math.log(20))  # of the temperature: beyond, every answer is as good as certain, or a guess
_LIKELY = 1.9207294103470617  # half the 95 % point of chi-squared with one degree of freedom (Wilks 1938)
_RESAMPLES = 1000
_CURVE_POINTS = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """The lowest confidence above which, on val, enough answers were right."""

    target: float  # accuracy among the answered
    threshold: float | None  # None: no threshold reaches the target
    coverage: float | None = None  # the share of val images answered
    accuracy: float | None = None  # among them


@dataclass(frozen=True)
class Calibration:
    """What val says about a run's probabilities; of a run without val or older than this: nothing."""

    temperature: float = 1.0  # logits are divided by it before they become probabilities
    temperature_interval: tuple[float, float] | None = None
    num_images: int = 0  # of val
    accuracy: float | None = None  # on val
    loss_before: float | None = None
    loss: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    note: str = "the run is older than calibration; `fovea evaluate` adds it"  # why there is no temperature

    @property
    def auto(self) -> Threshold | None:
        """The threshold for the first target above the accuracy on val, or else the last; None where it is out of reach."""
        if self.accuracy is None:
            return None
        better = [found for found in self.thresholds if found.target > self.accuracy] or [
            found for found in reversed(self.thresholds) if found.threshold is not None
        ]
        return better[0] if better and better[0].threshold is not None else None

    def save(self, folder: Path) -> None:
        """Write calibration.json."""
        files.write_json(folder / "calibration.json", asdict(self))


def read_calibration(run: Run) -> Calibration:
    """What calibration.json holds; temperature 1 for a run without. Raises RunError where it is damaged."""
    path = run.path / "calibration.json"
    if not path.is_file():
        return Calibration()
    try:
        value = json.loads(read_text(path))
        thresholds = tuple(Threshold(**found) for found in value.pop("thresholds"))
        interval = value.pop("temperature_interval")
        found = Calibration(**value, temperature_interval=interval and tuple(interval), thresholds=thresholds)
        if not found.temperature > 0:
            raise ValueError(f"temperature {found.temperature}")
        return found
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}): restore it, or let `fovea evaluate {run.path}` write it"
        ) from None


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Temperature and thresholds from val: `(N, K)` float logits of the weights that are kept, `(N,)` int64 labels.

    Where val holds no mistake the temperature stays 1: the less, the likelier would val be, without end.
    """
    temperature, interval = fit_temperature(logits, labels)
    note = ""
    if bool((logits.argmax(dim=1) == labels).all()):
        temperature, note = 1.0, f"the {len(labels):,} val images hold no mistake to learn a temperature from"
    confidence, correct = confidences(logits, labels, temperature)
    return Calibration(
        temperature=temperature,
        temperature_interval=interval,
        num_images=len(labels),
        accuracy=float(correct.mean()),
        loss_before=F.cross_entropy(logits.double(), labels).item(),
        loss=F.cross_entropy(logits.double() / temperature, labels).item(),
        thresholds=tuple(choose_threshold(confidence, correct, target) for target in TARGETS),
        note=note,
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> tuple[float, tuple[float, float]]:
    """The number that logits are best divided by, and its 95 % interval, both from 0.05 to 20.

    It minimizes the cross-entropy on val, and changes no prediction (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"). The interval holds all temperatures that are not significantly less likely (Wilks 1938).
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), labels, reduction="sum").item()

    found = optimize.minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-5})
    best, least = float(found.x), float(found.fun)

    def end(limit: float) -> float:
        def above(place: float) -> float:
            return loss(place) - least - _LIKELY

        return limit if above(limit) <= 0 else float(optimize.brentq(above, best, limit, xtol=1e-3))

    return math.exp(best), (math.exp(end(_RANGE[0])), math.exp(end(_RANGE[1])))


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """`(N, K)` float64 from logits of the same shape."""
    return F.softmax(logits.double() / temperature, dim=1)


def confidences(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Floats, Floats]:
    """`(N,)` each: the probability of the prediction, and 1 where it is right, 0 where it is wrong."""
    best = probabilities(logits, temperature).max(dim=1)
    return best.values.numpy(), (best.indices == labels).double().numpy()


def choose_threshold(confidence: Floats, correct: Floats, target: float) -> Threshold:
    """The lowest threshold at and above which the share of right answers reaches `target`.

    At least 1 / (1 - target) images must be answered: of fewer, all would have to be right, and that says too little.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    answered = np.arange(1, len(ranked) + 1)
    accuracy = np.cumsum(correct[order]) / answered
    # Equal confidences are answered together, or not at all.
    ends = np.append(ranked[:-1] > ranked[1:], True)
    good = np.flatnonzero(ends & (accuracy >= target) & (answered >= round(1 / (1 - target))))
    if not len(good):
        return Threshold(target, None)
    last = int(good[-1])
    threshold = 0.0 if last == len(ranked) - 1 else float(ranked[last])
    return Threshold(target, threshold, (last + 1) / len(ranked), float(accuracy[last]))


def trust_metrics(logits: Tensor, labels: Tensor, calibration: Calibration) -> dict[str, Any]:
    """What metrics.json holds of probabilities: `calibration` (with its figures before) and `thresholds`."""
    before = _calibration_error(*confidences(logits, labels, 1.0))
    confidence, correct = confidences(logits, labels, calibration.temperature)
    after = before if calibration.temperature == 1 else _calibration_error(confidence, correct)
    loss = F.cross_entropy(logits.double() / calibration.temperature, labels).item()
    given = [_given(confidence, correct, chosen) for chosen in calibration.thresholds]
    ends = calibration.temperature_interval
    temperature = {
        "temperature": calibration.temperature, "temperature_interval": list(ends) if ends else None,
        "note": calibration.note, "loss": loss,
    }  # fmt: skip
    auto = calibration.auto.target if calibration.auto else None
    return {
        "calibration": {**temperature, **after, "before": before}, "thresholds": given, "auto_target": auto,
    }  # fmt: skip


def write_curves(folder: Path, logits: Tensor, labels: Tensor, temperature: float) -> None:
    """Write reliability.csv and coverage.csv."""
    rows: list[Sequence[Any]] = []
    for value in dict.fromkeys((1.0, temperature)):
        rows += [(value, *row) for row in reliability(*confidences(logits, labels, value))]
    files.write_csv(folder / "reliability.csv", RELIABILITY_COLUMNS, rows)
    curve = coverage_curve(*confidences(logits, labels, temperature))
    files.write_csv(folder / "coverage.csv", COVERAGE_COLUMNS, curve)


def reliability(confidence: Floats, correct: Floats) -> list[tuple[float, ...]]:
    """A row a bin that holds images: its ends, images, mean confidence, accuracy and the ends of its 95 % interval."""
    bins = _equal_width(confidence)
    rows: list[tuple[float, ...]] = []
    for k in np.unique(bins):
        inside = bins == k
        number, right = int(inside.sum()), int(correct[inside].sum())
        ends = (k / NUM_BINS, (k + 1) / NUM_BINS)
        mean = float(confidence[inside].mean())
        rows.append((*ends, number, mean, right / number, *wilson_interval(right, number)))
    return rows


def coverage_curve(confidence: Floats, correct: Floats) -> list[tuple[float, ...]]:
    """Rows of coverage.csv: accuracy among the 1 %, 2 %, ... of images that the classifier was surest of.

    El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification", call 1 - accuracy the risk.
    """
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum(correct[order])
    numbers = sorted({math.ceil(len(order) * point / _CURVE_POINTS) for point in range(1, _CURVE_POINTS + 1)})
    return [
        (
            n / len(order),
            float(confidence[order[n - 1]]),
            float(right[n - 1]) / n,
            *wilson_interval(int(right[n - 1]), n),
        )
        for n in numbers
    ]


def _given(confidence: Floats, correct: Floats, chosen: Threshold) -> dict[str, Any]:
    """What a threshold gives on these images."""
    answered = confidence >= chosen.threshold if chosen.threshold is not None else np.zeros(len(confidence), dtype=bool)
    number, right = int(answered.sum()), int(correct[answered].sum())
    return {
        "target": chosen.target,
        "threshold": chosen.threshold,
        "num_answered": number,
        "coverage": number / len(confidence),
        "coverage_interval": list(wilson_interval(number, len(confidence))),
        "accuracy": right / number if number else None,
        "accuracy_interval": list(wilson_interval(right, number)),
    }


def _calibration_error(confidence: Floats, correct: Floats) -> dict[str, Any]:
    """Expected calibration error (Guo et al. 2017) over bins of equal width, and of equal numbers of images.

    `ece_by_chance` is what perfect probabilities would show on so few images (Bröcker & Smith 2007): no less can be
    measured. `ece_interval` is a seeded bootstrap's, corrected for its bias, as a resampled error is larger than the one
    that it comes from (the "basic" interval of Davison & Hinkley 1997, section 5.2). Where chance explains the error, it
    reaches from 0 to the largest that resampling shows: EXPERIMENTS.md has how often each kind held the true error.
    """
    bins, gaps = _equal_width(confidence), correct - confidence
    error = _binned_error(bins, gaps)
    # Equal numbers: the surest images no longer share one bin.
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(max(200, min(_RESAMPLES, 2_000_000 // len(gaps)))):  # large splits cost more, and need fewer
        rows = random.integers(len(gaps), size=len(gaps))
        resampled.append(_binned_error(bins[rows], gaps[rows]))
    by_chance = [_binned_error(bins, (random.random(len(gaps)) < confidence) - confidence) for _ in range(200)]
    least, most = (float(end) for end in np.quantile(resampled, (0.025, 0.975)))
    luck = error <= np.quantile(by_chance, 0.975)
    return {
        "ece": error,
        "ece_interval": [0.0, most] if luck else [max(0.0, 2 * error - most), max(2 * error - least, error)],
        "adaptive_ece": _binned_error(ranks * NUM_BINS // len(ranks), gaps),
        "ece_by_chance": float(np.mean(by_chance)),
    }


def _equal_width(confidence: Floats) -> NDArray[np.int64]:
    return (np.ceil(confidence * NUM_BINS) - 1).clip(0, NUM_BINS - 1).astype(np.int64)


def _binned_error(bins: NDArray[np.int64], gaps: Floats) -> float:
    """Mean over images of the bins' distance between accuracy and confidence."""
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=NUM_BINS)).sum() / len(gaps))
