"""Classes of few images count as much as others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fovea as package
from fovea.data.balance import balanced_order, class_weights
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess
from fovea.engine.gradients import build_backward
from fovea.models.base import build_model
from fovea.recipes.simple import simple

pytestmark = pytest.mark.usefixtures("no_report")
CPU = torch.device("cpu")


def test_weights_make_each_class_count_the_same() -> None:
    counts = [60, 30, 0, 10]
    weights = class_weights(counts)
    assert torch.allclose(weights * torch.tensor(counts), torch.tensor([100 / 3, 100 / 3, 0, 100 / 3]))
    assert (weights * torch.tensor(counts)).sum() / 100 == pytest.approx(1), "the mean over the images"


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("part_size", [0, 5])
def test_the_gradient_is_that_of_torchs_weighted_cross_entropy(soft: bool, part_size: int) -> None:
    torch.manual_seed(0)
    model = build_model("tutorial", 3, 3, (32, 32))
    images = torch.randn(12, 3, 32, 32)
    labels = torch.rand(12, 3).softmax(1) if soft else torch.randint(3, (12,))
    weights = class_weights([6, 3, 1])
    logits = model(images)
    if soft:  # of each class its share, its weight, its loss
        expected = -(labels * weights * logits.log_softmax(1)).sum() / 12
    else:
        expected = F.cross_entropy(logits, labels, weights, reduction="none").mean()
    wanted = torch.autograd.grad(expected, list(model.parameters()))

    config = simple("x").with_values({"part_size": part_size})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    threads = torch.get_num_threads()
    try:
        loss = build_backward(config, model, "fp32", CPU, scaler, weights)(images, labels).mean()
    finally:
        torch.set_num_threads(threads)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def test_all_classes_are_drawn_equally_often_and_their_images_evenly() -> None:
    labels = torch.tensor([0] * 61 + [1] * 30 + [3] * 8 + [7])
    rows = balanced_order(labels, torch.Generator().manual_seed(1))
    assert labels[rows].bincount().tolist() == [25, 25, 0, 25, 0, 0, 0, 25]
    drawn = rows.bincount(minlength=100)
    assert set(drawn[91:99].tolist()) == {3, 4}
    assert drawn[99] == 25
    assert drawn[:91].max() == 1
    assert not torch.equal(labels[rows][:50], labels[rows][50:]), "in random order"
    assert torch.equal(rows, balanced_order(labels, torch.Generator().manual_seed(1)))


def test_an_epoch_follows_from_seed_and_number() -> None:
    data = package.load_data("synthetic:num_images=100").train
    part = data.take(torch.cat([(data.labels == 0).nonzero().flatten(), torch.tensor([1, 2, 3])]))

    def loader() -> Loader:
        return Loader(part, Preprocess((16, 16), 3, (0.5,) * 3, (0.5,) * 3), 7, CPU, 3, shuffle=True, balanced=True)

    first = torch.cat([labels for _, labels in loader().epoch(1)])
    assert first.bincount().tolist() == [6, 6, 6, 5]
    assert torch.equal(loader().order(2), loader().order(2))
    assert not torch.equal(loader().order(1), loader().order(2))


@pytest.mark.parametrize("balance", ["loss", "sample"])
def test_a_training_with_mixed_labels_balances_them(balance: str, tmp_path) -> None:
    """Of two classes, one of ten times the images: the few are found, too, on val; the same with cutmix."""
    whole = package.load_data("synthetic:num_images=400:num_classes=2:noise=2", val_fraction=0.3)
    train = whole.train
    few = (train.labels == 1).nonzero().flatten()[:10]
    kept = torch.cat([(train.labels == 0).nonzero().flatten(), few])
    data = type(whole)(whole.config, whole.classes, {**whole.splits, "train": train.take(kept)}, whole.facts, {})
    options = {"epochs": 6, "batch_size": 16, "device": "cpu", "model": "convnet:width=4", "quiet": True, "augment": "cutmix"}  # fmt: skip

    def recall(name: str) -> float:
        run = package.train(data, "simple", tmp_path / name, balance=name, **options)
        return float(run.metrics["per_class"][1]["recall"])

    assert recall(balance) > recall("none") + 0.2


def test_a_wrong_word_is_named(fovea) -> None:
    result = fovea("train", "digits", "--balance", "some")
    assert result.code == 2
    assert "balance" in result.stderr
    assert "'sample'" in result.stderr
