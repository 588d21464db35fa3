"""The learning-rate range test: what it measures, what it proposes, and that it leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import math
import shlex
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fovea as package
from fovea.data.loader import Loader
from fovea.engine.range_test import HIGHEST, LOWEST, MIN_STEPS, propose
from fovea.engine.train import build
from fovea.errors import ConfigError
from fovea.recipes.simple import simple

DATA = "synthetic:num_images=200:noise=1"
OPTIONS = {"device": "cpu", "model": "convnet:width=4", "batch_size": 32, "precision": "fp32"}
WORDS = ["--model", "convnet:width=4", "--batch-size", "32", "--device", "cpu"]
LRS = [LOWEST * (HIGHEST / LOWEST) ** (step / 199) for step in range(200)]


def curve(*points: tuple[float, float]) -> list[float]:
    """Straight lines, over the logarithm of lr, through (lr, loss)."""
    losses = []
    for lr in LRS:
        (x0, y0), (x1, y1) = next((p, q) for p, q in itertools.pairwise(points) if lr <= q[0] * 1.0001)
        losses.append(y0 + (y1 - y0) * math.log(lr / x0) / math.log(x1 / x0))
    return losses


VALLEY = curve((1e-6, 2.3), (1e-4, 2.3), (1e-2, 0.5), (1e-1, 3.0), (10, 9.0))


def test_the_valley_is_proposed_and_a_tenth_of_it_where_the_lr_stays() -> None:
    assert propose(LRS, VALLEY, falls=True).lr == pytest.approx(0.01, rel=0.2)
    assert propose(LRS, VALLEY, falls=False).lr == pytest.approx(0.001, rel=0.2)
    assert "a tenth" in propose(LRS, VALLEY, falls=False).rule


def test_the_first_valley_counts_and_where_there_is_none_the_knee() -> None:
    later = curve((1e-6, 2.3), (1e-4, 2.3), (1e-2, 1.0), (1e-1, 1.4), (3, 0.6), (10, 0.8))
    assert propose(LRS, later, falls=True).lr == pytest.approx(0.01, rel=0.3)
    knee = curve((1e-6, 2.3), (1e-4, 2.3), (1e-2, 0.5), (10, 0.3))
    assert propose(LRS, knee, falls=True).lr == pytest.approx(0.01, rel=0.3)


def test_noise_does_not_move_the_proposal_far() -> None:
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 0.15
    noisy = [loss + error for loss, error in zip(VALLEY, noise.tolist(), strict=True)]
    assert propose(LRS, noisy, falls=True).lr == pytest.approx(0.01, rel=0.4)


@pytest.mark.parametrize("losses", [[2.0 + step / 100 for step in range(200)], [], [2.3]])
def test_where_no_lr_helps_there_is_no_proposal(losses: list[float]) -> None:
    with pytest.raises(ConfigError, match="fell at no lr"):
        propose(LRS[: len(losses)], losses, falls=True)


def test_its_losses_are_those_of_a_plain_loop() -> None:
    data = package.load_data(DATA, val_fraction=0.1)
    found = package.find_lr(data, "simple", quiet=True, **OPTIONS)
    config = simple(data.name).with_values({"model": "convnet:width=4", "batch_size": 32})
    model, info = build(config, data)
    loader = Loader(data.train, info.preprocess, 32, torch.device("cpu"), seed=0, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    num_steps = 10_000 // 32
    model.train()
    for step, (images, labels) in enumerate(batch for epoch in range(1, 20) for batch in loader.epoch(epoch)):
        if step == 60:
            break
        lr = LOWEST * (HIGHEST / LOWEST) ** (step / (num_steps - 1))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        assert found.lrs[step] == pytest.approx(lr)
        assert found.losses[step] == pytest.approx(loss.item(), abs=1e-4)
    assert found.losses[59] < found.losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_it_repeats_and_leaves_nothing(optimizer: str, tmp_path: Path) -> None:
    data = package.load_data(DATA, val_fraction=0.1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    images = data.train.images.clone()
    one, same = (package.find_lr(data, "simple", quiet=True, optimizer=optimizer, **OPTIONS) for _ in range(2))
    assert one == same
    assert len(one.lrs) > MIN_STEPS // 2
    assert 1e-4 < one.lr < 1
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(data.train.images, images)
    assert not list(tmp_path.iterdir())


def test_on_the_command_line_it_names_the_command_to_train_with(tmp_path: Path, fovea) -> None:
    words = ["train", DATA, *WORDS, "--seed", 3, "--epochs", 1, "--out", "run"]
    result = fovea(*words, "--find-lr")
    assert result.code == 0, result.stderr
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["find-lr/synthetic-auto.png"]
    last = result.stdout.splitlines()[-1]
    command = shlex.split(last.removeprefix("train with it: "))
    assert command[:2] == ["fovea", "train"]
    assert "--find-lr" not in command
    printed = json.loads(fovea(*words, "--find-lr", "--json").stdout)
    assert printed["lr"] == float(command[-1])
    assert printed["command"] == shlex.join(command)
    assert len(printed["losses"]) == len(printed["lrs"]) == len(printed["smoothed"])
    assert fovea(*command[1:]).code == 0
    assert package.Run("run").config.optim.lr == printed["lr"]
    assert package.Run("run").config.seed == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [([DATA, "--lr", "0.1"], "lr"), ([DATA, "--set", "optim.lr=0.1"], "lr"), (["--resume", "run"], "--resume"),
     ([], "DATA"), ([DATA, "--optimizer", "mion"], "'muon'")],
)  # fmt: skip
def test_what_contradicts_it_is_one_line(words: list[str], part: str, tmp_path: Path, fovea) -> None:
    result = fovea("train", *words, "--find-lr")
    assert result.code == 2
    assert result.stderr.count("\n") == 1
    assert part in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_diverging_network_stops_the_test_early() -> None:
    found = package.find_lr(DATA, "tutorial", quiet=True, **{**OPTIONS, "model": "convnet:width=4", "optimizer": "sgd"})
    assert found.lrs[-1] < HIGHEST
    assert all(map(math.isfinite, found.losses))
    assert found.lr == pytest.approx(found.valley / 10, rel=0.06)
