"""Smaller images in the first steps."""

import pytest
import torch

import fovea
from fovea.engine.small_first import shrink
from fovea.errors import ConfigError


def test_a_pixel_is_the_mean_of_those_it_stands_for():
    images = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(shrink(images, 0.5), torch.nn.functional.avg_pool2d(images, 2))


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
