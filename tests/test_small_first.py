"""Smaller images in the first steps."""

import pytest
import torch

import fovea
from fovea.config import SmallFirstConfig
from fovea.engine.small_first import scale_at, shrink
from fovea.errors import ConfigError


def test_a_pixel_is_the_mean_of_those_it_stands_for():
    images = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(shrink(images, 0.5), torch.nn.functional.avg_pool2d(images, 2))


def test_sizes_grow_in_even_steps():
    config = SmallFirstConfig(until=0.6, scale=0.25, sizes=3)
    sides = [32 * scale_at(config, step / 10) for step in range(1, 11)]
    assert sides == pytest.approx([8, 8, 16, 16, 24, 24, 32, 32, 32, 32])
    assert {scale_at(SmallFirstConfig(), share) for share in (0.001, 0.5, 1.0)} == {1.0}


@pytest.mark.parametrize(
    ("side", "recipe", "settings"),
    [(16, "fast", {}), (32, "tutorial", {"small_first.until": 0.5})],
    ids=["too small for its pooling", "a network bound to one size"],
)
def test_a_network_that_cannot_take_them_says_so_before_anything_is_written(side, recipe, settings, tmp_path):
    data = fovea.load_data(f"synthetic:num_images=40:image_size={side}")
    with pytest.raises(ConfigError, match=rf"{side // 2}×{side // 2} instead of {side}×{side}.*small_first.until=0"):
        fovea.train(data, recipe, tmp_path / "run", settings, quiet=True, epochs=1, device="cpu")
    assert not (tmp_path / "run").exists()
    fovea.train(data, recipe, tmp_path / "run", {"small_first.until": 0}, quiet=True, epochs=0, device="cpu")
