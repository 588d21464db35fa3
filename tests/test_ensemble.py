"""Several networks that learn in turn and answer together."""

import pytest
import torch
from safetensors.torch import load_file

import fovea
from fovea.config import OptimConfig
from fovea.errors import ConfigError
from fovea.models.base import build_model
from fovea.models.ensemble import Ensemble

PAIR = "record:widths=16/16:depths=1/1:members=2"


def test_the_answer_is_the_mean_of_the_members():
    model = build_model(PAIR, 5, 3, (16, 16)).eval()
    images = torch.rand(3, 3, 16, 16)
    first, second = model.members()
    assert not torch.equal(first(images), second(images))
    torch.testing.assert_close(model(images), (first(images) + second(images)) / 2)


def test_every_hook_reaches_all_members():
    torch.manual_seed(0)
    model = build_model(PAIR, 5, 3, (16, 16))
    model.init_from_data(torch.rand(100, 3, 16, 16))
    first, second = model.members()
    assert torch.equal(first.whiten.weight, second.whiten.weight)
    assert len(model.hidden_weights()) == len(first.hidden_weights()) * 2 == 4
    assert [len(stage) for stage in model.by_depth()] == [2 * len(stage) for stage in first.by_depth()]
    grouped = [parameter for group in model.param_groups(OptimConfig()) for parameter in group["params"]]
    assert set(map(id, grouped)) == set(map(id, model.parameters()))
    model.settle(0.9)
    assert not first.bias.requires_grad
    assert not second.bias.requires_grad


@pytest.mark.parametrize("part_size", [0, 20])
def test_members_take_turns(tmp_path, part_size):
    """After one step one of them has learned, after the second the other."""
    data = fovea.load_data("synthetic:num_images=80:image_size=16")
    settings = {"batch_size": 40, "part_size": part_size, "min_steps": 0, "data.val_fraction": 0, "hardest": 1}
    options = {"device": "cpu", "precision": "fp32", "model": PAIR, "quiet": True}
    fovea.train(data, "fast", tmp_path / "none", settings, epochs=0, **options)
    fovea.train(data, "fast", tmp_path / "one", {**settings, "batch_size": 80}, epochs=1, **options)
    fovea.train(data, "fast", tmp_path / "two", settings, epochs=1, **options)
    none, one, two = (load_file(tmp_path / name / "weights/last.safetensors") for name in ("none", "one", "two"))
    moved = [{name for name, value in run.items() if not torch.equal(value, none[name])} for run in (one, two)]
    assert "networks.1.head.weight" in moved[0]
    assert all(name.startswith("networks.1.") for name in moved[0])
    others = {name.replace("networks.1.", "networks.0.") for name in moved[0]} - {"networks.0.bias"}  # settled by then
    assert moved[1] == moved[0] | others


def test_a_head_on_fixed_features_is_of_one_network(tmp_path):
    data = fovea.load_data("synthetic:num_images=80:image_size=16")
    options = {"device": "cpu", "precision": "fp32", "quiet": True}
    fovea.train(data, "fast", tmp_path / "pair", {"min_steps": 0}, epochs=1, model=PAIR, **options)
    with pytest.raises(ConfigError, match="no layer of Ensemble gives"):
        fovea.train(
            data,
            "fast",
            tmp_path / "head",
            {"freeze.what": "backbone", "part_size": 0},
            weights=str(tmp_path / "pair"),
            **options,
        )


def test_there_is_at_least_one_member():
    with pytest.raises(ConfigError, match="members=0 must be at least 1"):
        build_model("record:members=0", 5, 3, (32, 32))
    assert not isinstance(build_model("record:members=1", 5, 3, (32, 32)), Ensemble)
