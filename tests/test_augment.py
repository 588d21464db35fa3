"""Augmentations against torchvision's transforms, one image at a time, with the very factors that were drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from fovea.augment.types import Draw
from fovea.augment.warp import resample, uniform
from fovea.data.loader import build_augmentations
from fovea.errors import ConfigError

COUNT, SIDE = 40, 17


@pytest.fixture
def images() -> Tensor:
    """Smooth random images away from 0 and 1, so that nothing is clipped."""
    coarse = torch.rand(COUNT, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)
    return 0.3 + 0.4 * smooth


def augment(spec: str, images: Tensor, seed: int = 1, times: int = 1) -> Tensor:
    (function,) = build_augmentations([spec])
    return function(
        images,
        Draw(torch.Generator().manual_seed(seed), torch.full((len(images),), times), torch.arange(len(images)), seed),
    )


def drawn(low: float, high: float, seed: int = 1) -> Tensor:
    """The factors that an augmentation draws first."""
    return uniform(COUNT, low, high, torch.Generator().manual_seed(seed))


def test_resample_by_exact_matrices(images: Tensor) -> None:
    eye = torch.eye(3).repeat(COUNT, 1, 1)
    assert torch.allclose(resample(images, eye), images, atol=1e-6)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).repeat(COUNT, 1, 1)
    assert torch.allclose(resample(images, quarter), torch.rot90(images, 1, (2, 3)), atol=1e-5)
    right = eye.clone()
    right[:, 0, 2] = 3.0
    assert torch.allclose(resample(images, right)[..., :-3], images[..., 3:], atol=1e-5)


def test_rotate_is_torchvisions(images: Tensor) -> None:
    rotated, angles = augment("rotate:30", images), drawn(-30, 30)
    inside = slice(4, -4)  # the corners differ: torchvision fills them with zeros
    for image, result, angle in zip(images, rotated, angles.tolist(), strict=True):
        expected = tv.rotate(image, angle, InterpolationMode.BILINEAR)
        assert torch.allclose(result[:, inside, inside], expected[:, inside, inside], atol=1e-4)
    assert angles.abs().max() > 20


def test_scale_is_torchvisions(images: Tensor) -> None:
    scaled, zooms = augment("scale:0.3", images), drawn(0.7, 1.3)
    inside = slice(4, -4)
    for image, result, zoom in zip(images, scaled, zooms.tolist(), strict=True):
        expected = tv.affine(image, 0, [0, 0], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)
        assert torch.allclose(result[:, inside, inside], expected[:, inside, inside], atol=1e-4)


def test_perspective_keeps_the_centre_and_tilts_the_edges(images: Tensor) -> None:
    tilted = augment("perspective:0.4", images)
    middle = SIDE // 2
    assert torch.allclose(tilted[..., middle, middle], images[..., middle, middle], atol=1e-5)
    assert not torch.allclose(tilted[..., 0, 0], images[..., 0, 0], atol=1e-3)
    # A point at the right edge, w / 2 from the centre, is divided by 1 + tilt / 2.
    tilt = drawn(-0.4, 0.4)[0].item()
    ramp = (torch.arange(SIDE) - middle).div(SIDE).add(0.5).expand(1, 1, SIDE, SIDE)
    found = augment("perspective:0.4", ramp.repeat(COUNT, 3, 1, 1))[0, 0, middle, middle + 4].item()
    assert found == pytest.approx(0.5 + 4 / (1 + 4 * tilt / SIDE) / SIDE, abs=1e-4)


def test_brightness_is_torchvisions(images: Tensor) -> None:
    changed = augment("brightness:0.4", images)
    for image, result, factor in zip(images, changed, drawn(0.6, 1.4).tolist(), strict=True):
        assert torch.allclose(result, tv.adjust_brightness(image, factor), atol=1e-5)


def test_contrast_keeps_the_mean_and_scales_the_spread(images: Tensor) -> None:
    changed = augment("contrast:0.3", images)
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(changed.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3)), drawn(0.7, 1.3), atol=1e-4)


def test_colour_changes_saturation_by_the_factor(images: Tensor) -> None:
    changed = augment("colour:0.0", images)
    assert torch.allclose(changed, images, atol=1e-6)
    grey = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    cast = augment("colour:0.3", grey) / grey  # without colour, only the cast is left
    assert torch.allclose(cast.flatten(2), cast.flatten(2)[..., :1].expand(-1, -1, SIDE * SIDE), atol=1e-4)
    assert 0.7 <= cast.min() < 0.75
    assert 1.25 < cast.max() <= 1.3 + 1e-5


def test_noise_has_the_strength_that_was_drawn() -> None:
    flat = torch.full((COUNT, 3, 64, 64), 0.5)
    assert torch.allclose((augment("noise:0.1", flat) - flat).std(dim=(1, 2, 3)), drawn(0, 0.1), rtol=0.05, atol=1e-3)


def test_blur_is_torchvisions(images: Tensor) -> None:
    blurred = augment("blur:1.5", images)
    reach = round(3 * 1.5)
    for image, result, sigma in zip(images, blurred, drawn(0.01, 1.5).tolist(), strict=True):
        assert torch.allclose(result, tv.gaussian_blur(image, [2 * reach + 1] * 2, [sigma, sigma]), atol=1e-4)


def test_cutout_fills_one_square_with_the_mean(images: Tensor) -> None:
    changed = augment("cutout:6", images)
    touched = (changed != images).any(dim=1)
    sizes = touched.flatten(1).sum(1)
    assert sizes.max() == 36
    assert sizes.min() >= 9, "a centre lies inside the image: at least a quarter of the square does"
    for image, result, hole in zip(images, changed, touched, strict=True):
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        assert hole.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert torch.allclose(result[:, hole], image.mean(dim=(1, 2))[:, None].expand(-1, int(hole.sum())))


def test_cutout_of_whole_squares(images: Tensor) -> None:
    """None is cut by the edge, and they come to every place."""
    holes = (augment("cutout:6:whole=true", images) != images).any(dim=1)
    assert set(holes.flatten(1).sum(1).tolist()) == {36}
    grey = torch.rand(600, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    corners = (augment("cutout:6:whole=true", grey) != grey)[:, 0].flatten(1).int().argmax(1)
    assert set(corners.tolist()) == {8 * row + column for row in range(3) for column in range(3)}


def test_mirror_alternates_from_time_to_time() -> None:
    images = torch.rand(1000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = [augment("mirror:alternate=true", images, seed=4, times=times) for times in (1, 2, 3)]
    flipped = [(seen == images.flip(-1)).flatten(1).all(1) for seen in shown]
    assert torch.equal(flipped[0], ~flipped[1])
    assert torch.equal(flipped[0], flipped[2])
    assert 430 < int(flipped[0].sum()) < 570
    assert not torch.equal(shown[0], augment("mirror:alternate=true", images, seed=5))


@pytest.mark.parametrize("spec", ["shift:17", "cutout:18", "cutout:0", "blur:9", "blur:0", "scale:1", "perspective:1"])
def test_what_does_not_fit_is_refused(spec: str, images: Tensor) -> None:
    name, value = spec.split(":")
    with pytest.raises(ConfigError, match=f"{name}:{value}"):
        augment(spec, images)
    assert math.isfinite(images.sum())
