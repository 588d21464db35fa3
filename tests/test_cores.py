"""A batch in parts, one core each."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fovea.engine.parts import Parts
from fovea.models.base import build_model


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(50, 3, 16, 16), torch.randint(10, (50,))


def loss(model, images, labels):
    return F.cross_entropy(model(images), labels)


def fresh(name="convnet:width=4"):
    torch.manual_seed(1)
    return build_model(name, 10, 3, (16, 16)).train()


def run(num_threads, batch, part_size=16, steps=3):
    model = fresh()
    parts = Parts(model, part_size, num_threads)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(steps):
        losses.append(parts.backward(*batch, loss))
        optimizer.step()
    parts.close()
    return losses, model.state_dict()


def test_gradients_and_running_averages_are_those_of_the_parts_one_by_one(batch):
    losses, found = run(2, batch, steps=1)
    model = fresh()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    moved = {name: torch.zeros_like(buffer) for name, buffer in before.items()}
    total = 0.0
    for images, labels in zip(batch[0].split(16), batch[1].split(16), strict=True):
        part = loss(model, images, labels) * len(images) / 50
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


def test_without_batch_normalization_it_is_the_gradient_of_the_whole_batch(batch):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))

        def forward(self, images):
            return self.layers(images)

    model = Plain()
    parts = Parts(model, 16, 2)
    value = parts.backward(*batch, loss)
    found = [p.grad for p in model.parameters()]
    whole = loss(model, *batch)
    torch.testing.assert_close(value, whole.detach())
    torch.testing.assert_close(found, list(torch.autograd.grad(whole, list(model.parameters()))))
    parts.close()


def test_an_error_in_a_part_comes_out(batch):
    parts = Parts(fresh(), 16, 2)
    with pytest.raises(RuntimeError):
        parts.backward(batch[0][:, :2], batch[1], loss)
    parts.close()
