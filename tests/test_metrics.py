"""Metrics against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from fovea.metrics import compute_metrics, most_confused, wilson_interval

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
        "accuracy", "accuracy_interval", "num_images", "loss", "per_class", "confusion", "classes", "split", "views",
    ]  # fmt: skip
    assert list(found["per_class"][0]) == ["class", "accuracy", "precision", "recall", "f1", "support", "interval"]
    assert found["num_images"] == 4
    assert found["views"] == 1
    assert found["accuracy_interval"][0] < found["accuracy"] <= found["accuracy_interval"][1] == 1.0


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    found = compute_metrics(torch.tensor([[0.0, 1.0]] * 3), torch.tensor([0, 0, 1]), ["cat", "dog"], "test")
    assert np.array(found["confusion"]).tolist() == [[0, 2], [0, 1]]
    assert most_confused(found) == [("cat", "dog", 2)]
