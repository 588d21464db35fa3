"""MixUp and CutMix against their formulas, soft labels on their way to the loss; torchvision's policies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

import fovea as package
from fovea.augment.types import Draw, Mixed
from fovea.data.loader import Loader, build_augmentations
from fovea.data.preprocess import Preprocess
from fovea.data.types import Split

COUNT = 400
DATA = "synthetic:num_images=120"


def mix(spec: str, images: Tensor, seed: int = 1) -> Mixed:
    (function,) = build_augmentations([spec])
    mixed = function(
        images, Draw(torch.Generator().manual_seed(seed), torch.ones(len(images)), torch.arange(len(images)))
    )
    assert isinstance(mixed, Mixed)
    return mixed


@pytest.fixture
def images() -> Tensor:
    return torch.rand(COUNT, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def test_mixup_is_its_formula(images: Tensor) -> None:
    mixed = mix("mixup", images)
    assert sorted(mixed.partners.tolist()) == list(range(COUNT)), "every image is one other's partner"
    for image, partner, share, result in zip(images, mixed.partners, mixed.shares, mixed.images, strict=True):
        assert torch.allclose(result, share * image + (1 - share) * images[partner], atol=1e-6)
    # Beta(1, 1) is uniform: its mean is 1/2, its variance 1/12.
    assert mixed.shares.mean().item() == pytest.approx(1 / 2, abs=0.05)
    assert mixed.shares.var().item() == pytest.approx(1 / 12, abs=0.02)
    narrow = mix("mixup:alpha=8", images).shares  # the variance of Beta(a, a) is 1 / (4 (2 a + 1))
    assert narrow.var().item() == pytest.approx(1 / 68, rel=0.25)
    assert (mix("mixup:probability=0.3", images).shares == 1).float().mean().item() == pytest.approx(0.7, abs=0.08)


def test_cutmix_pastes_one_rectangle_and_shares_are_areas(images: Tensor) -> None:
    mixed = mix("cutmix:probability=1", images)
    for image, partner, share, result in zip(images, mixed.partners, mixed.shares, mixed.images, strict=True):
        own = (result == image).all(0)
        assert torch.equal(result, torch.where(own, image, images[partner]))
        pasted = ~own
        if not pasted.any():  # nothing, or itself
            continue
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        assert len(rows) * len(columns) == pasted.sum(), "a rectangle"
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert share.item() == pytest.approx(own.float().mean().item(), abs=1e-6)
    # A half of all rectangles has more than half of the area before the edges cut them: shares lean to the own label.
    assert 0.5 < mixed.shares.mean() < 0.75
    untouched = (mix("cutmix", images).shares == 1).float().mean().item()
    assert 0.4 < untouched < 0.7, "half of the images, and those with rectangles of no pixel"


def test_targets_hold_both_labels() -> None:
    mixed = Mixed(torch.zeros(3, 1, 2, 2), torch.tensor([1, 2, 0]), torch.tensor([0.25, 1.0, 0.5]))
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    assert torch.equal(mixed.targets(torch.tensor([0, 1, 1]), 3), expected)


def test_the_loader_gives_soft_labels_of_the_images_that_it_gives() -> None:
    """Each class is one grey level: a standardized, mirrored, mixed image shows its own target."""
    labels = torch.arange(50) % 5
    split = Split((labels * 60).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous(), labels, ())
    loader = Loader(split, Preprocess((8, 8), 1, (0.0,), (1.0,)), 20, torch.device("cpu"), 3, ("mirror", "mixup"), True)
    batches = list(loader.epoch(2))
    assert [targets.shape for _, targets in batches] == [(20, 5), (20, 5), (10, 5)]
    for batch, targets in batches:
        assert torch.allclose(batch.mean(dim=(1, 2, 3)), targets @ (torch.arange(5) * 60 / 255), atol=1e-5)
        assert (targets > 0).sum(1).max() == 2


def test_the_loss_is_that_of_soft_labels(tmp_path: Path) -> None:
    """One step over the whole of train, written out; label smoothing is spread over the mixed labels."""
    data = package.load_data(DATA)
    settings = {"log_interval": 1, "label_smoothing": 0.2, "standardize": False}
    run = package.train(
        data, "tutorial", tmp_path / "run", {**settings, "data.val_fraction": 0}, quiet=True, epochs=1, device="cpu",
        batch_size=len(data.train), augment="cutmix:probability=1", model="convnet:width=4",
    )  # fmt: skip
    from fovea.engine.train import build

    model, info = build(run.config, data)
    loader = Loader(data.train, info.preprocess, len(data.train), torch.device("cpu"), 0, run.config.augment, True)
    images, targets = next(loader.epoch(1))
    smooth = 0.8 * targets + 0.2 / len(data.classes)
    expected = -(smooth * F.log_softmax(model(images), dim=1)).sum(1).mean().item()
    assert float(run.steps[0]["loss"]) == pytest.approx(expected, abs=1e-5)


def test_a_run_with_mixing_repeats_and_learns(tmp_path: Path, monkeypatch) -> None:
    for name in ("draw_pictures", "write_report"):  # drawing takes longer than these trainings
        monkeypatch.setattr(f"fovea.api.{name}", lambda *_: None)
    options = {"epochs": 4, "device": "cpu", "batch_size": 16, "augment": "mirror,mixup:0.4", "quiet": True}
    options["precision"] = "fp32"  # so few steps are not the same on CPUs that would choose bf16
    one, same = (package.train(DATA, out=tmp_path / name, **options) for name in ("one", "same"))
    assert (one.path / "steps.csv").read_bytes() == (same.path / "steps.csv").read_bytes()
    assert one.metrics["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("augment", "batch_size", "parts"),
    [
        ("mixup,mirror", 8, ["mixup", "last", "after mirror"]),
        ("mixup,cutmix", 8, ["mixup and cutmix", "choose one"]),
        ("mixup,mixup", 8, ["choose one"]),
        ("mirror,mixup", 1, ["mixup", "batch_size of 2"]),
        ("mixup:alpha=0", 8, ["mixup:alpha=0"]),
        ("cutmix:probability=2", 8, ["cutmix:probability=2"]),
        ("shift:40", 8, ["shift:40", "does not fit"]),
        ("randaugment:magnitude=31", 8, ["randaugment:magnitude=31", "30"]),
        ("randaugment:0", 8, ["num_ops=0"]),
    ],
)
def test_contradictions_say_so_before_training(augment: str, batch_size: int, parts: list[str], fovea) -> None:
    result = fovea("train", DATA, "--augment", augment, "--batch-size", batch_size, "--out", "run")
    assert result.code == 2
    assert result.stderr.count("\n") == 1
    assert all(part in result.stderr for part in parts), result.stderr
    assert not Path("run").exists()


STUBBORN = '''
from fovea.models.base import Model
from fovea.models.convnet import ConvNet
from fovea.registry import model


class Stubborn(ConvNet):
    takes_soft_labels = False


@model
def stubborn(num_classes: int, channels: int, image_size: tuple[int, int]) -> Model:
    """Hard labels only."""
    return Stubborn(num_classes, channels, image_size, 4)
'''


def test_a_model_may_refuse_mixed_labels(fovea, own_registry) -> None:
    Path("stubborn.py").write_text(STUBBORN)
    words = ("train", DATA, "--model", "stubborn", "--plugin", "stubborn.py", "--epochs", 1)
    result = fovea(*words, "--augment", "mixup", "--out", "run")
    assert result.code == 2
    assert "mixup mixes labels, and model 'stubborn'" in result.stderr
    assert not Path("run").exists()
    assert fovea(*words, "--augment", "mirror", "--out", "run").code == 0


def test_inspect_names_the_shares(fovea, monkeypatch) -> None:
    from fovea.uses import grid

    seen: list[str] = []
    draw = grid.draw_images

    def noted(path: Path, images: torch.Tensor, captions: list[str], *rest: object) -> None:
        seen.extend(captions)
        draw(path, images, captions, *rest)

    monkeypatch.setattr(grid, "draw_images", noted)
    assert fovea("inspect", DATA, "--augment", "mirror,mixup", "--out", "seen").code == 0
    shares = [caption for caption in seen if "\n" in caption]
    assert shares
    for caption in shares:
        assert sum(int(line.split()[-2]) for line in caption.splitlines()) in (99, 100, 101)


@pytest.mark.parametrize(
    ("spec", "policy"),
    [("randaugment:3:magnitude=12", v2.RandAugment(3, 12)), ("trivialaugment", v2.TrivialAugmentWide())],
)
def test_policies_are_torchvisions(spec: str, policy: torch.nn.Module) -> None:
    levels = torch.randint(256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    (function,) = build_augmentations([spec])
    found = function(levels.float() / 255, Draw(torch.Generator().manual_seed(5), torch.ones(30), torch.arange(30)))
    torch.manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5))))
    for image, result in zip(levels, found, strict=True):
        assert torch.equal((result * 255).round().to(torch.uint8), policy(image))
