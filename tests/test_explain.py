"""Heat maps: against Grad-CAM written out, on a network that looks at one place, and for every kind of model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import fovea as package
from fovea.data.preprocess import Preprocess
from fovea.models.base import Model, build_model
from fovea.run import Run
from fovea.uses import explain

pytest.importorskip("captum")
PLAIN = Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3)


class LooksAt(Model):
    """Says class 1 where the upper right is bright."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)

    def forward(self, images: Tensor) -> Tensor:
        corner = self.pool(images)[:, :, 0, 3].sum(dim=1)
        return torch.stack([-corner, corner], dim=1)


def test_heat_is_grad_cam_written_out() -> None:
    torch.manual_seed(0)
    model = build_model("convnet:width=4", 3, 3, (32, 32)).eval()
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    found = explain.heat_maps(model, PLAIN, images, [0, 1, 2])
    assert found is not None
    maps = model.features((images.float() / 255 - 0.5) / 0.5)
    maps.retain_grad()
    logits = model.head(torch.amax(maps, dim=(2, 3)))
    logits[range(3), range(3)].sum().backward()
    weighed = F.relu((maps.grad.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1))
    expected = F.interpolate(weighed[:, None], size=(32, 32), mode="bilinear")[:, 0].detach()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)  # of no evidence, no heat
    assert expected.amax(dim=(1, 2)).sum() >= 2
    assert torch.allclose(found, expected, atol=1e-4)


def test_heat_lies_where_the_network_looks() -> None:
    images = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    images[..., 8:, :] = 128  # nothing, to the network
    images[..., :, :24] = 128
    model = LooksAt(2)
    model.anything = nn.Parameter(torch.zeros(1))
    heat = explain.heat_maps(model, PLAIN, images, [1])
    assert heat is not None
    row, column = divmod(int(heat[0].argmax()), 32)
    assert row < 8
    assert column >= 24


@pytest.mark.parametrize("spec", ["tutorial", "record:widths=8/8/8", "resnet:8", "timm:test_vit", "timm:test_convnext"])
def test_every_kind_of_model_has_a_map(spec: str) -> None:
    if spec.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(1)
    model = build_model(spec, 3, 3, (32, 32)).eval()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    heat = explain.heat_maps(model, PLAIN, images, [0, 2])
    assert heat is not None
    assert heat.shape == (2, 32, 32)
    assert heat.isfinite().all()
    other = explain.heat_maps(model, PLAIN, images, [1, 1])
    assert other is not None
    assert not torch.allclose(heat, other), "each class has its own evidence"


def test_a_model_without_places_has_none() -> None:
    class Linear(Model):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3 * 32 * 32, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.flatten(1))

    assert explain.heat_maps(Linear(), PLAIN, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [0]) is None


def test_explain_on_the_command_line(tiny_run: Path, fovea, monkeypatch: pytest.MonkeyPatch) -> None:
    image = package.load_data("synthetic:num_images=200").splits["test"].images[0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save("one.png")
    assert fovea("predict", tiny_run, "one.png", "--explain", "heat.png").code == 0
    assert Image.open("heat.png").size[0] > 300
    result = fovea("predict", tiny_run, "one.png", "--explain", "heat.jpg")
    assert (result.code, result.stderr.count("\n")) == (2, 1)
    monkeypatch.setattr(explain, "can_explain", lambda: False)
    result = fovea("predict", tiny_run, "one.png", "--explain", "other.png")
    assert (result.code, result.stderr.count("\n")) == (2, 1)
    assert 'pip install "fovea[explain]"' in result.stderr
    assert not Path("other.png").exists()


def test_without_captum_the_report_says_how_to_get_it(tiny_run: Path, fovea, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tiny_run)
    (tiny_run / "plots" / "mistakes.png").write_bytes((tiny_run / "plots" / "samples.png").read_bytes())
    package.report(run)
    assert "fovea[explain]" not in (tiny_run / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(explain, "can_explain", lambda: False)
    package.report(run)
    assert "fovea[explain]" in (tiny_run / "report.html").read_text(encoding="utf-8")
