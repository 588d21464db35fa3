"""Products of bytes, and the convolutions that are trained with them."""

import llvmlite.binding as llvm
import pytest
import torch
import torch.nn.functional as F

import fovea
from fovea import device
from fovea.engine.gradients import Parts, in_int8
from fovea.engine.progress import Display
from fovea.errors import ConfigError
from fovea.models import products
from fovea.models.base import build_model
from fovea.models.int8 import Bytes
from fovea.models.products import multiply, multiply_transposed, panel_width
from fovea.models.winograd import Conv3x3, Transformed
from fovea.recipes.fast import fast
from fovea.resolve import resolve

CPU = torch.device("cpu")
needs_vnni = pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512vnni", False), reason="this CPU has no such instruction"
)


def random_bytes(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def unsigned(values):
    return (values.int() + 128).to(torch.uint8)


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [16, 24, 32, 40, 48, 64, 80, 320])
@pytest.mark.parametrize(("length", "depth"), [(16, 4), (21, 12), (64, 64)])
def test_products_are_those_of_the_integers(length, depth, columns, dtype):
    torch.manual_seed(0)
    rows, others = random_bytes(3, length, depth), random_bytes(3, depth, columns)
    scales, width = torch.tensor([1.0, 0.5, 3e-4]), panel_width(columns)
    panels = others.view(3, depth // 4, 4, columns // width, width).permute(0, 3, 1, 4, 2).contiguous()
    out = torch.full((3, length, columns), torch.nan, dtype=dtype)
    multiply(unsigned(rows), panels, scales, out)
    expected = torch.bmm(rows.double(), others.double()) * scales[:, None, None].double()
    torch.testing.assert_close(out, expected.to(dtype))


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [16, 48, 320])
@pytest.mark.parametrize(("depth", "length"), [(4, 16), (36, 24), (500, 64)])
def test_transposed_products_are_those_of_the_integers(length, depth, columns, dtype):
    torch.manual_seed(0)
    rows, others = random_bytes(3, depth, length), random_bytes(3, depth, columns)
    scales = torch.tensor([1.0, 0.5, 3e-4])
    out = torch.full((3, length, columns), torch.nan, dtype=dtype)
    multiply_transposed(unsigned(rows), unsigned(others), scales, out)
    expected = torch.bmm(rows.double().transpose(1, 2), others.double()) * scales[:, None, None].double()
    torch.testing.assert_close(out, expected.to(dtype))


def both_ways(layer, images, seed, dtype=torch.bfloat16):
    """Output and gradients, and of bytes, with the other numbers in float32 or bfloat16."""
    expected = layer(images)
    wanted = [expected, *torch.autograd.grad(expected, (images, layer.weight), seed)]
    with (
        Transformed().once_for([layer], int8=True),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        out = layer(images)
        found = [out, *torch.autograd.grad(out, (images, layer.weight), seed.to(dtype))]
    assert out.dtype == dtype
    return found, wanted


def distance(found, wanted):
    return ((found.float() - wanted).norm() / wanted.norm()).item()


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(14, 14), (7, 15), (4, 4), (2, 3)])
@pytest.mark.parametrize("count", [1, 5, 20])  # rows of tiles that products of bytes take, and that they do not
@pytest.mark.parametrize("channels", [24, 32])  # the first layer's do not fill vectors
def test_output_and_gradients_are_near_those_of_the_direct_convolution(channels, size, count, dtype):
    torch.manual_seed(0)
    layer, images = Conv3x3(channels, 48), F.relu(torch.randn(count, channels, *size)).requires_grad_()
    for found, wanted in zip(*both_ways(layer, images, torch.randn(count, 48, *size), dtype), strict=True):
        assert 5e-3 < distance(found, wanted) < 0.13  # bfloat16: 0.015, float32: 2e-5


@needs_vnni
@pytest.mark.parametrize("channels", [24, 32])
def test_pooled_only_which_pixel_is_the_largest_differs_more(channels):
    torch.manual_seed(0)
    layer, images = Conv3x3(channels, 48, pool=True), F.relu(torch.randn(20, channels, 15, 14)).requires_grad_()
    (out, *gradients), wanted = both_ways(layer, images, torch.randn(20, 48, 7, 7))
    assert out.shape == (20, 48, 7, 7)
    assert distance(out, wanted[0]) < 0.1
    assert all(distance(a, b) < 0.45 for a, b in zip(gradients, wanted[1:], strict=True))


@needs_vnni
def test_images_that_the_sample_does_not_hold_are_cut_off_and_the_others_are_as_before():
    torch.manual_seed(0)
    layer, images = Conv3x3(32, 32), torch.randn(9, 32, 8, 8)
    images[8] *= 100  # of nine, the sample holds the first eight
    with Transformed().once_for([layer], int8=True), torch.autocast("cpu", torch.bfloat16):
        out = layer(images).detach()
    expected = layer(images).detach()
    assert distance(out[:8], expected[:8]) < 0.1
    assert 0.5 < distance(out[8], expected[8]) < 1


@needs_vnni
@pytest.mark.parametrize("pool", [False, True])
def test_images_of_small_gradients_are_learned_from_as_well(pool):
    torch.manual_seed(0)
    layer, images = Conv3x3(32, 32, pool=pool), F.relu(torch.randn(8, 32, 8, 8)).requires_grad_()
    sizes = 10 ** -torch.linspace(0, 2, 8)[:, None, None, None]
    side = 4 if pool else 8
    (_, found, _), (_, wanted, _) = both_ways(layer, images, sizes * torch.randn(8, 32, side, side))
    assert all(distance(a, b) < 0.8 for a, b in zip(found, wanted, strict=True))  # with one factor for all, up to 3


@needs_vnni
def test_what_is_no_number_comes_out():
    layer = Conv3x3(32, 32)
    layer.weight.data[0, 0, 0, 0] = torch.nan
    with Transformed().once_for([layer], int8=True), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 32, 8, 8)).isnan().any()


@needs_vnni
def test_nothing_but_zeros_comes_out_of_zeros():
    layer, images = Conv3x3(32, 32), torch.zeros(4, 32, 8, 8).requires_grad_()
    with Transformed().once_for([layer], int8=True), torch.autocast("cpu", torch.bfloat16):
        out = layer(images)
        gradients = torch.autograd.grad(out, (images, layer.weight), torch.zeros_like(out))
    assert not any(tensor.any() for tensor in (out, *gradients))


@needs_vnni
def test_in_parts_the_gradients_are_near_those_of_bfloat16_on_any_number_of_cores():
    torch.manual_seed(0)
    images, labels = torch.randn(60, 3, 16, 16), torch.randint(4, (60,))

    def loss(model, images, labels):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images).float()
        return F.cross_entropy(logits, labels, reduction="none")

    found = []
    for num_threads, int8 in ((1, False), (1, True), (3, True)):
        torch.manual_seed(1)
        model = build_model("record:widths=32/48/64", 4, 3, (16, 16)).train()
        Parts(model, 20, num_threads, int8).backward(images, labels, loss)
        found.append(model.stages[-2].weight.grad)
    for in_bytes in found[1:]:
        assert 0.01 < distance(in_bytes, found[0]) < 0.45


def test_evaluation_and_layers_of_other_widths_take_no_bytes(monkeypatch):
    monkeypatch.setattr(Bytes, "forth", lambda *_: pytest.fail("bytes"))
    images = torch.randn(40, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        Conv3x3(32, 48)(images)
        with Transformed().once_for([layer := Conv3x3(32, 40)], int8=True):
            layer(images)


def test_where_bytes_are_multiplied(monkeypatch):
    config, model = fast("cifar10"), Conv3x3(32, 32)
    for can in (True, False):
        monkeypatch.setattr("fovea.engine.gradients.has_int8", lambda can=can: can)
        assert in_int8(config, model, "bf16", CPU) is in_int8(config, model, "fp32", CPU) is can
    monkeypatch.setattr("fovea.engine.gradients.has_int8", lambda: True)
    assert not in_int8(config, torch.nn.Conv2d(32, 32, 3), "bf16", CPU)
    assert not in_int8(config, model, "bf16", torch.device("cuda"))
    assert not in_int8(config.with_values({"part_size": 0}), model, "bf16", CPU)
    assert not in_int8(config.with_values({"int8": False}), model, "bf16", CPU)


@pytest.mark.parametrize(
    ("features", "expected"),
    [({"avx512vnni": True}, True), ({"avx512vnni": True, "amx-bf16": True}, False), ({"avx2": True}, False)],
)
def test_the_cpu_is_asked(features, expected, monkeypatch):
    monkeypatch.setattr(products.llvm, "get_host_cpu_features", lambda: features)
    assert products.has_vnni() is expected


def test_a_precision_that_is_asked_for_is_meant(monkeypatch):
    monkeypatch.setattr(device, "_cpu_features", lambda: {"avx512_bf16"})
    data = fovea.load_data("synthetic:num_images=40")

    def int8(**settings):
        return resolve(data, "fast", settings, Display(quiet=True), device="cpu")[0].int8

    assert int8()
    assert int8(precision="auto")
    assert not int8(precision="bf16")
    monkeypatch.setattr("fovea.resolve.has_int8", lambda: True)
    assert int8(precision="bf16", int8=True)


@pytest.mark.parametrize(
    ("can", "settings", "says"),
    [(False, {}, "AVX512-VNNI"), (True, {"part_size": 0}, "part_size"), (True, {"device": "mps"}, "CPU")],
)
def test_bytes_that_are_asked_for_and_cannot_be_are_refused(can, settings, says, monkeypatch):
    monkeypatch.setattr("fovea.resolve.has_int8", lambda: can)
    monkeypatch.setattr("fovea.resolve.pick_device", lambda name: torch.device(name))
    data = fovea.load_data("synthetic:num_images=40")
    settings = {"device": "cpu", "int8": True, **settings}
    with pytest.raises(ConfigError, match=says):
        resolve(data, "fast", settings, Display(quiet=True))
