"""Temperature, calibration error and thresholds: against known truth, and wherever a person meets a probability."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fovea as package
from fovea.calibration import (
    Calibration,
    _calibration_error,
    calibrate,
    choose_threshold,
    confidences,
    coverage_curve,
    fit_temperature,
    read_calibration,
    reliability,
)
from fovea.engine.evaluate import calibrate_run
from fovea.errors import ConfigError, RunError
from fovea.run import Run
from fovea.uses.predict import least_confidence

DATA = "synthetic:num_images=200"


def too_sure(num_images: int, factor: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `factor` times what would be true of their labels."""
    torch.manual_seed(seed)
    true = 2 * torch.randn(num_images, 5)
    return factor * true, torch.distributions.Categorical(logits=true).sample()


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_is_found_and_is_that_of_lbfgs(factor: float) -> None:
    logits, labels = too_sure(3000, factor)
    found, (low, high) = fit_temperature(logits, labels)
    assert low < factor < high
    assert high / low < 1.3
    value = torch.ones(1, dtype=torch.float64, requires_grad=True)  # as Guo et al. did it
    optimizer = torch.optim.LBFGS([value], lr=0.1, max_iter=200, tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.double() / value, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert found == pytest.approx(value.item(), rel=1e-3)


def test_the_interval_of_the_temperature_holds_it() -> None:
    ends = [fit_temperature(*too_sure(150, 2.0, seed))[1] for seed in range(100, 160)]
    assert sum(low <= 2 <= high for low, high in ends) >= 53


def test_without_a_mistake_there_is_nothing_to_learn() -> None:
    found = calibrate(torch.eye(5).repeat(8, 1), torch.arange(5).repeat(8))
    assert found.temperature == 1
    assert "no mistake" in found.note
    assert found.auto is not None
    assert found.auto.threshold == 0


def test_calibration_error_written_out() -> None:
    confidence = np.array([0.95, 0.95, 0.97, 0.62, 0.65, 0.3])
    correct = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    # bins of 1/15: (0.933, 1], (0.6, 0.667], (0.267, 0.333]
    expected = (3 * abs(2 / 3 - 2.87 / 3) + 2 * abs(0.5 - 0.635) + 0.3) / 6
    assert _calibration_error(confidence, correct)["ece"] == pytest.approx(expected)
    rows = reliability(confidence, correct)
    assert [row[2] for row in rows] == [1, 2, 3]
    assert [row[4] for row in rows] == pytest.approx([0, 0.5, 2 / 3])


@pytest.mark.parametrize("excess", [0.0, 0.1])
def test_the_interval_of_the_calibration_error_holds_it(excess: float) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(30):
        confidence = random.uniform(0.4, 1, size=150)
        found = _calibration_error(confidence, (random.random(150) < confidence - excess).astype(float))
        low, high = found["ece_interval"]
        held += low <= excess <= high
        assert low <= found["ece"] <= high
    assert held >= 25


def test_temperature_mends_what_it_can() -> None:
    logits, labels = too_sure(4000, 3.0)
    before, after = (_calibration_error(*confidences(logits, labels, t)) for t in (1.0, 3.0))
    assert before["ece"] > 0.15
    assert after["ece"] < 0.04
    assert after["ece_interval"][0] == 0
    assert after["ece_by_chance"] == pytest.approx(after["ece"], abs=0.02)


def test_a_threshold_is_the_lowest_that_reaches_its_target() -> None:
    random = np.random.default_rng(0)
    confidence = random.choice(np.linspace(0.3, 1, 40), size=400)  # many equal ones
    correct = (random.random(400) < confidence).astype(float)
    for target in (0.8, 0.9):
        found = choose_threshold(confidence, correct, target)
        every = [t for t in np.unique(confidence) if (confidence >= t).sum() >= round(1 / (1 - target))]
        assert found.threshold == min(t for t in every if correct[confidence >= t].mean() >= target)
        assert found.coverage == pytest.approx((confidence >= found.threshold).mean())
        assert found.accuracy == pytest.approx(correct[confidence >= found.threshold].mean())
    assert choose_threshold(confidence, np.ones(400), 0.9).threshold == 0, "all are answered"
    assert choose_threshold(confidence[:50], np.ones(50), 0.99).threshold is None, "50 images cannot tell 99 %"


def test_the_curve_ends_at_the_accuracy() -> None:
    curve = coverage_curve(*confidences(*too_sure(250, 1.0), 1.0))
    assert len(curve) == 100
    assert [curve[-1][0], curve[0][0]] == [1, 3 / 250]
    assert curve[0][2] > curve[-1][2]


@pytest.fixture(scope="module")
def _with_val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half trained, so that it is wrong at times."""
    path = tmp_path_factory.mktemp("with-val") / "run"
    options = {
        "epochs": 1,
        "batch_size": 20,
        "lr": 0.002,
        "device": "cpu",
        "model": "convnet:width=8",
        "val_fraction": 0.4,
    }
    package.train(DATA, out=path, quiet=True, **options)
    return path


@pytest.fixture
def run_with_val(_with_val: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_with_val, tmp_path / "run"))


def test_probabilities_are_calibrated_wherever_they_are_seen(run_with_val: Path, fovea) -> None:
    run, data = Run(run_with_val), package.load_data(DATA)
    found = read_calibration(run)
    assert found.num_images == len(run.held_out["val"])
    assert found.temperature != 1
    classifier = package.load(run, "cpu")
    test = data.splits["test"]
    logits = classifier.logits(test.images).double()
    assert run.metrics["loss"] == pytest.approx(F.cross_entropy(logits, test.labels).item(), rel=1e-4)
    expected = F.softmax(logits / found.temperature, dim=1).amax(dim=1).tolist()
    with (run_with_val / "predictions.csv").open(encoding="utf-8") as file:
        assert [float(row["probability"]) for row in csv.DictReader(file)] == pytest.approx(expected, abs=1e-5)
    answers = classifier.predict(test.images)
    assert [answer.probability for answer in answers] == pytest.approx(expected)
    assert answers[3].top[0]["logit"] == pytest.approx(logits[3].max().item())

    least = sorted(expected)[len(expected) // 2]
    known = classifier.predict(test.images, min_confidence=least)
    assert [answer.confident for answer in known] == [p >= least for p in expected]
    assert {answer.answer for answer in known if not answer.confident} == {"I don't know"}
    assert [answer.prediction for answer in known] == [answer.prediction for answer in answers]

    page = (run_with_val / "report.html").read_text(encoding="utf-8")
    assert f"best divided by is {found.temperature:.2f}" in page
    assert "came without a test split" not in page, "synthetic comes with a test split"
    assert f"so Fovea kept {len(run.held_out['val'])} images apart" in page
    assert calibrate_run(run, package.load_data(DATA, val_fraction=0.4), torch.device("cpu")) == found


def test_i_do_not_know_on_the_command_line(run_with_val: Path, fovea) -> None:
    from PIL import Image

    image = package.load_data(DATA).splits["test"].images[0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save("one.png")
    unsure = json.loads(fovea("predict", run_with_val, "one.png", "--json", "--min-confidence", 1).stdout)[0]
    assert (unsure["answer"], unsure["confident"]) == ("I don't know", False)
    assert "I don't know" in fovea("predict", run_with_val, "one.png", "--min-confidence", 1).stdout
    rows = list(
        csv.DictReader(fovea("predict", run_with_val, "one.png", "--csv", "--min-confidence", 1).stdout.splitlines())
    )
    assert {row["answer"] for row in rows} == {"I don't know"}
    sure = json.loads(fovea("predict", run_with_val, "one.png", "--json", "--min-confidence", 0).stdout)[0]
    assert sure["answer"] == sure["prediction"]
    for wrong in ("2", "many", "nan"):
        result = fovea("predict", run_with_val, "one.png", "--min-confidence", wrong)
        assert (result.code, result.stderr.count("\n")) == (2, 1)
        assert "from 0 to 1" in result.stderr


def test_auto_is_the_threshold_from_val() -> None:
    logits = torch.tensor([[1.0, -1.0]] * 24 + [[0.2, 0.0]] * 16)
    found = calibrate(logits, torch.tensor([0] * 24 + [0, 1] * 8))
    assert found.auto is not None
    assert found.auto.target == 0.9
    assert least_confidence("auto", found) == found.auto.threshold
    assert 0.6 < found.auto.threshold < 1
    out_of_reach = replace(found, thresholds=tuple(replace(row, threshold=None) for row in found.thresholds))
    with pytest.raises(ConfigError, match="no threshold reaches"):
        least_confidence("auto", out_of_reach)


def test_without_val_nothing_is_calibrated_and_that_is_said(fovea) -> None:
    options = ("--epochs", 1, "--model", "convnet:width=4", "--batch-size", 20, "--device", "cpu", "--val-fraction", 0)
    printed = fovea("train", DATA, "--out", "no-val", *options).stdout
    assert "no val split, so nothing to calibrate on" in printed
    run = Run("no-val")
    assert read_calibration(run).temperature == 1
    assert run.metrics["calibration"]["temperature"] == 1
    assert run.metrics["thresholds"] == []
    with pytest.raises(ConfigError, match="no val split"):
        least_confidence("auto", read_calibration(run))
    page = Path("no-val/report.html").read_text(encoding="utf-8")
    assert "probabilities are not calibrated" in page
    assert "no val split" in page


def test_a_run_older_than_calibration_opens(run_with_val: Path, fovea) -> None:
    metrics = json.loads((run_with_val / "metrics.json").read_text())
    new = ("calibration", "thresholds", "auto_target", "top_k", "balanced", "macro")
    text = (run_with_val / "metrics.json").read_text()
    old = {key: value for key, value in json.loads(text).items() if not key.startswith(new)}
    for row in old["per_class"]:
        for key in ("precision_interval", "recall_interval", "f1_interval"):
            del row[key]
    (run_with_val / "metrics.json").write_text(json.dumps(old))
    for name in ("calibration.json", "reliability.csv", "coverage.csv"):
        (run_with_val / name).unlink()
    assert fovea("report", run_with_val).code == 0
    assert fovea("compare", run_with_val).code == 0
    assert read_calibration(Run(run_with_val)) == Calibration()
    assert json.loads(fovea("evaluate", run_with_val, "--json").stdout) == metrics, "evaluate adds what was lacking"


def test_damaged_calibration_is_named(tiny_run: Path) -> None:
    for text in ("{", "[]", '{"temperature": 1}', '{"temperature": 0, "thresholds": []}'):
        (tiny_run / "calibration.json").write_text(text)
        with pytest.raises(RunError, match=r"calibration\.json is damaged"):
            read_calibration(Run(tiny_run))


def test_compare_shows_balanced_accuracy_where_classes_are_unequal(tiny_run: Path, fovea) -> None:
    assert "balanced" not in fovea("compare", tiny_run).stdout
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    metrics["per_class"][0]["support"] = 1000
    (tiny_run / "metrics.json").write_text(json.dumps(metrics))
    assert f"{100 * metrics['balanced_accuracy']:.2f}" in fovea("compare", tiny_run).stdout
    assert "balanced %" in fovea("compare", tiny_run).stdout
