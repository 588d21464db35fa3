"""Starting from what exists: what is taken, what stays frozen, and a head on features that are computed once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fovea as package
from fovea import registry
from fovea.config import FreezeConfig, OptimConfig, RunConfig
from fovea.engine.finetune import Freezing, Start, head_of, take
from fovea.engine.head import best_head
from fovea.engine.progress import Display
from fovea.engine.train import build
from fovea.errors import ConfigError, RunError
from fovea.models.base import Model, build_model
from fovea.optim.build import build_optimizer
from fovea.resolve import resolve
from fovea.run import ModelInfo, Run
from test_bad_input import assert_refused, nothing_written
from test_parts import SMALL

OTHER = "synthetic:num_images=200:num_classes=5:seed=1"  # class-0 to class-4; tiny_run knows class-0 to class-3
SHORT = ("--epochs", 2, "--batch-size", 20, "--device", "cpu", "--out", "run")


def names_by_depth(model: Model) -> list[set[str]]:
    names = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    return [{names[id(tensor)] for tensor in stage} for stage in model.by_depth()]


@pytest.mark.parametrize("name", registry.model.names())
def test_every_models_tensors_stand_in_one_stage_each_and_its_head_is_the_last(name: str) -> None:
    model = build_model(SMALL.get(name, name), 7, 3, (32, 32))
    stages = names_by_depth(model)
    everything = [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    assert sorted(name for stage in stages for name in stage) == sorted(everything)
    assert len(stages) >= 3
    head = head_of(model, 7)
    given: list[Tensor] = []
    head.register_forward_hook(lambda module, inputs, output: given.append(output))
    logits = model.eval()(torch.rand(2, 3, 32, 32))
    assert torch.equal(given[0].flatten(1), logits)


def test_stages_of_a_network_as_one_would_draw_them() -> None:
    assert [min(stage).rpartition(".")[0] for stage in names_by_depth(build_model("tutorial", 10, 3, (32, 32)))] == [
        "conv1", "conv2", "fc1", "fc2", "fc3",
    ]  # fmt: skip
    stages = names_by_depth(build_model("wide-resnet:10:1", 10, 3, (32, 32)))
    assert [len(stage) for stage in stages] == [1, 12, 13, 18, 2]
    assert "norm.weight" in stages[3], "the norm after the last block belongs to it"


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_lr_decay_is_timms(name: str) -> None:
    """Against timm's own parameter groups, up to what it counts the norm before the head to."""
    pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = build_model(f"timm:{name}", 5, 3, (32, 32))
    optimizer = build_optimizer(OptimConfig(name="adamw", lr=1.0), model, lr_decay=0.5)
    ours = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    theirs = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(model.network, layer_decay=0.5)
        for p in group["params"]
    }
    assert ours.keys() == theirs.keys()
    ratios = {ours[key] / theirs[key] for key in ours if key not in set(map(id, model.by_depth()[-1]))}
    assert len(ratios) == 1
    assert max(ours.values()) == 1.0


def test_lr_decay_keeps_what_the_groups_say() -> None:
    model = build_model("resnet:8", 5, 3, (32, 32))
    groups = build_optimizer(OptimConfig(name="sgd", lr=0.1, weight_decay=0.5), model, lr_decay=0.9).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len(names)
    assert found["head.weight"] == (pytest.approx(0.1), 0.5)
    assert found["head.bias"] == (pytest.approx(0.1), 0.0)
    assert found["stem.0.weight"] == (pytest.approx(0.1 * 0.9**4), 0.5)


# What is taken


def begin(data: str, **options: object) -> tuple[RunConfig, dict[str, Tensor], ModelInfo, str]:
    """Config, first weights, and what is said of them, without the training."""
    config, dataset = resolve(data, "finetune", None, Display(quiet=True), **options)
    said: list[str] = []
    model, info = build(config, dataset, said.append)
    return config, model.state_dict(), info, "\n".join(said)


def start_of(model: Model, classes: tuple[str, ...]) -> Start:
    return Start("there", {k: v.clone() for k, v in model.state_dict().items()}, classes, (0.5,) * 3, (0.5,) * 3)


def test_classes_that_both_know_keep_their_rows() -> None:
    old, new = (build_model("convnet:width=4", size, 3, (16, 16)) for size in (3, 4))
    said = take(new, start_of(old, ("ant", "bee", "cat")), ("cat", "dog", "ant", "eel"))
    assert torch.equal(new.head.weight[[0, 2]], old.head.weight[[2, 0]])
    assert torch.equal(new.head.bias[[0, 2]], old.head.bias[[2, 0]])
    assert not torch.isin(new.head.weight[[1, 3]], old.head.weight).any()
    for name, tensor in old.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(new.state_dict()[name], tensor)
    total = sum(tensor.numel() for tensor in new.state_dict().values())
    assert said == f"start from there: {total - 2 * 17:,} of {total:,} weights; kept in the head: cat, ant"
    assert "new: head.weight, head.bias" in take(new, start_of(old, ("x", "y", "z")), ("cat", "dog", "ant", "eel"))


@pytest.mark.parametrize("spec", ["convnet:width=4", "resnet:8", "timm:test_resnet:min_side=32"])
def test_a_gray_image_looks_the_same_to_a_network_of_other_channels(spec: str) -> None:
    if spec.startswith("timm"):
        pytest.importorskip("timm")
    gray = torch.rand(2, 1, 32, 32)
    rgb, one = (build_model(spec, 3, channels, (32, 32)).eval() for channels in (3, 1))
    classes = ("a", "b", "c")
    take(one, start_of(rgb, classes), classes)
    assert torch.allclose(one(gray), rgb(gray.expand(-1, 3, -1, -1)), atol=1e-4)
    back = build_model(spec, 3, 3, (32, 32)).eval()
    take(back, start_of(one, classes), classes)
    assert torch.allclose(back(gray.expand(-1, 3, -1, -1)), one(gray), atol=1e-4)


def test_statistics_follow_the_channels() -> None:
    start = Start("there", {}, None, (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    assert start.statistics(3) == (start.mean, start.std)
    assert start.statistics(1) == ((pytest.approx(0.4),), (pytest.approx(0.2),))
    assert Start("there", {}, None, (0.4,), (0.2,)).statistics(3) == ((0.4,) * 3, (0.2,) * 3)


def test_what_has_nothing_in_common_is_refused() -> None:
    old, new = build_model("convnet:width=4", 3, 3, (16, 16)), build_model("resnet:8", 4, 3, (16, 16))
    with pytest.raises(RunError, match="nothing in there fits the model: leave --model out"):
        take(new, start_of(old, ("a", "b", "c")), ("d", "e", "f", "g"))


def test_a_run_goes_on_with_other_classes_size_and_channels(tiny_run: Path) -> None:
    before = load_file(tiny_run / "weights" / "best.safetensors")
    config, after, info, said = begin(f"{OTHER}:channels=1:image_size=20", weights=str(tiny_run))
    assert config.model == "convnet:width=8"
    assert info.preprocess.mean == (pytest.approx(sum(Run(tiny_run).info.preprocess.mean) / 3),)
    assert info.preprocess.image_size == (20, 20)
    assert torch.equal(after["features.1.0.weight"], before["features.1.0.weight"])
    assert torch.allclose(after["features.0.0.weight"], before["features.0.0.weight"].sum(1, keepdim=True))
    assert torch.equal(after["head.weight"][:4], before["head.weight"])
    assert said.startswith(f"start from {tiny_run}: ")
    assert said.endswith("; kept in the head: class-0, class-1, class-2, class-3")


def test_larger_images_may_make_a_deeper_network_of_which_the_rest_is_new(tiny_run: Path) -> None:
    _, _, _, said = begin(f"{OTHER}:image_size=32", weights=str(tiny_run))
    assert "new: features.9.0.weight, features.9.1.weight, features.9.1.bias, features.9.1.running_mean and " in said


# timm's weights


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, laid out as the hub's, of a machine that is offline."""
    pytest.importorskip("timm")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def write_cached(cache: Path, name: str, filename: str = "model.safetensors") -> dict[str, Tensor]:
    """Weights of `timm:name`, drawn at random, where a download would put them."""
    import timm

    torch.manual_seed(3)
    state = timm.create_model(name).state_dict()
    folder = cache / f"models--timm--{name}" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs" / "main").write_text("0123abc")
    if filename.endswith(".safetensors"):
        save_file(state, folder / filename)
    else:
        torch.save(state, folder / filename)
    return state


def test_pretrained_weights_come_from_the_hubs_cache(hub_cache: Path, fovea) -> None:
    from timm import get_pretrained_cfg

    theirs = write_cached(hub_cache, "test_resnet.r160_in1k")
    result = fovea("train", OTHER, "--model", "timm:test_resnet.r160_in1k:min_side=32", "--pretrained", "--freeze",
                   "backbone", "--device", "cpu", "--out", "run")  # fmt: skip
    assert result.code == 0, result.stderr
    run = Run("run")
    assert (run.config.recipe, run.config.pretrained) == ("finetune", "hub")
    assert "new: fc.weight, fc.bias" in result.stdout
    ours = run.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items() if not name.startswith("fc."))
    expected = get_pretrained_cfg("test_resnet.r160_in1k")
    assert (run.info.preprocess.mean, run.info.preprocess.std) == (expected.mean, expected.std)


def test_the_cache_may_hold_the_older_format(hub_cache: Path) -> None:
    theirs = write_cached(hub_cache, "test_resnet.r160_in1k", "pytorch_model.bin")
    _, ours, _, _ = begin(OTHER, model="timm:test_resnet:min_side=32", pretrained="hub")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items() if not name.startswith("fc."))


def test_a_file_is_taken_as_timm_takes_it(tmp_path: Path) -> None:
    """A vision transformer for other classes, gray images and another size: its position embeddings are interpolated."""
    timm = pytest.importorskip("timm")
    file = tmp_path / "vit.safetensors"
    torch.manual_seed(3)
    save_file(timm.create_model("test_vit").state_dict(), file)
    _, ours, _, _ = begin(f"{OTHER}:channels=1", model="timm:test_vit", pretrained=str(file))
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(file)}, num_classes=5, in_chans=1, img_size=128
    ).state_dict()
    assert ours["pos_embed"].shape != load_file(file)["pos_embed"].shape
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items() if not name.startswith("head."))


@pytest.mark.parametrize("model", [(), ("--model", "timm:test_resnet")])
def test_without_network_or_cache_it_says_what_to_fetch(hub_cache: Path, model: tuple[str, ...], fovea) -> None:
    with nothing_written():
        result = fovea("train", OTHER, "--pretrained", *model, "--device", "cpu")
    name = "timm/test_resnet.r160_in1k" if model else "timm/resnet18.a1_in1k"
    assert_refused(result, f"hf download {name} model.safetensors", "--pretrained model.safetensors", "from scratch")


# Freezing


def test_frozen_stages_stay_as_they_are_and_thaw(tiny_run: Path, tmp_path: Path) -> None:
    """Weights, and batch normalization's averages, after each of 4 epochs of which the first half is frozen."""
    kept: list[dict[str, Tensor]] = []
    path = tmp_path / "run"
    run = package.train(
        OTHER, "finetune", path, {"freeze.until": 0.5, "min_steps": 0}, quiet=True, weights=str(tiny_run), epochs=4,
        batch_size=20, freeze="backbone", device="cpu", on_epoch=lambda record: kept.append(Run(path).weights("last")),
    )  # fmt: skip
    first = Run(tiny_run).weights()
    below = [name for name in first if not name.startswith("head")]
    for after in kept[:2]:
        assert all(torch.equal(after[name], first[name]) for name in below)
    assert not torch.equal(kept[1]["head.weight"], kept[0]["head.weight"])
    assert not any(torch.equal(kept[2][name], first[name]) for name in below)
    whole = {name: run.weights("last")[name].clone() for name in first}
    # A run that was stopped in the frozen half ends the same.
    shutil.rmtree(path)
    with pytest.raises(KeyboardInterrupt):
        package.train(
            OTHER, "finetune", path, {"freeze.until": 0.5, "min_steps": 0}, quiet=True, weights=str(tiny_run),
            epochs=4, batch_size=20, freeze="backbone", device="cpu", on_epoch=stop_after_one,
        )  # fmt: skip
    again = package.resume(path, quiet=True).weights("last")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def stop_after_one(record: dict[str, object]) -> None:
    raise KeyboardInterrupt


def test_a_number_freezes_so_many_stages() -> None:
    model = build_model("convnet:width=4", 3, 3, (16, 16)).train()
    Freezing(FreezeConfig(what="2"), model, 3).at(0.999)
    lower = ("features.0", "features.1")
    assert {name.startswith(lower) for name, p in model.named_parameters() if not p.requires_grad} == {True}
    assert {name.startswith(lower) for name, p in model.named_parameters() if p.requires_grad} == {False}
    assert all(m.training != name.startswith(lower) for name, m in model.named_modules())


def test_what_is_frozen_draws_nothing_at_random() -> None:
    model = build_model("wide-resnet:10:1:dropout=0.5", 3, 3, (16, 16))
    freezing = Freezing(FreezeConfig(what="backbone", until=0.5), model, 3)
    images = torch.rand(4, 3, 16, 16)
    model.train()
    freezing.at(0.4)
    assert torch.equal(model(images), model(images))
    freezing.at(0.5)
    assert not torch.equal(model(images), model(images))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frozen_from_the_start_stays_frozen_after_the_thaw() -> None:
    model = build_model("record:widths=8/8/8", 3, 3, (32, 32))
    freezing = Freezing(FreezeConfig(what="backbone", until=0.5), model, 3)
    freezing.at(0.0)
    freezing.at(0.9)
    assert not model.whiten.weight.requires_grad


# A head on features


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_head_is_logistic_regression(with_bias: bool) -> None:
    """Against scikit-learn, at one strength, on features of different scales."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    features = torch.randn(120, 6, generator=generator) + F.one_hot(labels, 6)
    features = features * torch.tensor([1.0, 10, 0.1, 1, 1, 1]) + 5
    found = best_head((features, labels), (features, labels), 3, with_bias, 0.0, strengths=[0.05])
    scaled = (
        StandardScaler().fit_transform(features) if with_bias else (features / features.square().mean(0).sqrt()).numpy()
    )
    oracle = LogisticRegression(C=1 / (0.05 * 120), tol=1e-8, max_iter=1000, fit_intercept=with_bias)
    theirs = oracle.fit(scaled, labels.numpy())
    assert (found.bias is not None) == with_bias
    ours = F.linear(features, found.weight, found.bias).softmax(1)
    assert torch.allclose(ours, torch.tensor(theirs.predict_proba(scaled)).float(), atol=1e-3)


def test_the_strength_is_chosen_on_val() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 2
        return torch.randn(count, 40, generator=generator) + 0.4 * labels[:, None] * (torch.arange(40) < 5), labels

    train, val = draw(60), draw(500)
    losses = {s: best_head(train, val, 2, True, 0.0, [s]).measure(*val)[0] for s in (1.0, 0.1, 0.001)}
    chosen = best_head(train, val, 2, True, 0.0)
    assert chosen.measure(*val)[0] <= min(losses.values()) + 1e-3
    assert losses[0.001] > 1.2 * chosen.measure(*val)[0], "or there is nothing to choose"


def test_without_val_a_fifth_of_train_chooses_and_all_of_it_is_learned_from() -> None:
    from fovea.engine.head import _fit
    from fovea.recipes.finetune import finetune

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(100) % 2
    features = torch.randn(100, 20, generator=generator) + 0.8 * labels[:, None] * (torch.arange(20) < 5)
    both = torch.cat([features, features.flip(1)]), labels.repeat(2)  # an image and its mirror
    found = _fit(both, None, 100, 2, True, finetune("any"))
    again = best_head(both, both, 2, True, 0.0, [found.strength])
    assert found.strength > 1e-3, "the weakest learns the images by heart"
    assert torch.allclose(found.weight, again.weight, atol=1e-2)


def test_a_frozen_backbone_trains_its_head_alone(tiny_run: Path, fovea) -> None:
    result = fovea("train", OTHER, "--weights", tiny_run, "--freeze", "backbone", "--augment", "mirror,shift:2",
                   "--val-fraction", 0.2, "--device", "cpu", "--out", "run")  # fmt: skip
    assert result.code == 0, result.stderr
    assert "not used: shift:2, epochs, lr" in result.stdout
    run, first = Run("run"), Run(tiny_run).weights()
    after = run.weights()
    assert all(torch.equal(after[name], first[name]) for name in first if not name.startswith("head"))
    assert run.metrics["accuracy"] > 0.9
    (row,) = run.results
    dataset = package.load_data(OTHER, val_fraction=0.2)
    logits = package.load(run).logits(dataset.splits["val"].images)
    labels = dataset.splits["val"].labels
    assert float(row["val_accuracy"]) == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-5)
    assert float(row["val_loss"]) == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-4)
    stamp = (run.path / "weights" / "best.safetensors").stat().st_mtime_ns
    package.resume(run, quiet=True)
    assert (run.path / "weights" / "best.safetensors").stat().st_mtime_ns == stamp


def test_a_network_that_does_more_after_its_last_layer_is_told() -> None:
    from fovea.data.preprocess import Preprocess
    from fovea.engine.head import _check_linear

    class Scaled(Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(48, 3)

        def forward(self, images: Tensor) -> Tensor:
            return 5 * self.head(images.flatten(1))

    model = Scaled()
    data = package.load_data("synthetic:num_images=60:num_classes=3:image_size=4")
    preprocess = Preprocess((4, 4), 3, (0.0,) * 3, (1.0,) * 3)
    features = data.train.images.float().flatten(1) / 255
    with pytest.raises(ConfigError, match="not those of its last layer alone: give --set freeze.cached=false"):
        _check_linear(model, model.head, data.train, features, preprocess, torch.device("cpu"))


# Bad input


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--pretrained", "--model", "resnet:20"], ["'resnet'", "timm:", "--weights RUN"]),
        (["--pretrained", "--model", "timm:test_resnet", "--weights", "tiny"], ["--pretrained", "--weights", "one"]),
        (["--pretrained", "--model", "timm:resnet999"], ["'resnet999'", "timm.list_pretrained()"]),
        (["--pretrained", "no.pth", "--model", "timm:test_resnet"], ["no weights file no.pth"]),
        (["--pretrained", "other.safetensors"], ["other.safetensors", "--model timm:NAME"]),
        (["--pretrained", "other.safetensors", "--model", "timm:test_resnet"],
         ["other.safetensors", "lacks bn1.bias", "more", "has blocks.0"]),
        (["--pretrained", "damaged.safetensors", "--model", "timm:test_resnet"], ["damaged.safetensors", "cut short"]),
        (["--freeze", "backbone"], ["--freeze backbone", "--pretrained", "--weights RUN"]),
        (["--weights", "tiny", "--freeze", "heads"], ["--freeze heads", "backbone", "none", "number"]),
        (["--weights", "tiny", "--freeze", "9"], ["--freeze 9", "6 stages"]),
        (["--weights", "tiny", "--freeze", "2", "--set", "part_size=10"], ["part_size=0"]),
        (["--weights", "tiny", "--freeze", "backbone", "--find-lr"], ["--find-lr"]),
        (["--weights", "tiny", "--model", "tutorial"], ["nothing in tiny fits", "--model"]),
        (["--weights", "tiny", "--set", "freeze.until=0"], ["freeze.until"]),
        (["--weights", "tiny", "--set", "lr_decay=2"], ["lr_decay"]),
        (["--weights", "empty"], ["empty", "no run folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)  # fmt: skip
def test_bad_starts(words: list[str], parts: list[str], tiny_run: Path, fovea) -> None:
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("test_vit").state_dict(), "other.safetensors")
    Path("damaged.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:5000])
    Path("empty").mkdir()
    with nothing_written():
        assert_refused(fovea("train", OTHER, *words, *SHORT), *parts)


def test_a_run_of_a_plugins_model_needs_the_plugin(tiny_run: Path, fovea) -> None:
    path = tiny_run / "model.json"
    path.write_text(path.read_text().replace("convnet:width=8", "two:width=8"))
    assert_refused(fovea("train", OTHER, "--weights", tiny_run, *SHORT), "needs the model 'two'", "--plugin", "--model")


def test_a_head_that_was_not_registered_last_must_be_named() -> None:
    class Two(Model):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.hidden = nn.Linear(8, 5), nn.Linear(48, 8)

    with pytest.raises(ConfigError, match="no layer of Two gives 5 logits.*by_depth.*--freeze none"):
        head_of(Two(), 5)

    class Named(Two):
        def by_depth(self) -> list[list[Tensor]]:
            return [list(self.hidden.parameters()), list(self.head.parameters())]

    named = Named()
    assert head_of(named, 5) is named.head
    with pytest.raises(ConfigError, match="Model has no layer that gives the logits: override by_depth"):
        Model().by_depth()


def test_a_damaged_run_is_named(tiny_run: Path, fovea) -> None:
    path = tiny_run / "weights" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    assert_refused(fovea("train", OTHER, "--weights", tiny_run, *SHORT), str(path), "damaged", "restore it")
    (tiny_run / "model.json").unlink()
    assert_refused(fovea("train", OTHER, "--weights", tiny_run, *SHORT), "model.json", "missing")


def test_a_network_whose_head_is_no_one_layer_cannot_be_frozen() -> None:
    pytest.importorskip("timm")
    model = build_model("timm:deit_tiny_distilled_patch16_224:min_side=32:patch_size=16", 3, 3, (32, 32))
    with pytest.raises(ConfigError, match="no one linear layer"):
        head_of(model, 3)
