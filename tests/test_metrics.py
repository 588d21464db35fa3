"""Metrics against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    precision_score,
    top_k_accuracy_score,
)

from fovea.metrics import (
    class_metrics,
    completed,
    compute_metrics,
    f1_interval,
    mean_interval,
    most_confused,
    unequal,
    wilson_interval,
)

CLASSES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (6123, 10000), (9999, 10000)]
)
def test_wilson_is_scipys(correct: int, total: int) -> None:
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_metrics_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(3, (200,), generator=generator)  # no image of the last class
    found = compute_metrics(logits, labels, CLASSES, "test")
    predicted = logits.argmax(1).numpy()
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=0
    )

    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=range(4)).tolist()
    assert found["loss"] == pytest.approx(log_loss(labels, torch.softmax(logits.double(), 1), labels=range(4)))
    for row, name in enumerate(CLASSES):
        per_class = found["per_class"][row]
        assert per_class["class"] == name
        values = [per_class[key] for key in ("precision", "recall", "accuracy", "f1", "support")]
        assert values == pytest.approx([precision[row], recall[row], recall[row], f1[row], support[row]])


def test_names_that_other_programs_rely_on() -> None:
    found = compute_metrics(torch.eye(4), torch.arange(4), CLASSES, "test")
    assert list(found) == [
        "accuracy", "accuracy_interval", "loss", "num_images", "balanced_accuracy", "balanced_accuracy_interval",
        "macro_precision", "macro_precision_interval", "macro_f1", "macro_f1_interval", "per_class", "top_k", "confusion",
        "classes", "split", "views",
    ]  # fmt: skip
    assert list(found["per_class"][0]) == [
        "class", "accuracy", "precision", "recall", "f1", "support", "interval", "precision_interval", "recall_interval",
        "f1_interval",
    ]  # fmt: skip
    assert found["num_images"] == 4
    assert found["views"] == 1
    assert found["accuracy_interval"][0] < found["accuracy"] <= found["accuracy_interval"][1] == 1.0


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    found = compute_metrics(torch.tensor([[0.0, 1.0]] * 3), torch.tensor([0, 0, 1]), ["cat", "dog"], "test")
    assert np.array(found["confusion"]).tolist() == [[0, 2], [0, 1]]
    assert most_confused(found) == [("cat", "dog", 2)]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_averages_and_top_k_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(150, 4, generator=generator)
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 10)  # unequal, and no image of the last class
    found = compute_metrics(logits, labels, CLASSES, "test")
    predicted = logits.argmax(1).numpy()
    options = {"labels": range(3), "average": "macro", "zero_division": 0}
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["macro_precision"] == pytest.approx(precision_score(labels, predicted, **options))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, **options))
    assert [row["k"] for row in found["top_k"]] == [2, 3]
    for row in found["top_k"]:
        expected = top_k_accuracy_score(labels, logits, k=row["k"], labels=range(4))
        assert row["accuracy"] == pytest.approx(expected)
        assert row["interval"] == pytest.approx(wilson_interval(round(150 * expected), 150))
    for name in ("balanced_accuracy", "macro_precision", "macro_f1"):
        low, high = found[f"{name}_interval"]
        assert 0 < low < found[name] < high < 1
    assert unequal(found)
    assert found == compute_metrics(logits, labels, CLASSES, "test"), "the bootstrap is seeded"


@pytest.mark.parametrize(
    ("recalls", "sizes"),
    [([0.99] * 10, [36] * 10), ([0.98, 0.7], [300, 20]), ([0.99, 0.95, 0.9, 0.6], [400, 99, 40, 10])],
)
def test_the_interval_of_a_mean_holds_it(recalls: list[float], sizes: list[int]) -> None:
    """In more than 91 of 100 simulated splits, also near 1, where intervals that add up each class's own do not."""
    drawn = np.random.default_rng(0).binomial(sizes, recalls, size=(1000, len(sizes)))
    ends = np.array([mean_interval(row, sizes) for row in drawn.tolist()])
    held = (ends[:, 0] <= np.mean(recalls)) & (np.mean(recalls) <= ends[:, 1])
    assert 0.91 <= held.mean() <= 0.99


def test_the_interval_of_one_share_is_wilsons() -> None:
    assert mean_interval([7], [30]) == pytest.approx(wilson_interval(7, 30))
    assert mean_interval([30, 20], [30, 20])[0] == pytest.approx(wilson_interval(48, 48)[0])  # twice the harmonic mean
    assert mean_interval([0], [0]) == (0.0, 1.0)


def test_the_interval_of_f1_holds_it() -> None:
    shares = np.array([0.12, 0.05, 0.04, 0.79])  # both, missed, called so wrongly, neither
    f1 = 2 * 0.12 / (2 * 0.12 + 0.05 + 0.04)
    drawn = np.random.default_rng(0).multinomial(200, shares, size=2000)
    ends = np.array([f1_interval(row[0], row[0] + row[1] + row[2]) for row in drawn.tolist()])
    assert 0.93 <= ((ends[:, 0] <= f1) & (f1 <= ends[:, 1])).mean() <= 0.97


def test_macro_intervals_hold_the_truth() -> None:
    """Of 2 classes of 60 and 20, 85 and 70 % of which are recognized."""
    cells = np.array([[60 * 0.85, 60 * 0.15], [20 * 0.3, 20 * 0.7]]) / 80
    truth = class_metrics((cells * 8000).round().astype(int).tolist(), ["a", "b"])["macro_f1"]
    drawn = np.random.default_rng(0).multinomial(80, cells.ravel(), size=200).reshape(-1, 2, 2)
    ends = np.array([class_metrics(table.tolist(), ["a", "b"])["macro_f1_interval"] for table in drawn])
    assert 0.9 <= ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() <= 0.99


def test_perfect_is_not_certain() -> None:
    found = compute_metrics(5 * torch.eye(4), torch.arange(4), CLASSES, "test")
    for name in ("balanced_accuracy", "macro_precision", "macro_f1"):
        assert found[name] == 1
        assert found[f"{name}_interval"][0] < 0.6


def test_figures_of_an_older_run_are_completed() -> None:
    new = compute_metrics(torch.randn(50, 4), torch.arange(50) % 4, CLASSES, "test")
    added = ("balanced_accuracy", "macro_precision", "macro_f1")
    old = {key: value for key, value in new.items() if not key.startswith(added)}
    old["per_class"] = [{k: v for k, v in row.items() if not k.endswith("_interval")} for row in old["per_class"]]
    assert completed(old) == new
    assert completed(new) is new
