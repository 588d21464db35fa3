"""The networks of the papers: the published figures, what they refuse, what they cost, and timm's."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fovea import registry
from fovea.config import OptimConfig
from fovea.errors import ConfigError, FoveaError
from fovea.models.base import Model, build_model, num_parameters
from fovea.models.cost import flops_text, forward_flops, spec_cost
from fovea.run import Run, load_weights
from fovea.uses import listing

GUIDE = Path(__file__).parent.parent / "docs" / "models.md"
FORMS = ["alexnet", "convnet", "resnet:20", "resnet:18", "tutorial", "vgg:16", "wide-resnet:16:2"]


def on_meta(spec: str, num_classes: int = 10, channels: int = 3, side: int = 32) -> Model:
    """The model without memory or arithmetic behind it."""
    with torch.device("meta"):
        return build_model(spec, num_classes, channels, (side, side))


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        # He et al. 2016, table 6
        ("resnet:20", "0.27"), ("resnet:32", "0.46"), ("resnet:44", "0.66"), ("resnet:56", "0.85"),
        ("resnet:110", "1.7"),
        # Zagoruyko & Komodakis 2016, tables 4 and 5
        ("wide-resnet:40:1", "0.6"), ("wide-resnet:40:2", "2.2"), ("wide-resnet:40:4", "8.9"),
        ("wide-resnet:40:8", "35.7"), ("wide-resnet:28:10", "36.5"), ("wide-resnet:28:12", "52.5"),
        ("wide-resnet:22:8", "17.2"), ("wide-resnet:22:10", "26.8"), ("wide-resnet:16:8", "11.0"),
        ("wide-resnet:16:10", "17.1"),
    ],
)  # fmt: skip
def test_parameters_are_those_published(spec: str, millions: str) -> None:
    decimals = len(millions.partition(".")[2])
    assert f"{num_parameters(on_meta(spec)) / 1e6:.{decimals}f}" == millions


@pytest.mark.parametrize(("depth", "millions"), [(11, 133), (13, 133), (16, 138), (19, 144)])
def test_the_convolutions_of_vgg_are_those_published(depth: int, millions: int) -> None:
    """Simonyan & Zisserman 2015, table 2, where three linear layers for 224 pixels and 1,000 classes follow."""
    model = on_meta(f"vgg:{depth}:batch_norm=false", 1000)
    convolutions = num_parameters(model) - (512 * 1000 + 1000)
    linear = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert round((convolutions + linear) / 1e6) == millions


@pytest.mark.parametrize("depth", [18, 34])
def test_resnet_for_imagenet_differs_from_timms_by_its_stem(depth: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(f"resnet{depth}", num_classes=10)
    assert num_parameters(on_meta(f"resnet:{depth}")) == num_parameters(theirs) - 64 * 3 * (7 * 7 - 3 * 3)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("resnet:20", [(16, 32), (32, 16), (64, 8)]),
        ("resnet:18", [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("wide-resnet:16:4", [(16, 32), (64, 32), (128, 16), (256, 8)]),
        ("vgg:16", [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)]),
        ("alexnet", [(96, 32), (256, 15), (384, 7), (256, 7)]),
    ],
)
def test_maps_have_the_sizes_that_the_papers_give(spec: str, shapes: list[tuple[int, int]]) -> None:
    """Channels and side after each 3×3 or 5×5 convolution, repetitions left out."""
    model, seen = on_meta(spec), []

    def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if (output.shape[1], output.shape[2]) not in seen:
            seen.append((output.shape[1], output.shape[2]))

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:
            module.register_forward_hook(note)
    model(torch.zeros(1, 3, 32, 32, device="meta"))
    assert seen == shapes


def test_resnets_shortcuts() -> None:
    """Option A passes every other pixel on, with zeros for the channels that are new."""
    from fovea.models.resnet import Block

    block = Block(2, 4, stride=2, projection=False).eval()
    nn.init.zeros_(block.conv2[0].weight)
    images = torch.rand(1, 2, 5, 6)
    expected = torch.cat([images[:, :, ::2, ::2], torch.zeros(1, 2, 3, 3)], dim=1)
    assert torch.equal(block(images), expected)
    assert Block(4, 4, 1, projection=True).shortcut is None


def test_a_wide_block_is_the_identity_plus_its_convolutions() -> None:
    from fovea.models.wide_resnet import Block

    block = Block(3, 3, 1, 0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(1, 3, 4, 4)
    assert torch.equal(block(images), images)


@pytest.mark.parametrize("spec", ["alexnet", "resnet:18", "vgg:11", "wide-resnet:16:2", "timm:test_vit"])
def test_only_weights_decay(spec: str) -> None:
    if spec.startswith("timm"):
        pytest.importorskip("timm")
        model = build_model(spec, 10, 3, (32, 32))
    else:
        model = on_meta(spec)
    decayed, spared = model.param_groups(OptimConfig(weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0
    layers = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {names[id(p)] for p in decayed["params"]} == layers
    if "vit" in spec:
        assert "network.pos_embed" in {names[id(p)] for p in spared["params"]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet:21", "there are 18 and 34.*6n\\+2"), ("resnet:2", "6n\\+2"), ("resnet:50", "timm:resnet50"),
        ("resnet:152", "timm:resnet152"), ("resnet:20:widen=0", "without channels"),
        ("resnet:20:widen=nan", "without channels"), ("resnet:20:widen=inf", "without channels"),
        ("wide-resnet:17", "6n\\+4"), ("wide-resnet:4", "6n\\+4"), ("wide-resnet:16:0.01", "without channels"),
        ("wide-resnet:16:dropout=1", "below 1"), ("vgg:12", "11, 13, 16, 19"), ("alexnet:dropout=-0.1", "at least 0"),
        ("alexnet:dropout=nan", "at least 0"), ("vgg:wide=2", "did you mean 'widen'"), ("vgg:11:yes", "batch_norm"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(spec, 10, 3, (32, 32))


@pytest.mark.parametrize(
    ("spec", "least"),
    [("alexnet", 15), ("vgg:11", 16), ("resnet:20", 4), ("resnet:18", 8), ("wide-resnet", 4), ("tutorial", 16)],
)
def test_the_smallest_image_is_named_and_works(spec: str, least: int) -> None:
    model = on_meta(spec, side=least)
    assert model.eval()(torch.zeros(1, 3, least, least, device="meta")).shape == (1, 10)
    name = spec.partition(":")[0]
    with pytest.raises(ConfigError, match=f"{name}.*at least {least}×{least} pixels, not 99×{least - 1}.*--image-size"):
        build_model(spec, 10, 3, (least - 1, 99))


def test_flops_of_the_tutorials_network_counted_by_hand() -> None:
    """Outputs times the multiply-adds of each, times 2; biases and ReLU do not count."""
    conv1, conv2 = 6 * 28 * 28 * (3 * 5 * 5), 16 * 10 * 10 * (6 * 5 * 5)
    linear = 400 * 120 + 120 * 84 + 84 * 10
    assert spec_cost("tutorial", 10, 3, (32, 32)) == (62_006, 2 * (conv1 + conv2 + linear))


@pytest.mark.parametrize("spec", FORMS)
def test_flops_are_those_of_the_layers(spec: str) -> None:
    model, total = on_meta(spec), 0

    def add(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        each = module.weight[0].numel()  # multiply-adds of one output
        total += 2 * output.numel() * each

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    counted = forward_flops(model, 3, (32, 32))
    assert counted == total
    assert model.training


def test_flops_published_for_resnet_18() -> None:
    """He et al. 2016, table 1: 1.8 billion multiply-adds at 224 pixels; timm's networks are enlarged to 128 here."""
    pytest.importorskip("timm")
    assert 2 * 1.75e9 < spec_cost("timm:resnet18:min_side=0", 1000, 3, (224, 224))[1] < 2 * 1.85e9
    enlarged, whole = (spec_cost("timm:resnet18", 10, 3, (side, side))[1] for side in (32, 128))
    assert enlarged == whole


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build_model("convnet", 10, 3, (32, 32))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward_flops(model, 3, (32, 32))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    state = torch.get_rng_state()
    spec_cost("convnet", 10, 3, (32, 32))
    assert torch.equal(torch.get_rng_state(), state)


def test_flops_as_text() -> None:
    figures = [0, 999, 1_303_440, 81_100_000, 506_000_000, 10_480_000_000, 2.5e12]
    assert [flops_text(int(figure)) for figure in figures] == [
        "0.00 FLOP", "999 FLOP", "1.30 MFLOP", "81.1 MFLOP", "506 MFLOP", "10.5 GFLOP", "2.50 TFLOP",
    ]  # fmt: skip


def test_list_models(fovea, own_registry, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed: listing needs it not
    Path("mine.py").write_text(
        "import torch\nfrom fovea.models.base import Model\nfrom fovea.registry import model\n\n\n"
        "class Mean(Model):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(10))\n\n"
        "    def forward(self, images):\n        return images.mean(dim=(1, 2, 3))[:, None] * self.scale\n\n\n"
        '@model\ndef my_mean(num_classes, channels, image_size):\n    """The mean."""\n    return Mean()\n'
    )
    listed = {
        entry["name"]: entry
        for entry in json.loads(fovea("list", "models", "--plugin", "mine.py", "--json").stdout)["models"]
    }
    assert listed["my-mean"]["forms"] == [{"model": "my-mean", "num_parameters": 10, "flops": 0}]
    assert listed["tutorial"]["forms"] == [{"model": "tutorial", "num_parameters": 62_006, "flops": 1_303_440}]
    assert listed["timm"]["forms"] == []
    for name, entry in listed.items():
        if entry["forms"]:
            first = entry["forms"][0]["model"]
            assert registry.model.resolve(first, 3) == registry.model.resolve(name, 3), "the first is the default"
    costs = {form["model"]: form for entry in listed.values() for form in entry["forms"]}
    rows = re.findall(r"^\| `(.+)` \| [\d ]*\| ([\d,]+) \| (.+) \|$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(costs) - 1, "docs/models.md has them all but this test's own"
    for model, parameters, flops in rows:
        found = costs[model]
        assert (parameters, flops) == (f"{found['num_parameters']:,}", flops_text(found["flops"]))
    listing.print_parts({"models": list(listed.values())})
    shown = capsys.readouterr().out
    assert "  resnet:56              853,018   251 MFLOP\n" in shown
    assert "for 10 classes and 3×32×32 images" in shown
    assert "FLOP" not in fovea("list").stdout
    assert "forms" not in fovea("list", "--json").stdout


def test_a_run_holds_the_models_flops_and_one_without_them_still_loads(fovea, tiny_run: Path) -> None:
    saved = json.loads((tiny_run / "model.json").read_text())
    height, width = saved["preprocess"]["image_size"]
    model = build_model(saved["model"], len(saved["classes"]), saved["preprocess"]["channels"], (height, width))
    assert saved["flops"] == forward_flops(model, saved["preprocess"]["channels"], (height, width)) > 0
    assert f"<b>{saved['flops'] / 1e6:,.1f}</b>" in (tiny_run / "report.html").read_text()
    del saved["flops"]  # as an earlier Fovea left it
    (tiny_run / "model.json").write_text(json.dumps(saved))
    assert Run(tiny_run).info.flops is None
    assert fovea("report", tiny_run).code == 0
    assert "FLOP" not in (tiny_run / "report.html").read_text()


# Networks of timm


def test_a_timm_network_from_training_to_prediction(fovea) -> None:
    timm = pytest.importorskip("timm")
    words = ["train", "synthetic:num_images=60", "--model", "timm:test_vit:drop_rate=0.1:global_pool=avg", "--epochs", 1,
             "--batch-size", 20, "--out", "run", "--device", "cpu"]  # fmt: skip
    assert fovea(*words).code == 0
    run = Run("run")
    assert run.info.model == "timm:name=test_vit:min_side=128:drop_rate=0.1:global_pool=avg"
    assert json.loads(fovea("evaluate", "run", "--json").stdout) == run.metrics
    assert fovea("export", "run", "--out", "weights.pth").code == 0
    size = {"img_size": (128, 128), "num_classes": len(run.info.classes), "in_chans": run.info.preprocess.channels}
    theirs = timm.create_model("test_vit", global_pool="avg", **size)
    theirs.load_state_dict(torch.load("weights.pth", weights_only=True))
    again = build_model(run.info.model, len(run.info.classes), run.info.preprocess.channels, (32, 32))
    load_weights(again, theirs.state_dict(), "timm's own")
    assert all(torch.equal(again.state_dict()[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
@pytest.mark.parametrize(
    ("channels", "size", "enlarged"),
    [(1, (28, 28), (128, 128)), (3, (32, 48), (128, 192)), (3, (41, 24), (224, 128)), (3, (130, 160), (160, 160))],
)
def test_families_of_timm_on_images_of_any_size(
    name: str, channels: int, size: tuple[int, int], enlarged: tuple[int, int]
) -> None:
    pytest.importorskip("timm")
    model = build_model(f"timm:{name}", 5, channels, size).eval()
    assert model(torch.rand(2, channels, *size)).shape == (2, 5)
    assert model.size == enlarged


def test_a_timm_network_sees_the_enlarged_image() -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = build_model("timm:test_resnet", 5, 3, (32, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    larger = nn.functional.interpolate(images, size=(128, 128), mode="bilinear", align_corners=False)
    assert torch.equal(model(images), model.network(larger))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm", "needs a value: write timm:name=..."),
        ("timm:resnet27", "unknown timm model 'resnet27' \\(did you mean 'resnet2"),
        ("timm:hf-hub:resnet26", "must be int, not 'resnet26'"), ("timm:hf-hub", "unknown timm model"),
        ("timm:name=local-dir", "unknown timm model"), ("timm:test_resnet.no_tag", "unknown timm model"),
        ("timm:test_resnet:rate=0.1", "takes no option 'rate'"), ("timm:test_resnet:pretrained=true", "only fresh"),
        ("timm:test_resnet:pretrained_cfg=a", "only fresh"), ("timm:test_resnet:checkpoint_path=a", "only fresh"),
        ("timm:test_resnet:num_classes=3", "unknown option"),
        ("timm:test_resnet:in_chans=3", "follows from the data"), ("timm:test_resnet:min_side=x", "must be int"),
        ("timm:test_resnet:features_only=true", "no|not"), ("timm:test_resnet:global_pool=no_such", "cannot build"),
        ("timm:test_vit:global_pool=", "cannot build|one logit"),
        ("timm:test_vit:min_side=0:patch_size=64", "32×32; it was drawn for 160 pixels: set min_side"),
    ],
)  # fmt: skip
def test_what_timm_does_not_take_is_one_line(spec: str, said: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(FoveaError, match=said) as caught:
        build_model(spec, 10, 3, (32, 32))
    assert "\n" not in str(caught.value)


def test_without_timm_the_command_that_installs_it_is_named(fovea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    result = fovea("train", "digits", "--model", "timm:resnet26")
    assert result.code == 2
    assert result.stderr == 'fovea: models of timm need the package timm: pip install "fovea[timm]"\n'
    assert not Path("runs").exists()
