"""Epochs of the images that are hardest."""

from dataclasses import replace

import pytest
import torch

import fovea
from fovea.data.hardest import Hardest
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess
from fovea.engine.progress import Display
from fovea.errors import ConfigError
from fovea.recipes.fast import fast
from fovea.resolve import resolve
from fovea.run import Run

CPU = torch.device("cpu")
OPTIONS = {"epochs": 4, "batch_size": 100, "device": "cpu", "quiet": True}


def test_unseen_images_come_first_and_then_those_of_large_loss():
    hardest = Hardest(6, 0.5)
    first = hardest.choose(torch.tensor([5, 4, 3, 2, 1, 0]))
    assert first.tolist() == [5, 4, 3]
    hardest.learn(first, torch.tensor([0.1, 3.0, 0.2]))
    second = hardest.choose(torch.arange(6))
    assert second.tolist() == [0, 1, 2], "not seen yet"
    hardest.learn(second, torch.tensor([2.0, 0.3, 0.4]))
    assert hardest.choose(torch.tensor([0, 5, 4, 1, 2, 3])).tolist() == [0, 4, 2], "in the order that was given"


def test_every_image_is_mirrored_every_other_time_that_it_is_shown():
    hardest = Hardest(200, 0.5)
    split = fovea.load_data("synthetic:num_images=200").train
    rows = torch.arange(200)
    split = replace(split, store=rows.view(200, 1, 1, 1).repeat(1, 1, 1, 2).byte(), rows=None, labels=rows)
    split.store[..., 0] = 255  # left, or right where it is mirrored
    preprocess = Preprocess((1, 2), 1, (0.0,), (1.0,), "none")
    loader = Loader(split, preprocess, 50, CPU, augment=["mirror:alternate=true"], shuffle=True, hardest=hardest)
    seen = {row: [] for row in range(200)}
    for epoch in range(1, 9):
        for images, labels in loader.epoch(epoch):
            for row, image in zip(labels.tolist(), images, strict=True):
                seen[row].append(image[0, 0, 0].item() > 0.99)
        loader.learn(epoch, torch.full((100,), 1.0 / epoch))  # the same half would come in every other epoch
    for row, sides in seen.items():
        assert len(sides) == 4
        assert sides[:2] in ([True, False], [False, True]), row
        assert sides[2:] == sides[:2], row


def test_a_share_of_1_takes_all():
    hardest = Hardest(4, 1.0)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(hardest.choose(order), order)
    assert not len(hardest.losses), "nothing to save"


def test_an_epoch_holds_the_share():
    data = fovea.load_data("synthetic:num_images=100")
    split = data.train
    hardest = Hardest(len(split), 0.3)
    preprocess = Preprocess(data.image_size, data.channels, (0.5,) * 3, (0.5,) * 3, data.config.resize)
    loader = Loader(split, preprocess, 10, CPU, shuffle=True, hardest=hardest)
    count = round(0.3 * len(split))
    assert (loader.num_images, len(loader)) == (count, -(-count // 10))
    hardest.learn(torch.arange(len(split)), torch.arange(len(split)).float())
    assert sorted(loader.order(1).tolist()) == list(range(len(split) - count, len(split)))
    assert sum(len(images) for images, _ in loader.epoch(1)) == count


def test_a_run_repeats_and_resumes_bit_for_bit(tmp_path):
    settings = {"hardest": 0.4}
    whole = fovea.train("digits", "simple", tmp_path / "whole", settings, **OPTIONS)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fovea.train("digits", "simple", tmp_path / "stopped", settings, on_epoch=stop, **OPTIONS)
    resumed = fovea.resume(tmp_path / "stopped", quiet=True)
    assert resumed.steps == whole.steps
    assert resumed.metrics["confusion"] == whole.metrics["confusion"]
    num_train = len(fovea.load_data("digits", val_fraction=0.1).train)
    state = Run(tmp_path / "whole").load_resume()["hardest"]
    assert state.isfinite().sum() == num_train, "in four epochs of two fifths each was seen"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"balance": "sample"}, "balance=sample"),
        ({"balance": "loss"}, "balance=loss"),
        ({"augment": ["mixup"]}, "mixup"),
    ],
)
def test_where_losses_do_not_compare_a_recipe_gives_way_and_a_user_is_told(settings, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        fovea.train("digits", "simple", tmp_path / "run", {"hardest": 0.5, **settings}, **OPTIONS)
    assert not (tmp_path / "run").exists()
    data = fovea.load_data("synthetic:num_images=40:image_size=32")
    config, _ = resolve(data, "fast", settings, Display(quiet=True))
    assert (config.hardest, config.epochs) == (1.0, fast("").epochs // 2), "as many steps as the recipe's"
    config, _ = resolve(data, "fast", settings, Display(quiet=True), epochs=3)
    assert (config.hardest, config.epochs) == (1.0, 3)
