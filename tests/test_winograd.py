"""Winograd's convolution against the direct one."""

import pytest
import torch
import torch.nn.functional as F

from fovea.models import winograd
from fovea.models.winograd import Conv3x3


@pytest.fixture
def taken(monkeypatch):
    """How often Winograd's way was taken."""
    calls = []
    forward = winograd._Winograd.apply
    monkeypatch.setattr(winograd._Winograd, "apply", lambda *given: calls.append(1) or forward(*given))
    return calls


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (8, 6), (15, 16), (1, 3)])
@pytest.mark.parametrize("channels", [(64, 128), (160, 64)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_output_and_gradients_are_those_of_the_direct_convolution(size, channels, channels_last, taken):
    torch.manual_seed(0)
    layer = Conv3x3(*channels, bias=True).double()
    images = torch.randn(3, channels[0], *size, dtype=torch.float64)
    expected = F.conv2d(images.requires_grad_(), layer.weight, layer.bias, padding=1)
    seed = torch.randn_like(expected)
    wanted = [expected, *torch.autograd.grad(expected, (images, layer.weight, layer.bias), seed)]

    layer = layer.float()
    given = images.detach().float()
    if channels_last:
        given = given.contiguous(memory_format=torch.channels_last)
    out = layer(given.requires_grad_())
    found = [out, *torch.autograd.grad(out, (given, layer.weight, layer.bias), seed.float())]

    assert taken
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < 3e-5 * b.abs().max()


def test_many_images_are_worked_on_in_chunks_with_the_same_result(monkeypatch):
    torch.manual_seed(0)
    layer, images = Conv3x3(64, 128), torch.randn(7, 64, 9, 9)
    whole = layer(images)
    monkeypatch.setattr(winograd, "_CHUNK_BYTES", 4 * 36 * 9 * 128 * 3)  # three images at a time
    parts = layer(images)
    torch.testing.assert_close(parts, whole)
    gradients = [torch.autograd.grad(out.square().sum(), layer.weight)[0] for out in (whole, parts)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-2)


def test_the_direct_way_is_taken_where_it_is_faster(taken):
    images = torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        Conv3x3(64, 128)(images)
    with torch.autocast("cpu", torch.bfloat16):
        Conv3x3(64, 128)(images)
    Conv3x3(64, 64)(images)
    assert not taken


def test_the_first_layer_needs_no_gradient_of_its_input():
    layer, images = Conv3x3(64, 128), torch.randn(2, 64, 8, 8)
    layer(images).sum().backward()
    assert images.grad is None
    assert layer.weight.grad.shape == layer.weight.shape


def test_the_state_dict_is_that_of_a_plain_convolution():
    plain = torch.nn.Conv2d(64, 128, 3, padding=1, bias=False)
    Conv3x3(64, 128).load_state_dict(plain.state_dict())
