"""Comparing runs: groups by settings, Student's t against scipy, seeds paired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from scipy import stats

import fovea as package
from fovea.run import Run
from fovea.uses.compare import student_interval


def copy_run(tiny_run: Path, name: str, accuracy: float, **settings: object) -> Path:
    """The tiny run again, under another name, with other settings and another accuracy."""
    import shutil

    path = Path(shutil.copytree(tiny_run, name))
    tree = yaml.safe_load((path / "config.yaml").read_text())
    for dotted, value in settings.items():
        *parents, last = dotted.split("__")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[last] = value
    (path / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["accuracy"], metrics["accuracy_interval"] = accuracy, [accuracy - 0.05, accuracy + 0.05]
    metrics["per_class"][1]["accuracy"] = accuracy - 0.1
    (path / "metrics.json").write_text(json.dumps(metrics))
    return path


def test_student_interval_is_scipys() -> None:
    values = [0.61, 0.597, 0.629, 0.6]
    expected = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert student_interval(values) == pytest.approx(expected)


def test_groups_pairs_and_classes(tiny_run: Path, fovea) -> None:
    low = [copy_run(tiny_run, f"low-{s}", a, seed=s) for s, a in ((0, 0.60), (1, 0.62), (2, 0.64))]
    high = [copy_run(tiny_run, f"high-{s}", a, seed=s, optim__lr=0.5, device="auto") for s, a in ((2, 0.70), (1, 0.69))]
    result = json.loads(fovea("compare", *low, *high, "--out", "side", "--json").stdout)

    first, second = result["groups"]
    assert [first["name"], second["name"]] == ["optim.lr=0.02", "optim.lr=0.5"]
    assert first["runs"] == [str(path) for path in low]
    assert first["mean"] == pytest.approx(0.62)
    assert first["std"] == pytest.approx(0.02)
    assert first["interval"] == pytest.approx(list(student_interval([0.60, 0.62, 0.64])))
    assert first["interval_of"] == "seeds"
    assert first["per_class"][1]["accuracy"] == pytest.approx(0.52)

    (difference,) = result["differences"]
    assert difference["seeds"] == [1, 2]
    assert difference["mean"] == pytest.approx((0.07 + 0.06) / 2)
    assert difference["interval"] == pytest.approx(list(student_interval([0.07, 0.06])))
    assert difference["p_value"] == pytest.approx(stats.ttest_1samp([0.07, 0.06], 0).pvalue)
    assert json.loads(Path("side/compare.json").read_text()) == result
    assert Image.open("side/compare.png").size[0] > 1000

    shown = fovea("compare", *low, *high).stdout
    assert "+6.50" in shown
    assert "66.50" not in shown
    assert Path("compare/compare.png").is_file()


def test_one_run_each_says_what_it_cannot_know(tiny_run: Path, fovea) -> None:
    one, other = copy_run(tiny_run, "one", 0.6), copy_run(tiny_run, "other", 0.7, augment=["mirror"])
    result = package.compare([Run(one), Run(other)])
    assert [group["name"] for group in result["groups"]] == ["augment=none", "augment=mirror"]
    assert result["groups"][0]["interval"] == Run(one).metrics["accuracy_interval"]
    assert result["groups"][0]["interval_of"] == "test images"
    assert result["differences"][0]["p_value"] is None
    assert "not of luck in training" in fovea("compare", one, other).stdout


def test_what_cannot_be_compared(tiny_run: Path, fovea) -> None:
    other = copy_run(tiny_run, "other", 0.5, data__name="synthetic:num_images=400")
    result = fovea("compare", tiny_run, other)
    assert result.code == 2
    assert result.stderr.count("\n") == 1
    assert "only figures of the same test split" in result.stderr
    (other / "metrics.json").unlink()
    result = fovea("compare", tiny_run, other)
    assert result.code == 2
    assert "fovea evaluate other" in result.stderr
    assert not Path("compare").exists()
