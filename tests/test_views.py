"""Test-time views: against the sum written out, and the same figures wherever a run speaks of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fovea as package
from fovea.data.types import Dataset
from fovea.engine.evaluate import infer, measure
from fovea.engine.views import views_of
from fovea.errors import ConfigError
from fovea.run import Run

CPU = torch.device("cpu")
DATA = "synthetic:num_images=200"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return package.load_data(DATA)


def looked_at(network: torch.nn.Module, image: Tensor, shift: int) -> Tensor:
    """Logits of one image and its mirror, both moved down and right by `shift`: reflection padding by hand."""
    side = image.shape[-1]
    inside = [min(abs(p), 2 * (side - 1) - p) for p in range(-shift, side - shift)]
    moved = image[:, inside][:, :, inside]
    return (network(moved[None]) + network(moved.flip(-1)[None]))[0] / 2


def test_views_are_the_sum_written_out(tiny_run: Path, data: Dataset) -> None:
    classifier = package.load(tiny_run, "cpu")
    test = data.splits["test"].take(torch.arange(6))
    standardized = classifier.preprocess.standardizer(CPU)(test.images.float() / 255)
    found = {name: infer(classifier.model, test, classifier.preprocess, CPU, name) for name in
             ("one", "mirror", "mirror-shift")}  # fmt: skip
    with torch.no_grad():
        for row, image in enumerate(standardized):
            assert torch.allclose(found["one"][row], classifier.model(image[None])[0], atol=1e-4)
            mirror = looked_at(classifier.model, image, 0)
            assert torch.allclose(found["mirror"][row], mirror, atol=1e-4)
            shifted = (looked_at(classifier.model, image, 1) + looked_at(classifier.model, image, -1)) / 2
            assert torch.allclose(found["mirror-shift"][row], (mirror + shifted) / 2, atol=1e-4)
    assert not torch.allclose(found["mirror"], found["mirror-shift"], atol=1e-3)


def test_shifted_views_are_crops_of_the_padded_image() -> None:
    images = torch.rand(2, 3, 6, 8)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    seen = [(weight, view(images)) for weight, view in views_of("mirror-shift")]
    assert sum(weight for weight, _ in seen) == 1
    up_left, down_right = padded[:, :, 2:, 2:], padded[:, :, :-2, :-2]
    expected = [(0.25, images), (0.25, images.flip(-1)), (0.125, up_left), (0.125, up_left.flip(-1)),
                (0.125, down_right), (0.125, down_right.flip(-1))]  # fmt: skip
    for (weight, view), (wanted_weight, wanted) in zip(seen, expected, strict=True):
        assert weight == wanted_weight
        assert torch.equal(view, wanted)


def test_a_single_view_is_measured_beside(tiny_run: Path, data: Dataset) -> None:
    classifier = package.load(tiny_run, "cpu")
    test = data.splits["test"]
    found = measure(classifier.model, test, classifier.preprocess, CPU, "mirror")
    assert torch.equal(found.single, infer(classifier.model, test, classifier.preprocess, CPU))
    assert 0 < found.single_seconds < found.seconds


def test_a_run_with_views(fovea, tmp_path: Path) -> None:
    """The same two figures in metrics.json, on the terminal, in the report and in compare; predict gives what was
    measured."""
    words = ("train", DATA, "--epochs", 1, "--device", "cpu")
    assert fovea(*words, "--out", "one").code == 0
    result = fovea(*words, "--out", "six", "--views", "mirror-shift")
    run = Run("six")
    metrics = run.metrics
    assert metrics["views"] == 6
    single = metrics["single_view"]
    assert single["accuracy"] == Run("one").metrics["accuracy"], "training and validation know nothing of views"
    assert single["loss"] == Run("one").metrics["loss"]
    assert run.results[0]["val_accuracy"] == Run("one").results[0]["val_accuracy"]
    assert 0 < run.cost["single_view_test_seconds"] < run.cost["test_seconds"]
    line = f"averaged over 6 views of each; by a single view {100 * single['accuracy']:.2f} %"
    assert line in result.stdout
    page = Path("six/report.html").read_text(encoding="utf-8")
    assert "6 views each" in page
    assert "by a single view" in page
    assert "by a single view" not in Path("one/report.html").read_text(encoding="utf-8")

    test = package.load_data(DATA).splits["test"].take(torch.arange(5))
    answers = package.load(run, "cpu").predict(test.images, top=1)
    written = Path("six/predictions.csv").read_text(encoding="utf-8").splitlines()[1:6]
    assert [f"{answer.probability:.6f}" for answer in answers] == [row.split(",")[3] for row in written]

    compared = fovea("compare", "one", "six")
    assert "one view %" in compared.stdout
    groups = json.loads(Path("compare/compare.json").read_text())["groups"]
    assert [group["name"] for group in groups] == ["views=one", "views=mirror-shift"]
    assert [group["views"] for group in groups] == [1, 6]
    assert groups[0]["single_view_mean"] == groups[1]["single_view_mean"] == groups[0]["mean"]


def test_evaluate_with_other_views_leaves_the_runs_own_figures(tiny_run: Path, fovea) -> None:
    before = Run(tiny_run).metrics
    result = fovea("evaluate", tiny_run, "--views", "mirror", "--json", "--device", "cpu")
    found = json.loads(result.stdout)
    assert found["views"] == 2
    assert found["single_view"]["accuracy"] == before["accuracy"]
    assert json.loads((tiny_run / "evaluations/synthetic-test-mirror/metrics.json").read_text()) == found
    assert Run(tiny_run).metrics == before
    assert "2 views" in fovea("evaluate", tiny_run, "--views", "mirror").stdout


def test_unknown_views(tiny_run: Path, fovea) -> None:
    for words in (("evaluate", tiny_run), ("train", DATA, "--out", "new")):
        result = fovea(*words, "--views", "miror")
        assert result.code == 2
        assert "mirror" in result.stderr
        assert result.stderr.count("\n") == 1
    assert not Path("new").exists()
    with pytest.raises(ConfigError, match="did you mean 'mirror'"):
        package.evaluate(tiny_run, views="miror")


def test_a_run_older_than_views_loads(tiny_run: Path, fovea) -> None:
    config = (tiny_run / "config.yaml").read_text()
    lines = [line for line in config.splitlines() if not line.startswith(("views:", "precision:"))]
    assert len(lines) == len(config.splitlines()) - 2
    (tiny_run / "config.yaml").write_text("\n".join(lines) + "\n")
    info = json.loads((tiny_run / "model.json").read_text())
    del info["views"], info["precision"]
    (tiny_run / "model.json").write_text(json.dumps(info))
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    del metrics["single_view"]
    (tiny_run / "metrics.json").write_text(json.dumps(metrics))
    (tiny_run / "cost.json").unlink()
    run = Run(tiny_run)
    assert (run.config.views, run.config.precision) == (run.info.views, run.info.precision) == ("one", "fp32")
    assert fovea("report", tiny_run).code == 0
    assert fovea("compare", tiny_run).code == 0
    assert fovea("train", "--resume", tiny_run).code == 0
    assert fovea("evaluate", tiny_run).code == 0
