"""Winograd's convolution against the direct one, and the layers that keep its order in memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fovea.models import winograd
from fovea.models.pixels_first import (
    GELU,
    BatchNorm,
    NormGELU,
    NormReLU,
    by_groups,
    images_first,
    lies_pixels_first,
    pixels_first,
)
from fovea.models.tiles import Grid
from fovea.models.winograd import Conv3x3, Transformed


@pytest.fixture
def taken(monkeypatch):
    """How often Winograd's way was taken."""
    calls = []
    forward = winograd._Winograd.apply
    monkeypatch.setattr(winograd._Winograd, "apply", lambda *given: calls.append(1) or forward(*given))
    return calls


def in_order(images, order):
    """The same numbers, `(B, C, H, W)`, laid out in memory in another order."""
    if order == "pixels first":
        return images_first(pixels_first(images))
    return images.contiguous(memory_format=torch.channels_last if order == "channels last" else torch.contiguous_format)


def assert_near(found, expected, tolerance):
    assert found.shape == expected.shape
    assert (found - expected).norm() < tolerance * expected.norm()


# 4, 7, 8: one tile; 15, 31, 33: several, the last cut short; 1, 2: nothing but borders
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (8, 6), (15, 16), (31, 33), (1, 3), (2, 2)])
@pytest.mark.parametrize("channels", [(24, 64), (40, 32)])
@pytest.mark.parametrize("order", ["images first", "channels last", "pixels first"])
def test_output_and_gradients_are_those_of_the_direct_convolution(size, channels, order, taken):
    torch.manual_seed(0)
    layer = Conv3x3(*channels, bias=True).double()
    images = torch.randn(3, channels[0], *size, dtype=torch.float64)
    expected = F.conv2d(images.requires_grad_(), layer.weight, layer.bias, padding=1)
    seed = torch.randn_like(expected)
    wanted = [expected, *torch.autograd.grad(expected, (images, layer.weight, layer.bias), seed)]

    layer = layer.float()
    given = in_order(images.detach().float(), order).requires_grad_()
    out = layer(given)
    found = [out, *torch.autograd.grad(out, (given, layer.weight, layer.bias), in_order(seed.float(), order))]

    assert taken
    assert lies_pixels_first(out)
    for a, b in zip(found, wanted, strict=True):
        assert_near(a, b, 6e-5)


@pytest.mark.parametrize("size", [(7, 7), (15, 8), (3, 3), (2, 5), (30, 30)])
@pytest.mark.parametrize("order", ["images first", "pixels first"])
def test_the_largest_of_each_2x2_comes_out_and_takes_the_gradient(size, order, taken):
    torch.manual_seed(1)  # with 0, two of the pixels differ by less than rounding
    layer = Conv3x3(24, 33, bias=True, pool=True)
    images = torch.randn(3, 24, *size, requires_grad=True)
    expected = F.max_pool2d(F.conv2d(images.double(), layer.weight.double(), layer.bias.double(), padding=1), 2)
    given = (images, layer.weight, layer.bias)
    seed = torch.randn_like(expected)
    wanted = [expected, *torch.autograd.grad(expected, given, seed)]
    out = layer(in_order(images, order))
    found = [out, *torch.autograd.grad(out, given, in_order(seed.float(), order))]
    assert taken
    assert lies_pixels_first(out)
    for a, b in zip(found, wanted, strict=True):
        assert_near(a, b, 2e-4)


def test_of_equal_pixels_the_first_takes_the_gradient():
    layer, images = Conv3x3(24, 32, pool=True), torch.zeros(2, 24, 6, 6, requires_grad=True)
    torch.nn.init.dirac_(layer.weight)
    (found,) = torch.autograd.grad(layer(images).sum(), images)
    (wanted,) = torch.autograd.grad(F.max_pool2d(images, 2)[:, :24].sum(), images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(7, 7), (15, 16), (3, 2)])
@pytest.mark.parametrize("pool", [False, True])
def test_under_autocast_all_is_bfloat16_but_the_weights(size, pool, taken):
    """Which pixel is the largest may change with them: without a gradient of the input, that of the weight is looked at."""
    torch.manual_seed(0)
    layer, images = Conv3x3(64, 32, pool=pool), torch.randn(4, 64, *size)
    with torch.autocast("cpu", torch.bfloat16):
        out, same = layer(images), layer(images.bfloat16())
    expected = F.conv2d(images, layer.weight, padding=1)
    expected = F.max_pool2d(expected, 2) if pool else expected
    assert len(taken) == 2
    assert out.dtype == same.dtype == torch.bfloat16
    assert_near(out.float(), expected, 3e-2)
    assert_near(same.float(), expected, 3e-2)
    found, wanted = (torch.autograd.grad(o, layer.weight, torch.ones_like(o))[0] for o in (out, expected))
    assert found.dtype == torch.float32
    assert_near(found, wanted, 0.3 if pool else 3e-2)


def test_without_llvm_the_direct_way_is_taken(monkeypatch, taken):
    monkeypatch.setattr(winograd, "has_llvm", lambda: False)
    layer, images = Conv3x3(64, 32, pool=True), torch.randn(4, 64, 8, 8)
    torch.testing.assert_close(layer(images), F.max_pool2d(F.conv2d(images, layer.weight, padding=1), 2))
    assert not taken


def test_the_direct_way_is_taken_where_it_is_faster(taken):
    images = torch.randn(40, 64, 8, 8)
    with torch.no_grad():
        Conv3x3(64, 128)(images[:1])
    Conv3x3(64, 8)(images)
    torch.export.export(Conv3x3(64, 128), (images,))
    assert not taken
    with torch.no_grad():
        Conv3x3(64, 128)(images)
    assert taken


def test_the_first_layer_needs_no_gradient_of_its_input():
    layer, images = Conv3x3(64, 128), torch.randn(2, 64, 8, 8)
    layer(images).sum().backward()
    assert images.grad is None
    assert layer.weight.grad.shape == layer.weight.shape


def test_the_state_dict_is_that_of_a_plain_convolution():
    plain = nn.Conv2d(64, 128, 3, padding=1, bias=False)
    Conv3x3(64, 128).load_state_dict(plain.state_dict())


@pytest.mark.parametrize("order", ["images first", "channels last", "pixels first"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [BatchNorm, NormReLU])
@pytest.mark.parametrize("channels", [6, 48])  # by PyTorch's operations, by kernels
def test_normalization_is_that_of_pytorch_and_keeps_the_order(order, training, kind, channels):
    torch.manual_seed(0)
    own, theirs = kind(channels).train(training), nn.BatchNorm2d(channels).train(training)
    for norm in (own, theirs):
        norm.weight.data = torch.linspace(0.5, 2, channels)
        norm.bias.data = torch.linspace(-1, 1, channels)
    images = torch.randn(4, channels, 5, 3)
    given, plain = in_order(images, order).requires_grad_(), images.clone().requires_grad_()
    out, expected = own(given), theirs(plain)
    expected = expected.relu() if kind is NormReLU else expected
    torch.testing.assert_close(out, expected)
    assert out.stride() == given.stride()
    found, wanted = (torch.autograd.grad(o.pow(3).sum(), i)[0] for o, i in ((out, given), (expected, plain)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        grads = (torch.autograd.grad(n(images).relu().pow(3).sum(), getattr(n, name))[0] for n in (own, theirs))
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(name))
    assert own.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("kind", [BatchNorm, NormReLU])
def test_groups_are_normalized_as_if_each_came_by_itself(kind):
    torch.manual_seed(0)
    images = torch.randn(10, 32, 5, 3) * torch.linspace(1, 3, 10)[:, None, None, None]
    together, alone = kind(32), [kind(32) for _ in range(3)]
    assert by_groups(together, 4)
    given = in_order(images, "pixels first").requires_grad_()
    out, expected = together(given), torch.cat([norm(group) for norm, group in zip(alone, given.split(4), strict=True)])
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    own = torch.autograd.grad(out, (given, together.weight, together.bias), seed)
    weights, biases = [norm.weight for norm in alone], [norm.bias for norm in alone]
    to_images, *rest = torch.autograd.grad(expected, (given, *weights, *biases), seed)
    wanted = to_images, sum(rest[:3]), sum(rest[3:])
    torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        moved = torch.stack([norm.get_buffer(name) for norm in alone])
        torch.testing.assert_close(together.get_buffer(name), moved.mean(0))


@pytest.mark.parametrize("kind", [NormGELU, GELU])
@pytest.mark.parametrize("half", [False, True])
def test_gelu_and_its_slope_are_near_those_of_pytorch(kind, half):
    torch.manual_seed(0)
    images = 3 * torch.randn(8, 32, 9, 9)
    images[0, :, 0, :4] = torch.tensor([0.0, 100.0, -100.0, 4.0])
    images = in_order(images.to(torch.bfloat16 if half else torch.float32), "pixels first").requires_grad_()
    exact = images.detach().double().requires_grad_()
    own, theirs = (kind(32), nn.BatchNorm2d(32).double()) if kind is NormGELU else (kind(), nn.Identity())
    out, expected = own(images), F.gelu(theirs(exact))
    seed = torch.randn_like(expected).to(images.dtype)
    (found,), (wanted,) = torch.autograd.grad(out, images, seed), torch.autograd.grad(expected, exact, seed.double())
    assert out.dtype == images.dtype
    torch.testing.assert_close(out.double(), expected, rtol=5e-3 if half else 1e-4, atol=5e-4)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-2 if half else 1e-4, atol=8e-3)


@pytest.mark.parametrize("half", [False, True])
def test_channels_far_from_0_are_normalized_as_well(half):
    torch.manual_seed(0)
    own, theirs = NormReLU(32), nn.BatchNorm2d(32).double()
    images = (1000 + torch.randn(20, 32, 5, 5)).to(torch.bfloat16 if half else torch.float32)
    out, expected = own(in_order(images, "pixels first")), theirs(images.double()).relu()
    assert out.dtype == images.dtype
    torch.testing.assert_close(out.double(), expected, rtol=5e-3 if half else 1e-3, atol=5e-3 if half else 1e-3)


def test_what_several_models_share_is_transformed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    at_points = Grid.at_points
    monkeypatch.setattr(Grid, "at_points", lambda *given: done.append(1) or at_points(*given))
    layer, images = Conv3x3(24, 32), torch.randn(2, 24, 8, 8)
    replica = copy.deepcopy(layer, {id(layer.weight): layer.weight})
    transformed = Transformed()
    with transformed.once_for([layer, replica]):
        first, second = layer(images), replica(images)
    assert torch.equal(first, second)
    assert len(done) == 1
    with torch.no_grad():
        layer.weight += 1
    with transformed.once_for([layer, replica]):
        assert len(done) == 2, "what was asked for before is there when the block begins"
        assert not torch.equal(layer(images), first), "and is that of the weights as they are now"
    assert len(done) == 2
    with transformed.once_for([layer, replica]):
        layer(images[..., :6])
    assert len(done) == 4, "of another size the first time"
    with transformed.once_for([layer, replica]):
        pass
    assert len(done) == 5, "and then what the last block asked for, no more"
    assert layer._transformed is None
