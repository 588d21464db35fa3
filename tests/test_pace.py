"""A budget of minutes, and an early end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import fovea as package
from fovea.device import has_llvm
from fovea.engine import cost, pace, train
from fovea.models.winograd import Conv3x3
from fovea.run import Run

pytestmark = pytest.mark.usefixtures("no_report")

DATA = "synthetic:num_images=100"  # 72 to train on, 8 for val
OPTIONS = {"device": "cpu", "model": "convnet:width=4", "batch_size": 8, "quiet": True}  # 9 steps an epoch


class Clock:
    """Time that passes only where a test says so: `seconds` a step, as they are or noisy."""

    def __init__(self, seconds: float, noise: float = 0.0) -> None:
        self.now, self.seconds, self.noise, self.random = 0.0, seconds, noise, random.Random(0)
        self.steps = 0

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter

    def step(self) -> None:
        self.steps += 1
        self.now += self.seconds * (1 + self.random.uniform(-self.noise, self.noise))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    build = train.build_backward

    def use(clock: Clock) -> Clock:
        def build_slow(*arguments: object):
            backward = build(*arguments)

            def slow(*batch: object):
                clock.step()
                return backward(*batch)

            return slow

        monkeypatch.setattr(cost, "time", clock)
        monkeypatch.setattr(pace, "time", clock)
        monkeypatch.setattr(pace, "REPORT_SECONDS", 3.0)  # a measurement: it may change, these tests' sums may not
        monkeypatch.setattr(train, "build_backward", build_slow)
        return clock

    return use


@pytest.mark.parametrize("noise", [0.0, 0.9])
def test_the_schedule_has_come_down_when_the_time_is_up(noise: float, use, tmp_path: Path) -> None:
    clock = use(Clock(1.0, noise))
    options = {**OPTIONS, "schedule": "linear", "lr": 0.1}
    run = package.train(DATA, "simple", tmp_path / "run", {"schedule.warmup": 0}, minutes=1, **options)
    kept_free = pace.REPORT_SECONDS
    assert 60 - kept_free - 2 <= clock.now <= 60 - kept_free
    rows = run.results
    num_epochs, rest = divmod(clock.steps, 9)
    assert rest, "the last epoch is a part of one"
    assert [int(row["epoch"]) for row in rows] == list(range(1, num_epochs + 2))
    lrs = [float(row["lr"]) for row in rows]
    assert lrs == sorted(lrs, reverse=True)
    assert lrs[2] == pytest.approx(0.1 * (1 - 27 / 57), abs=0.1 * 0.1)
    assert lrs[-1] < 0.1 * 4 / 57
    assert (run.config.minutes, run.config.epochs) == (1, None)
    assert run.metrics["accuracy"] > 0.5


def test_a_resumed_run_has_the_rest_of_its_time(use, tmp_path: Path, fovea) -> None:
    clock = use(Clock(1.0))

    def stop(record: dict[str, object]) -> None:
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        package.train(DATA, "simple", tmp_path / "run", on_epoch=stop, minutes=1, **OPTIONS)
    assert clock.now == 27
    clock.now += 1000  # until somebody goes on
    run = package.resume(tmp_path / "run", quiet=True)
    assert 55 < clock.now - 1000 <= 60
    assert len(run.results) == 7
    steps, rows = clock.steps, run.results
    assert fovea("train", "--resume", tmp_path / "run").code == 0
    assert (clock.steps, run.results) == (steps, rows), "it has ended"


def test_too_short_for_one_pass_is_said(use, fovea) -> None:
    use(Clock(10.0))
    words = ("--recipe", "simple", "--minutes", 1, "--device", "cpu", "--model", "convnet:width=4", "--batch-size", 8)
    result = fovea("train", DATA, *words, "--out", "run")
    assert result.code == 0
    assert "the time is up after 56 % of the first pass" in result.stdout  # 5 of 9 steps
    assert "--minutes" in result.stdout
    run = Run("run")
    assert float(run.results[0]["train_loss"]) > 0
    assert [row["epoch"] for row in run.results] == ["1"]


def test_minutes_and_epochs_exclude_each_other(fovea) -> None:
    for words in (("--epochs", 3), ("--set", "epochs=3")):
        result = fovea("train", "no-such-data", "--minutes", 1, *words)
        assert (result.code, "--minutes and --epochs" in result.stderr) == (2, True)
    assert "minutes" in fovea("train", DATA, "--minutes", 0).stderr
    assert "epochs, or minutes" in fovea("train", DATA, "--set", "epochs=null").stderr


def test_work_counts_small_images_less() -> None:
    config = package.recipe.get("fast")("x").with_values(
        {"epochs": 4, "small_first.until": 0.5, "small_first.sizes": 1}
    )
    by_epochs = pace.ByEpochs(config, 10, 1)
    assert by_epochs.share(40) == 1
    assert by_epochs.share(20) == pytest.approx(0.5**pace._SMALL_POWER / (1 + 0.5**pace._SMALL_POWER))
    assert by_epochs.share(30) - by_epochs.share(20) == pytest.approx((1 - by_epochs.share(20)) / 2)


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path, fovea) -> None:
    words = ("train", "synthetic:num_images=100:noise=2", "--recipe", "simple", "--epochs", 40, "--patience", 3,
             "--device", "cpu", "--model", "convnet:width=4", "--lr", 0.3, "--out", "run")  # fmt: skip
    result = fovea(*words)
    rows = Run("run").results
    scores = [(float(row["val_accuracy"]), -float(row["val_loss"])) for row in rows]
    best = scores.index(max(scores)) + 1
    assert len(rows) == best + 3 < 40
    assert f"no epoch since epoch {best} was better on val" in result.stdout
    before = Run("run").path.joinpath("results.csv").read_bytes()
    assert fovea("train", "--resume", "run").code == 0
    assert Run("run").path.joinpath("results.csv").read_bytes() == before


def test_patience_needs_val(fovea) -> None:
    result = fovea("train", DATA, "--recipe", "simple", "--patience", 3, "--val-fraction", 0, "--out", "run")
    assert result.code == 2
    assert "--val-fraction 0.1" in result.stderr
    assert not Path("run").exists()


def test_images_checked_after_an_epoch_are_too_few_for_transformed_weights() -> None:
    layer = Conv3x3(64, 64).eval()
    with torch.no_grad():
        assert layer._winograd_pays(torch.zeros(100, 64, 4, 4)) == has_llvm()
        assert not layer._winograd_pays(torch.zeros(pace.NUM_CHECKED, 64, 4, 4))
