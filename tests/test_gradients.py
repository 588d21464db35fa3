"""A batch in parts, one core each."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fovea
import fovea.api
from fovea.device import has_llvm
from fovea.engine import gradients
from fovea.engine.gradients import Parts, check_parts
from fovea.errors import ConfigError
from fovea.models.base import build_model
from fovea.models.winograd import Conv3x3


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(50, 3, 16, 16), torch.randint(10, (50,))


def loss(model, images, labels):
    return F.cross_entropy(model(images), labels, reduction="none")


def fresh(name="convnet:width=4"):
    torch.manual_seed(1)
    return build_model(name, 10, 3, (16, 16)).train()


def run(num_threads, batch, part_size=16, steps=3):
    model = fresh()
    parts = Parts(model, part_size, num_threads)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(steps):
        losses.append(parts.backward(*batch, loss).mean())
        optimizer.step()
    return losses, model.state_dict()


def test_gradients_and_running_averages_are_those_of_the_parts_one_by_one(batch):
    losses, found = run(2, batch, steps=1)
    model = fresh()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    moved = {name: torch.zeros_like(buffer) for name, buffer in before.items()}
    total = 0.0
    for images, labels in zip(batch[0].split(16), batch[1].split(16), strict=True):
        part = loss(model, images, labels).sum() / 50
        part.backward()
        total += part.item()
        for name, buffer in model.named_buffers():
            moved[name] = moved[name] + (buffer - before[name]) / 4
            buffer.copy_(before[name])
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert losses[0].item() == pytest.approx(total, rel=1e-6)
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.detach())
    for name, value in before.items():
        wanted = value + moved[name] if value.is_floating_point() else value + 1
        torch.testing.assert_close(found[name], wanted)


def test_the_number_of_cores_changes_nothing(batch):
    one, two = run(1, batch), run(3, batch)
    assert one[0] == two[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1].values(), two[1].values(), strict=True))


@pytest.mark.skipif(not has_llvm(), reason="no kernels")
@pytest.mark.parametrize("depths", ["1/2", "1/3"])  # the second with normalization without ReLU
@pytest.mark.parametrize("num_images", [57, 64])
def test_parts_that_a_core_takes_at_once_are_as_those_one_by_one(monkeypatch, batch, depths, num_images):
    found = []
    images, labels = (torch.cat([each, each])[:num_images] for each in batch)
    for most in (16 * 256, 100 * 256):
        monkeypatch.setattr(gradients, "MOST_TOGETHER", most)
        model = fresh(f"record:widths=16/48:depths={depths}")
        losses = Parts(model, 16, 2).backward(images, labels, loss)
        of_parameters = {f"grad of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({"losses": losses, **of_parameters, **dict(model.named_buffers())})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(
            found[1][name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_parts_stay_apart_where_normalization_is_pytorchs():
    assert Parts(fresh(), 16, 2)._sizes(50, 256) == [16, 16, 16, 2]


@pytest.mark.skipif(not has_llvm(), reason="no kernels")
@pytest.mark.parametrize(
    ("num_threads", "num_images", "sizes"),
    [(2, 64, [32, 32]), (2, 50, [32, 18]), (2, 160, [48, 48, 32, 32]), (3, 64, [32, 16, 16]), (8, 40, [16, 16, 8])],
)
def test_cores_have_as_many_parts(monkeypatch, num_threads, num_images, sizes):
    monkeypatch.setattr(gradients, "MOST_TOGETHER", 48 * 256)
    assert Parts(fresh("record:widths=16/48:depths=1/1"), 16, num_threads)._sizes(num_images, 256) == sizes


@pytest.mark.skipif(not has_llvm(), reason="no kernels")
def test_weights_are_what_they_were_and_lie_in_memory_as_their_gradients(batch):
    model = fresh("record:widths=16/48:depths=2/2")  # the first two have too few channels for Winograd's way
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = Parts(model, 16, 2)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    parts.backward(*batch, loss)
    layers = [layer for layer in model.modules() if isinstance(layer, Conv3x3)]
    assert len(layers) == 4
    for layer in layers:
        assert layer.weight.stride() == layer.weight.grad.stride()


def test_without_batch_normalization_it_is_the_gradient_of_the_whole_batch(batch):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))

        def forward(self, images):
            return self.layers(images)

    model = Plain()
    parts = Parts(model, 16, 2)
    value = parts.backward(*batch, loss).mean()
    found = [p.grad for p in model.parameters()]
    whole = loss(model, *batch).mean()
    torch.testing.assert_close(value, whole.detach())
    torch.testing.assert_close(found, list(torch.autograd.grad(whole, list(model.parameters()))))


def test_an_error_in_a_part_comes_out(batch):
    parts = Parts(fresh(), 16, 2)
    with pytest.raises(RuntimeError):
        parts.backward(batch[0][:, :2], batch[1], loss)


def test_a_model_that_draws_random_numbers_is_refused():
    with pytest.raises(ConfigError, match="part_size=0"):
        check_parts(16, fresh("wide-resnet:depth=10:widen=1:dropout=0.3"))
    check_parts(0, fresh("wide-resnet:depth=10:widen=1:dropout=0.3"))


def test_a_training_in_parts_repeats_and_resumes_bit_for_bit(tmp_path, capsys):
    settings = {"part_size": 100, "small_first.until": 0.5, "data.val_fraction": 0}
    options = {"epochs": 2, "batch_size": 250, "settings": settings, "quiet": True}
    first = fovea.train("digits", out=tmp_path / "a", **options)
    second = fovea.train("digits", out=tmp_path / "b", **options)
    stopped = tmp_path / "c"

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fovea.train("digits", out=stopped, on_epoch=stop, **options)
    fovea.api.resume(stopped, quiet=True)
    texts = [(path / "steps.csv").read_text() for path in (first.path, second.path, stopped)]
    assert texts[0] == texts[1] == texts[2]
    weights = [(path / "weights/last.safetensors").read_bytes() for path in (first.path, second.path, stopped)]
    assert weights[0] == weights[1] == weights[2]
