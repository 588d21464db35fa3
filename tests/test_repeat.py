"""Several seeds as one group: each a run of its own, resumable as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import fovea as package
from fovea import api, repeat
from fovea.run import Run

WORDS = ["train", "synthetic:num_images=100", "--epochs", 1, "--device", "cpu", "--model", "convnet:width=4"]


def contents(group: Path) -> dict[str, bytes]:
    names = ("steps.csv", "weights/last.safetensors", "predictions.csv", "config.yaml")
    return {f"{run.name}/{name}": (run.path / name).read_bytes() for run in repeat.members(group) for name in names}


def test_each_seed_is_the_run_that_it_would_be_alone(fovea) -> None:
    result = fovea(*WORDS, "--seed", 3, "--seeds", 2, "--out", "group", "--json")
    assert result.code == 0, result.stderr
    comparison = json.loads(result.stdout)
    assert comparison == json.loads(Path("group/compare.json").read_text())
    (group,) = comparison["groups"]
    assert group["seeds"] == [3, 4]
    assert group["runs"] == ["group/seed-3", "group/seed-4"]
    assert fovea(*WORDS, "--seed", 4, "--out", "alone").code == 0
    alone, member = Run("alone"), Run("group/seed-4")
    assert (alone.path / "steps.csv").read_bytes() == (member.path / "steps.csv").read_bytes()
    assert alone.metrics == member.metrics
    assert alone.config == member.config
    assert Run("group/seed-3").steps != member.steps
    assert json.loads(fovea("compare", "group", "--json").stdout) == comparison
    assert (member.path / "report.html").is_file()


def test_a_stopped_group_goes_on(fovea, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fovea(*WORDS, "--seeds", 3, "--out", "group").code == 0
    expected = contents(Path("group"))
    shutil.rmtree("group/seed-2")
    (Path("group/seed-1/report.html")).unlink()
    Path("group/seed-2").mkdir()  # killed before anything was saved
    Path("group/seed-2/config.yaml").touch()
    result = fovea("train", "--resume", "group")
    assert result.code == 0, result.stderr
    assert contents(Path("group")) == expected

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "fit", stop)
    shutil.rmtree("group/seed-1")
    result = fovea("train", "--resume", "group")
    assert result.code == 130
    assert result.stderr.strip() == "all seeds go on with: fovea train --resume group"
    assert not Path("group/seed-1").exists()


def test_from_python_and_bad_input(fovea, tmp_path: Path) -> None:
    group = package.train_seeds(
        package.load_data("synthetic:num_images=100"), 2, out=tmp_path / "group", quiet=True, epochs=1, device="cpu"
    )
    assert [run.config.seed for run in repeat.members(group)] == [0, 1]
    for words in (
        ["--seeds", 0],
        ["--seeds", 2, "--model", "convne"],
        ["--seeds", 2, "--out", group],
        ["--seeds", 2, "--augment", "shift:99", "--out", "left"],
    ):
        result = fovea(*WORDS, *words)
        assert result.code == 2
        assert result.stderr.count("\n") == 1
    assert not Path("left").exists(), "a group of which no run began leaves nothing"
    config = (group / "group.yaml").read_bytes()
    (group / "group.yaml").unlink()
    result = fovea("train", "--resume", group)
    assert result.code == 2
    assert "group.yaml" in result.stderr
    (group / "group.yaml").write_bytes(config)
    (group / "group.json").write_text("{")
    result = fovea("train", "--resume", group)
    assert result.code == 2
    assert "group.json" in result.stderr
    assert not Path("runs").exists()
