"""The record network's first layer as one kernel, against PyTorch's operations."""

import pytest
import torch
import torch.nn.functional as F

from fovea.device import has_llvm
from fovea.models.base import build_model

pytestmark = pytest.mark.skipif(not has_llvm(), reason="no kernels")


@pytest.mark.parametrize(
    ("channels", "num_filters", "size", "half"),
    [(3, 24, (5, 7), False), (3, 24, (2, 2), True), (1, 8, (6, 3), False), (4, 32, (4, 4), True)],
)
def test_patches_through_filters_bias_and_relu(channels, num_filters, size, half):
    from fovea.models.whitening import whitened

    torch.manual_seed(0)
    images, filters = torch.randn(9, channels, *size), torch.randn(num_filters, channels, 2, 2)
    bias = torch.randn(num_filters, requires_grad=True)
    expected = F.relu(F.conv2d(images.double(), filters.double(), bias.double()))
    found = whitened(images.permute(2, 3, 0, 1).contiguous(), filters, bias, half)
    assert found.dtype == (torch.bfloat16 if half else torch.float32)
    tolerance = {"rtol": 2**-8 if half else 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.permute(2, 3, 0, 1).double(), expected, **tolerance)
    given = torch.randn(expected.shape).to(found.dtype)
    (gradient,) = torch.autograd.grad(found, bias, given.permute(2, 3, 0, 1))
    (exact,) = torch.autograd.grad(expected, bias, given.double())
    torch.testing.assert_close(gradient, exact.float(), rtol=1e-4, atol=1e-4)


def test_what_is_no_number_comes_out_as_none():
    model = build_model("record:widths=8/8/8", 4, 3, (16, 16)).train()
    images = torch.zeros(2, 3, 16, 16)
    images[1, 0, 3, 3] = float("nan")
    out = model._whitened(images)
    assert out[1].isnan().any()
    assert not out[0].isnan().any()


def test_a_gradient_of_the_images_or_of_the_filters_is_there_where_it_is_asked_for():
    torch.manual_seed(0)
    model = build_model("record:widths=8/8/8", 4, 3, (16, 16)).train()
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    assert torch.autograd.grad(model._whitened(images).sum(), images)[0].abs().sum() > 0
    weight = model.whiten.weight
    weight.requires_grad = True
    assert torch.autograd.grad(model._whitened(images.detach()).sum(), weight)[0].abs().sum() > 0
