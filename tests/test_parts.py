"""What every model and every augmentation holds, and that a new one is one new file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import fovea as package
from fovea import registry
from fovea.augment.types import Draw, Mixed
from fovea.config import OptimConfig
from fovea.data.loader import build_augmentations, mixing
from fovea.errors import ConfigError
from fovea.models.base import Model, build_model, num_parameters
from fovea.optim.build import build_optimizer
from note import Net

# Forms that train in a moment, of models that would take long; a model that is not named here is tested as it is.
SMALL = {
    "alexnet": "alexnet:widen=0.1:dropout=0.1",
    "vgg": "vgg:11:widen=0.2",
    "resnet": "resnet:8",
    "wide-resnet": "wide-resnet:10:1:dropout=0.1",
    "timm": "timm:test_resnet:min_side=32",
}


@pytest.mark.parametrize("name", registry.model.names())
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (3, 24, 41)])
def test_every_model(name: str, channels: int, height: int, width: int, tmp_path: Path) -> None:
    def build() -> Model:
        torch.manual_seed(0)
        built = build_model(SMALL.get(name, name), 7, channels, (height, width))
        built.init_from_data(images)
        return built

    images, labels = torch.rand(16, channels, height, width), torch.arange(16) % 7
    model = build()
    assert all(map(torch.equal, model.state_dict().values(), build().state_dict().values())), "a seed repeats"
    assert model.training
    assert model(images).shape == (16, 7)
    optimizer = build_optimizer(OptimConfig(lr=0.02), model)
    in_groups = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, in_groups)) == sorted(map(id, model.parameters())), "each parameter in one group"
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    losses, untouched = [], set(learned)
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        for parameter, value in learned.items():
            assert value.grad is not None, f"no gradient reaches {parameter}"
            assert value.grad.isfinite().all()
            if value.grad.any():
                untouched.discard(parameter)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not untouched, "no gradient reaches these"

    model.eval()
    expected = model(images)
    assert torch.allclose(model(images[:5]), expected[:5], atol=1e-5), "an image's logits depend on its neighbours"
    assert torch.equal(model(images), expected), "in evaluation, nothing is drawn at random"
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = build_model(registry.model.resolve(SMALL.get(name, name), 3), 7, channels, (height, width)).eval()
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(again(images), expected)


@pytest.mark.parametrize("name", registry.model.names())
def test_every_model_takes_a_small_image_or_says_what_it_needs(name: str) -> None:
    for side in (1, 2, 3, 4, 7, 8, 14, 15, 16):
        refusal = None
        try:
            model = build_model(SMALL.get(name, name), 3, 1, (side, 40)).eval()
        except ConfigError as error:
            refusal = str(error)
        if refusal is None:
            assert model(torch.rand(2, 1, side, 40)).shape == (2, 3)
        else:
            assert re.search(r"at least \d+×\d+ pixels, not 40×|set min_side", refusal)


def test_tutorial_is_the_notes_network() -> None:
    ours, note = build_model("tutorial", 10, 3, (32, 32)), Net()
    ours.load_state_dict(note.state_dict())
    note.load_state_dict(ours.state_dict())
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(ours(images), note(images))
    assert num_parameters(ours) == 62_006


def test_tutorial_says_which_images_are_too_small() -> None:
    with pytest.raises(ConfigError, match="at least 16×16"):
        build_model("tutorial", 10, 1, (8, 8))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizers_are_torchs(name: str) -> None:
    """Fused kernels against torch's plain ones."""
    torch.manual_seed(0)
    model = build_model("tutorial", 10, 3, (32, 32))
    plain = build_model("tutorial", 10, 3, (32, 32))
    plain.load_state_dict(model.state_dict())
    config = OptimConfig(name=name, lr=0.01, momentum=0.8, weight_decay=0.1)
    ours = build_optimizer(config, model)
    if name == "sgd":
        theirs = torch.optim.SGD(plain.parameters(), 0.01, 0.8, weight_decay=0.1, foreach=False, fused=False)
    else:
        theirs = torch.optim.AdamW(plain.parameters(), 0.01, (0.8, 0.999), weight_decay=0.1, foreach=False, fused=False)
    images = torch.rand(8, 3, 32, 32)
    for _ in range(3):
        for net, optimizer in ((model, ours), (plain, theirs)):
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", registry.augmentation.names())
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 9)])
def test_every_augmentation(name: str, channels: int, side: int) -> None:
    (augment,) = build_augmentations([name])
    images = torch.rand(64, channels, side, side, generator=torch.Generator().manual_seed(0))
    before = images.clone()

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(123)
        result = augment(images, Draw(generator, torch.ones(64), torch.arange(64)))
        after = torch.rand(1)
        torch.manual_seed(123)
        assert torch.equal(after, torch.rand(1)), "all random numbers come from the draw's generator"
        if not isinstance(result, Mixed):
            return result
        assert mixing([name]) == name, "what mixes labels says so: -> Mixed"
        assert result.partners.shape == result.shares.shape == (64,)
        assert 0 <= result.shares.min() < result.shares.max() <= 1
        targets = result.targets(torch.arange(64) % 7, 7)
        assert targets.dtype == torch.float32
        assert torch.allclose(targets.sum(1), torch.ones(64))
        return result.images

    changed = draw(1)
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(images, before), "the input was changed in place"
    assert torch.equal(draw(1), changed), "the same seed draws the same"
    assert not torch.equal(draw(2), changed), "another seed draws another"
    touched = (changed != images).flatten(1).any(1)
    assert touched.any(), "no image was changed"


def test_mirror_mirrors_about_half() -> None:
    (mirror,) = build_augmentations(["mirror"])
    images = torch.arange(4.0).view(1, 1, 1, 4).repeat(1000, 1, 1, 1) / 4
    flipped = mirror(images, Draw(torch.Generator().manual_seed(0), torch.ones(1000), torch.arange(1000)))
    is_flipped = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (is_flipped | (flipped == images).flatten(1).all(1)).all()
    assert 430 < int(is_flipped.sum()) < 570
    (always,) = build_augmentations(["mirror:1"])
    assert torch.equal(always(images, Draw(torch.Generator(), torch.ones(1000), torch.arange(1000))), images.flip(-1))


def test_shift_is_a_crop_of_the_padded_image() -> None:
    (shift,) = build_augmentations(["shift:2"])
    images = torch.rand(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    shifted = shift(images, Draw(torch.Generator().manual_seed(1), torch.ones(300), torch.arange(300)))
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    seen = set()
    for image, result in zip(padded, shifted, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(image[:, y : y + 8, x : x + 8], result)]
        assert found
        seen.update(found)
    assert len(seen) == 25


MODEL = '''
from torch import Tensor, nn

from fovea.models.base import Model
from fovea.registry import model


class Linear(Model):
    def __init__(self, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


@model
def my_linear(num_classes: int, channels: int, image_size: tuple[int, int]) -> Model:
    """One linear layer."""
    return Linear(channels * image_size[0] * image_size[1], num_classes)
'''
AUGMENTATION = '''
import torch
from torch import Tensor

from fovea.augment.types import Draw, Mixed
from fovea.registry import augmentation


@augmentation
def my_darker(images: Tensor, draw: Draw, least: float = 0.5) -> Tensor:
    """Darken each image by a factor of its own."""
    factor = torch.rand(len(images), 1, 1, 1, generator=draw.generator, device=images.device)
    return images * (least + (1 - least) * factor)
'''
SOURCE = '''
import torch

from fovea.data.types import Place, RawData, RawSplit
from fovea.registry import source


@source
def my_shades(place: Place, num_images: int = 60) -> RawData:
    """Dark and bright squares."""
    labels = torch.arange(num_images) % 2
    images = (60 + 120 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    ids = [f"shades/{row}" for row in range(num_images)]
    return RawData(("dark", "bright"), {"train": RawSplit(images, labels.tolist(), ids)})
'''
WORDS = ["train", "my-shades:num_images=80", "--model", "my-linear", "--augment", "my-darker:0.9", "--epochs", "3",
         "--device", "cpu", "--out", "run", "--json"]  # fmt: skip


def test_a_part_of_each_kind_as_one_new_file_in_the_package(tmp_path: Path) -> None:
    """As CONTRIBUTING.md shows: put the file into its folder, and it is found."""
    home = tmp_path / "src" / "fovea"
    shutil.copytree(Path(package.__file__).parent, home)
    (home / "models" / "my_linear.py").write_text(f'"""A model of one layer."""\n{MODEL}', encoding="utf-8")
    (home / "augment" / "my_darker.py").write_text(f'"""Darker images."""\n{AUGMENTATION}', encoding="utf-8")
    (home / "data" / "sources" / "my_shades.py").write_text(f'"""Two shades."""\n{SOURCE}', encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(home.parent)}

    def call(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "fovea.cli", *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = call("list")
    assert "my-linear" in listed
    assert "Darken each image by a factor of its own" in listed
    assert json.loads(call(*WORDS))["metrics"]["accuracy"] == 1.0


def test_a_part_of_each_kind_as_a_plugin(tmp_path: Path, fovea, own_registry) -> None:
    for name, text in (("model", MODEL), ("augmentation", AUGMENTATION), ("source", SOURCE)):
        Path(f"{name}.py").write_text(text, encoding="utf-8")
    plugins = ["--plugin", "model.py", "--plugin", "augmentation.py", "--plugin", "source.py"]
    listed = fovea("list", "models", *plugins)
    assert "my-linear" in listed.stdout
    result = fovea(*WORDS, *plugins)
    assert result.code == 0, result.stderr
    saved = "".join(p.read_text() for p in Path("run").glob("*.json") if p.name != "environment.json")
    assert "model.py" not in saved + Path("run/config.yaml").read_text(), "a saved run must not name code"


def test_a_run_of_a_plugins_model_says_so_when_the_plugin_is_not_given(tmp_path: Path, fovea, own_registry) -> None:
    Path("mine.py").write_text(MODEL, encoding="utf-8")
    assert fovea("train", "synthetic:num_images=100", "--model", "my-linear", "--epochs", 1, "--out", "run",
                 "--plugin", "mine.py").code == 0  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "fovea.cli", "predict", "run", "."], capture_output=True, text=True)
    assert done.returncode == 2
    assert "my-linear" in done.stderr
    assert "--plugin" in done.stderr
    assert done.stderr.count("\n") == 1
