"""Settings chosen from the data, and what is said of them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

import fovea as package
from fovea.engine.small_first import check_small_first
from fovea.models.base import build_model
from fovea.plan import Facts, plan
from fovea.recipes.fast import fast
from fovea.recipes.simple import simple
from fovea.run import Run

pytestmark = pytest.mark.usefixtures("no_report")
PETS = ("cat", "dog")


def facts(
    side: int, num_train: int = 1000, channels: int = 3, classes: tuple[str, ...] = PETS, **more: object
) -> Facts:
    counts = (num_train // len(classes),) * len(classes)
    return Facts(**{"name": "pets", "classes": classes, "counts": counts, "channels": channels, "side": side,
                    "has_val": True, **more})  # fmt: skip


def test_many_colour_images_of_32_pixels_are_trained_by_fast() -> None:
    config, _ = plan(facts(32, 45_000), "cpu")
    assert config == fast("pets").model_copy(update={"recipe": "auto"})


def test_minutes_for_many_small_images_are_spent_as_fast_spends_its_epochs() -> None:
    config, _ = plan(facts(32, 45_000), "cpu", 10)
    recipe = fast("pets")
    for name in ("optim", "hardest", "batch_size", "part_size"):
        assert getattr(config, name) == getattr(recipe, name)
    assert (config.small_first.until, config.small_first.sizes) == (0.3, 2)
    assert plan(facts(64, 45_000), "cpu", 60)[0].hardest == 1, "it was measured for small images"


def test_without_minutes_large_pictures_are_not_trained_longer_than_they_need() -> None:
    config, _ = plan(facts(224, 45_000), "cpu")
    assert (config.epochs, config.hardest) == (8, 1.0)


def test_tiny_images_are_trained_as_simple_does() -> None:
    config, reasons = plan(facts(8, 1438, 1, tuple("0123456789"), has_val=False), "cpu")
    assert config == simple("pets").model_copy(update={"recipe": "auto"})
    assert [reason.settings for reason in reasons] == [("model",)]


@pytest.mark.parametrize(
    ("side", "channels", "minutes"),
    [*product((4, 16, 17, 24, 28, 32, 48), (1, 3), (None, 0.1, 60)), (49, 3, None), (64, 3, 0.1), (81, 3, 60), (96, 1, None)],
)  # fmt: skip
def test_every_plan_can_be_trained(side: int, channels: int, minutes: float | None) -> None:
    for num_train in (20, 3000, 30_000):
        config, reasons = plan(facts(side, num_train, channels), "cpu", minutes)
        assert len(reasons) <= 5
        assert (config.minutes is None) == (config.epochs is not None)
    model = build_model(config.model, 2, channels, (side, side))
    check_small_first(config.small_first, model, channels, (side, side))


def test_the_less_time_the_smaller_the_network() -> None:
    models = [plan(facts(32, 45_000), "cpu", minutes)[0].model for minutes in (0.5, 1, 60)]
    assert [name.split(":")[1] for name in models] == ["widths=16/32/64", "widths=32/128/128", "widths=64/256/256"]
    assert plan(facts(32, 45_000), "cpu", 5)[0].model == models[2]
    assert plan(facts(32, 45_000), "cuda", 1)[0].model == models[2]
    assert plan(facts(32, 1000), "cpu", 1)[0].model == models[1], "few images are to be seen often"
    assert plan(facts(32, 1000), "cpu", 10)[0].model == models[2]


def test_larger_pictures_are_reduced_by_the_first_layer() -> None:
    stems = [plan(facts(side), "cpu")[0].model.partition("stem=")[2] for side in (32, 64, 128, 224)]
    assert stems == ["", "stride", "patch", "patch"]


@pytest.mark.parametrize(
    ("channels", "classes", "mirrors"),
    [(3, PETS, True), (1, PETS, False), (3, ("0", "1", "2"), False), (3, ("0 - zero", "1 - one"), False),
     (3, ("a", "b", "other"), False), (3, ("a", "bird", "crab"), True)],
)  # fmt: skip
def test_what_is_no_longer_the_same_when_mirrored_is_not_mirrored(channels, classes, mirrors) -> None:
    config, _ = plan(facts(32, channels=channels, classes=classes), "cpu")
    assert any(part.startswith("mirror") for part in config.augment) == mirrors
    assert config.views == ("mirror" if mirrors else "one")


def test_classes_of_few_images_are_balanced_and_named() -> None:
    config, reasons = plan(facts(32, counts=(500, 50)), "cpu")
    assert config.balance == "loss"
    assert "cat has 500 images and dog 50" in reasons[-1].text
    assert plan(facts(32, counts=(100, 50)), "cpu")[0].balance == "none"
    assert plan(facts(32, counts=(100, 3)), "cpu")[0].balance == "none", "three images would outweigh a hundred"


def test_val_is_a_larger_share_of_few_images() -> None:
    counted = (500, 5000, 100_000)
    shares = [plan(facts(32, count, has_val=False), "cpu")[0].data.val_fraction for count in counted]
    assert shares == [0.2, 0.1, 0.05]
    assert plan(facts(32, 500), "cpu")[0].data.val_fraction == 0


def test_a_new_user_is_told_why_and_the_run_goes_on_without_a_plan(fovea, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", "synthetic:image_size=20:num_images=60", "--epochs", 1, "--device", "cpu", "--precision", "fp32")
    result = fovea(*words, "--out", "told")
    assert result.code == 0
    lines = result.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("record:widths"))
    assert lines[1].startswith("The data came without a val split, so Fovea kept 8 images apart")
    reasons = [line for line in lines[2:start] if line.startswith(("model ", "augment ", "balance "))]
    assert len(reasons) == 2
    assert all("(--" in line for line in reasons), "each names the option that overrides it"
    assert "epochs in batches" not in result.stdout, "what was given needs no reason"
    config = Run("told").config
    assert (config.recipe, config.epochs, config.data.val_fraction) == ("auto", 1, 0.2)
    assert len(Run("told").held_out["val"]) == 8

    monkeypatch.setattr("fovea.resolve.plan", None)
    assert fovea("train", "--resume", "told").code == 0
    assert fovea("evaluate", "told", "--split", "val").code == 0


def test_what_is_given_overrides_the_plan(tmp_path: Path) -> None:
    data = package.load_data("synthetic:image_size=20:num_images=60")
    options = {"model": "convnet:width=4", "augment": "none", "val_fraction": 0, "epochs": 1, "batch_size": 30}
    config = package.train(data, "auto", tmp_path / "run", {"optim.lr": 0.01}, quiet=True, **options).config
    assert (config.model, config.augment, config.data.val_fraction) == ("convnet:width=4", (), 0)
    assert (config.optim.name, config.optim.lr, config.batch_size) == ("sgd", 0.01, 30), "muon is the record network's"


def test_the_wrong_is_named_before_the_data_is_loaded(fovea) -> None:
    result = fovea("train", "no-such-data", "--model", "convent")
    assert (result.code, "'convent'" in result.stderr) == (2, True)
