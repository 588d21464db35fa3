"""The config tree: settings by path, saved whole, wrong ones named."""

from __future__ import annotations

import pytest
import yaml

from fovea import registry
from fovea.config import RunConfig, ScheduleConfig, data_dir_candidates, everyday_settings, parse_settings
from fovea.errors import ConfigError, RunError
from fovea.optim.build import check_optimizer
from fovea.optim.schedules import build_schedule
from fovea.recipes.tutorial import tutorial


@pytest.mark.parametrize("name", registry.recipe.names())
def test_every_recipe_is_saved_whole(name: str) -> None:
    config = registry.recipe.get(name)("digits")
    assert config.recipe == name
    assert config.data.name == "digits"
    assert RunConfig.from_yaml(config.to_yaml(), "config.yaml") == config
    registry.model.bind(config.model, num_given=3)
    check_optimizer(config.optim, given={f"optim.{name}": None for name in type(config.optim).model_fields})
    build_schedule(config.schedule, 100)


def test_settings_by_path() -> None:
    settings = parse_settings(["optim.lr=1e-3", "augment=mirror,shift:2", "optim.nesterov=true", "data.name=1"])
    changed = tutorial("cifar10").with_values(settings)
    assert changed.optim.lr == 0.001
    assert changed.augment == ("mirror", "shift:2")
    assert changed.optim.nesterov is True
    assert changed.data.name == "1"
    assert changed.epochs == 5


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        tutorial("cifar10").epochs = 6


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'optim\.ls'.*'optim\.lr'.*'epoch'.*'epochs'"):
        tutorial("cifar10").with_values({"optim.ls": 1, "epoch": 2})
    with pytest.raises(ConfigError, match=r"optim\.lr = -1.*epochs = 'many'"):
        tutorial("cifar10").with_values({"optim.lr": "-1", "epochs": "many"})
    with pytest.raises(ConfigError, match="'epoch'.*'epochs'"):
        everyday_settings(epoch=3)


def test_damaged_config_file() -> None:
    with pytest.raises(RunError, match="config.yaml is damaged"):
        RunConfig.from_yaml("epochs: [", "config.yaml")
    with pytest.raises(RunError, match="config.yaml is damaged"):
        RunConfig.from_yaml(yaml.safe_dump({"recipe": "x"}), "config.yaml")


def test_data_is_looked_for_in_the_documented_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_DATA", "/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert data_dir_candidates("/a") == ["/a", "/b", "data", "/c/fovea"]


def test_cosine_schedule_rises_and_falls() -> None:
    config = ScheduleConfig(name="cosine", warmup=0.2)
    lr_factor = build_schedule(config, 100)
    factors = [lr_factor(step) for step in range(100)]
    assert factors[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert factors[20] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.001
    assert sorted(factors[20:], reverse=True) == factors[20:]
    assert build_schedule(ScheduleConfig(), 10)(3) == 1.0
