"""The loop: the note's arithmetic, repeatable, and not to be harmed by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import fovea as package
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess
from fovea.engine.evaluate import infer
from fovea.engine.train import build
from fovea.recipes.tutorial import tutorial
from fovea.run import Run
from note import Net, transformed

HALF = (0.5, 0.5, 0.5)


def test_batches_are_the_notes_bit_for_bit() -> None:
    data = package.load_data("synthetic:num_images=100:image_size=32:num_classes=10")
    loader = Loader(data.train, Preprocess((32, 32), 3, HALF, HALF), 4, torch.device("cpu"), seed=3, shuffle=True)
    order = loader.order(2)
    assert sorted(order.tolist()) == list(range(80))
    assert not torch.equal(order, loader.order(1))
    for step, (images, labels) in enumerate(loader.epoch(2)):
        rows = order[4 * step : 4 * step + 4]
        assert torch.equal(images, transformed(data.train.images[rows]))
        assert torch.equal(labels, data.train.labels[rows])


def test_same_losses_as_a_plain_loop_step_for_step(tmp_path: Path) -> None:
    """The same first weights and order of images: each of 2 epochs × 75 losses, and the weights at the end."""
    data = package.load_data("synthetic:num_images=375:image_size=32:num_classes=10:noise=0.5")
    settings = {"log_interval": 1}
    run = package.train(data, "tutorial", tmp_path / "run", settings, quiet=True, epochs=2, lr=0.01, device="cpu")

    config = tutorial(data.name).with_values({"optim.lr": 0.01})
    first_weights = build(config, data)[0].state_dict()
    net = Net()
    net.load_state_dict(first_weights)
    loader = Loader(data.train, Preprocess((32, 32), 3, HALF, HALF), 4, torch.device("cpu"), seed=0, shuffle=True)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for epoch in (1, 2):
        for rows in torch.split(loader.order(epoch), 4):
            optimizer.zero_grad()
            loss = criterion(net(transformed(data.train.images[rows])), data.train.labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    assert [float(row["loss"]) for row in run.steps] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.05
    for name, tensor in run.weights("last").items():
        assert torch.allclose(tensor, net.state_dict()[name], atol=2e-5), name
    assert not torch.allclose(first_weights["fc3.bias"], net.state_dict()["fc3.bias"], atol=1e-3)


def test_the_notes_first_running_loss_on_cifar10(cifar10_dir: Path, tmp_path: Path) -> None:
    """The note reads 2.219 after 2,000 mini-batches; seeds differ by a few hundredths."""
    data = package.load_data("cifar10", data_dir=str(cifar10_dir))
    part = data.train.take(torch.arange(8000))
    small = type(data)(data.config, data.classes, {"train": part}, data.facts, {})
    run = package.train(small, "tutorial", tmp_path / "run", quiet=True, epochs=1, device="cpu")
    assert [(row["epoch"], row["step"]) for row in run.steps] == [("1", "2000")]
    assert 2.1 < float(run.steps[0]["loss"]) < 2.3


def test_the_notes_log_lines(fovea) -> None:
    result = fovea("train", "synthetic:image_size=32:num_images=200", "--recipe", "tutorial", "--epochs", 1,
                   "--set", "log_interval=20", "--out", "run")  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if line.startswith("[")]
    rows = Run("run").steps
    assert lines == [f"[1, {step:5d}] loss: {float(row['loss']):.3f}" for step, row in zip((20, 40), rows, strict=True)]
    assert "62,0" not in result.stdout  # four classes: fewer parameters than the note's ten
    assert "61,496 parameters" in result.stdout
    assert "tutorial: 1.30 MFLOP for a forward pass of one image" in result.stdout


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def train(name: str, seed: int) -> Run:
        options = {"epochs": 2, "seed": seed, "augment": "mirror,shift:2", "device": "cpu", "val_fraction": 0.2}
        return package.train("synthetic:num_images=200", "simple", tmp_path / name, quiet=True, **options)

    one, same, other = train("one", 1), train("same", 1), train("other", 2)
    assert _bytes(one) == _bytes(same)
    assert _bytes(one)["steps.csv"] != _bytes(other)["steps.csv"]


def test_training_leaves_torch_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    package.train("synthetic:num_images=100", out=tmp_path / "run", quiet=True, epochs=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_stopped_run_ends_as_if_it_had_never_stopped(stop: signal.Signals, tmp_path: Path, fovea) -> None:
    words = ["train", "synthetic:num_images=2000", "--epochs", "12", "--augment", "mirror,shift:2",
             "--val-fraction", "0.1", "--device", "cpu", "--batch-size", "20", "--seed", "5",
             "--model", "convnet:width=4"]  # fmt: skip
    stopped = subprocess.Popen(
        [sys.executable, "-m", "fovea.cli", *words, "--out", "stopped"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts in the background ignores it
    )  # fmt: skip
    results = tmp_path / "stopped" / "results.csv"
    while stopped.poll() is None and not (results.is_file() and len(results.read_text().splitlines()) > 3):
        time.sleep(0.01)
    os.kill(stopped.pid, stop)
    message = stopped.communicate()[1]
    assert stopped.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL), message
    num_epochs = len(Run("stopped").results)
    assert 3 <= num_epochs < 12, "stopped too late to show anything"
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    if stop == signal.SIGINT:
        assert "Traceback" not in message
        assert "fovea train --resume stopped" in message
    assert fovea("predict", "stopped", _picture(tmp_path), "--json").code == 0  # the weights so far can be used

    assert fovea("train", "--resume", "stopped").code == 0
    assert fovea(*words, "--out", "whole").code == 0
    assert _bytes(Run("stopped")) == _bytes(Run("whole"))
    assert Run("stopped").metrics == Run("whole").metrics
    assert (tmp_path / "stopped" / "report.html").is_file()
    assert not list((tmp_path / "stopped").rglob(".*")), "a temporary file was left behind"


def test_resuming_a_finished_run_changes_nothing(tiny_run: Path, fovea) -> None:
    before = _bytes(Run(tiny_run))
    assert fovea("train", "--resume", tiny_run).code == 0
    assert _bytes(Run(tiny_run)) == before


def test_best_is_chosen_on_val(tmp_path: Path) -> None:
    data = package.load_data("synthetic:num_images=300:noise=2.5", val_fraction=0.3)
    kept: list[dict[str, torch.Tensor]] = []
    run_path = tmp_path / "run"
    run = package.train(
        data, "simple", run_path, quiet=True, epochs=6, lr=0.3, device="cpu",
        on_epoch=lambda record: kept.append(Run(run_path).weights("last")),
    )  # fmt: skip
    scores = [(float(row["val_accuracy"]), -float(row["val_loss"])) for row in run.results]
    best = scores.index(max(scores))
    for name, tensor in run.weights("best").items():
        assert torch.equal(tensor, kept[best][name])
    model = package.load(run).model
    val = data.splits["val"]
    logits = infer(model, val, run.info.preprocess, torch.device("cpu"))
    assert (logits.argmax(1) == val.labels).double().mean().item() == pytest.approx(scores[best][0], abs=1e-5)


def test_small_data_gets_more_epochs_unless_they_are_named(tmp_path: Path, fovea) -> None:
    data = "synthetic:num_images=100"  # 72 to train on: 2 steps of 64 an epoch
    result = fovea("train", data, "--recipe", "simple", "--set", "min_steps=9", "--set", "epochs=3", "--out", "named")
    assert len(Run("named").results) == 5
    assert "5 epochs instead of 3" in result.stdout
    assert Run("named").config.epochs == 5
    assert fovea("train", data, "--epochs", 3, "--out", "fewer").code == 0
    assert len(Run("fewer").results) == 3
    config = package.train(data, "tutorial", tmp_path / "run", quiet=True, device="cpu", epochs=1).config
    assert (config.epochs, config.min_steps) == (1, 0)


def test_train_loss_weighs_a_small_last_batch_rightly(tmp_path: Path) -> None:
    """80 images in batches of 32, 32 and 16: the epoch's loss is the mean over images, not over batches."""
    run = package.train(
        "synthetic:num_images=100", "tutorial", tmp_path / "run", {"log_interval": 1}, quiet=True,
        epochs=1, batch_size=32, device="cpu", val_fraction=0,
    )  # fmt: skip
    losses = [float(row["loss"]) for row in run.steps]
    assert len(losses) == 3
    expected = (32 * losses[0] + 32 * losses[1] + 16 * losses[2]) / 80
    assert float(run.results[0]["train_loss"]) == pytest.approx(expected, abs=2e-5)


def _bytes(run: Run) -> dict[str, bytes]:
    names = ("steps.csv", "weights/last.safetensors", "weights/best.safetensors", "predictions.csv")
    return {name: (run.path / name).read_bytes() for name in names}


def _picture(folder: Path) -> Path:
    from PIL import Image

    path = folder / "picture.png"
    Image.new("RGB", (40, 30), "navy").save(path)
    return path
