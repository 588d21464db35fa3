"""Without memory: one line that names the batch size and the one to try, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fovea as package
from fovea.device import memory_errors
from fovea.errors import OutOfMemory
from fovea.run import Run

DATA = "synthetic:num_images=200"

# `where` is the forward pass that fails: 0 is the first.
GREEDY = '''
import torch
from torch import Tensor

from fovea.models.base import Model
from fovea.models.convnet import ConvNet
from fovea.registry import model


class Greedy(ConvNet):
    passes, fails_at, kind = 0, 0, "cpu"

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        if self.passes > self.fails_at:
            if self.kind == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            if self.kind == "python":
                raise MemoryError
            torch.empty(2**50)  # a petabyte of floats
        return super().forward(images)


@model
def greedy(
    num_classes: int, channels: int, image_size: tuple[int, int], fails_at: int = 0, kind: str = "cpu"
) -> Model:
    """Wants a petabyte."""
    built = Greedy(num_classes, channels, image_size, 4)
    built.fails_at, built.kind = fails_at, kind
    return built
'''


@pytest.fixture
def words(own_registry: None) -> tuple[object, ...]:
    Path("greedy.py").write_text(GREEDY)
    words = ("--plugin", "greedy.py", "--device", "cpu", "--epochs", 2, "--out", "run")
    return ("train", DATA, "--recipe", "simple", *words)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "python"])
def test_the_first_epoch_leaves_nothing(kind: str, words: tuple[object, ...], fovea) -> None:
    result = fovea(*words, "--batch-size", 48, "--model", f"greedy:kind={kind}")
    assert result.code == 2
    assert "out of memory on cpu at batch size 48: try --batch-size 24" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("run").exists(), "so that the next try can have the same --out"


def test_the_size_to_try_is_smaller_than_the_data(words: tuple[object, ...], fovea) -> None:
    num_images = len(package.load_data(DATA, val_fraction=0.1).train)
    assert f"--batch-size {num_images // 2}," in fovea(*words, "--batch-size", 4000, "--model", "greedy").stderr
    smallest = fovea(*words, "--batch-size", 1, "--model", "greedy").stderr
    assert "smaller --model" in smallest
    assert "--batch-size" not in smallest


def test_a_later_epoch_leaves_a_run_that_goes_on(words: tuple[object, ...], fovea) -> None:
    # An epoch of 3 steps and one look at val: the fifth pass is in the second epoch.
    result = fovea(*words, "--batch-size", 48, "--model", "greedy:fails_at=4")
    assert result.code == 2
    assert len(Run("run").results) == 1
    assert fovea("predict", "run", picture(), "--plugin", "greedy.py").code == 0
    # In a process with more memory: the counter starts anew.
    assert fovea("train", "--resume", "run", "--plugin", "greedy.py").code == 0
    assert len(Run("run").results) == 2


def test_evaluation_names_its_own_size(words: tuple[object, ...], fovea) -> None:
    assert fovea(*words, "--batch-size", 48, "--model", "greedy:fails_at=100").code == 0
    info = Path("run/model.json")
    info.write_text(info.read_text().replace("fails_at=100", "fails_at=0"))
    result = fovea("evaluate", "run", "--plugin", "greedy.py", "--device", "cpu")
    assert result.code == 2
    assert "out of memory on cpu for 100 images at a time" in result.stderr


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("here", "try less"):
        raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(OutOfMemory, match="^out of memory here: try less$"), memory_errors("here", "try less"):
        torch.empty(2**50)


def picture() -> Path:
    from PIL import Image

    Image.new("RGB", (16, 16), "navy").save("picture.png")
    return Path("picture.png")
