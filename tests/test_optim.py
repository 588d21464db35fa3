"""Optimizers, schedules and the average of the weights: against torch's own, and what each registered one holds."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

import fovea as package
from fovea import registry
from fovea.config import EmaConfig, OptimConfig, RunConfig, ScheduleConfig
from fovea.engine.gradients import Parts
from fovea.errors import ConfigError
from fovea.models.base import Model, build_model
from fovea.optim.average import WeightAverage
from fovea.optim.build import SETTINGS, build_optimizer, set_lr, with_habits
from fovea.optim.muon import Muon, Together, newton_schulz
from fovea.optim.schedules import bind_schedule, build_schedule
from fovea.recipes.simple import simple
from fovea.run import Run


def small_net() -> Model:
    torch.manual_seed(0)
    return build_model("convnet:width=4", 5, 3, (8, 8))


def take_steps(model: Model, optimizer: torch.optim.Optimizer, num_steps: int) -> list[float]:
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(20) % 5
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# -- every optimizer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.optimizer.names())
def test_every_optimizer(name: str) -> None:
    function = registry.optimizer.get(name)
    parameters = list(inspect.signature(function).parameters.values())
    used = [p.name for p in parameters if p.name in SETTINGS]
    assert [p.name for p in parameters[: 2 + len(used)]] == ["model", "groups", *used], "its settings come first"
    assert all(p.default is not p.empty for p in parameters[2:])

    config = OptimConfig(name=name, **{p.name: p.default for p in parameters if p.name in used})
    model = small_net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build_optimizer(config, model)
    losses = take_steps(model, optimizer, 30)
    assert losses[-1] < losses[0] - 0.3
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), f"{key} was not trained"

    # Saved and read as resume.pt is, it goes on as if nothing had been.
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = small_net()
    again.load_state_dict(saved["model"])
    resumed = build_optimizer(config, again)
    resumed.load_state_dict(saved["optimizer"])
    assert take_steps(again, resumed, 3) == take_steps(model, optimizer, 3)
    highest = [group["lr"] for group in resumed.param_groups]
    set_lr(resumed, highest, 0.0)  # reaches every group, after loading, too
    losses = take_steps(again.eval(), resumed, 2)
    assert losses[0] == losses[1]


class OwnGroups(Model):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    def param_groups(self, config: OptimConfig) -> list[dict[str, object]]:
        return [{"params": list(self.body.parameters())},
                {"params": list(self.head.parameters()), "lr_scale": 0.5, "weight_decay": 0.0}]  # fmt: skip


@pytest.mark.parametrize("name", registry.optimizer.names())
def test_a_models_groups_are_kept(name: str) -> None:
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.1, weight_decay=0.3), model := OwnGroups())
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(settings) == 4
    body, head = settings[id(model.body.bias)], settings[id(model.head.bias)]
    assert head["lr"] == 0.5 * body["lr"]
    assert (body["weight_decay"], head["weight_decay"]) == (0.3, 0.0)
    assert settings[id(model.body.weight)]["lr"] == 0.1


# -- Muon ----------------------------------------------------------------------------------------------------------


def matrices(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 20), (20, 6), (128, 600), (600, 128)])
def test_newton_schulz_against_the_svd(rows: int, columns: int) -> None:
    """With the coefficients that converge, and enough iterations, it is U V^T."""
    given = matrices(rows, columns)
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    found = newton_schulz(given, steps=30, coefficients=(15 / 8, -10 / 8, 3 / 8))
    assert torch.allclose(found, u @ v, atol=1e-4)


def test_newton_schulz_keeps_the_directions_and_brings_singular_values_near_one() -> None:
    """The band of the coefficients, about 0.7 to 1.2, for singular values of a hundredth of the largest and more."""
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(16, 16))
    v, _ = torch.linalg.qr(torch.randn(40, 16))
    singular = torch.logspace(-1.5, 0, 16)
    found = newton_schulz((u * singular @ v.mT)[None])[0]
    core = u.mT @ found @ v
    assert torch.allclose(core, torch.diag(core.diag()), atol=1e-4)
    assert core.diag().min() > 0.65
    assert core.diag().max() < 1.25
    assert newton_schulz(torch.zeros(1, 3, 4)).abs().max() == 0


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_on_matrices(nesterov: bool) -> None:
    """torch's takes bfloat16 and matrices only: the tolerance is that of bfloat16, an lr of 0.02 times 1/128."""
    shapes = [(6, 10), (6, 10), (12, 4)]
    ours = [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3))) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for seed in range(4):
        for weights, optimizer in zip((ours, theirs), optimizers, strict=True):
            for row, weight in enumerate(weights):
                weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 * seed + row))
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=2e-3)
        assert not torch.allclose(one, other * 1.01, atol=2e-3)


@pytest.mark.parametrize("shape", [(12, 2, 1, 2), (4, 3, 3, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_taken_as_a_matrix(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    values, grad = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    filters = nn.Parameter(values.clone().contiguous(memory_format=memory_format))
    matrix = nn.Parameter(values.flatten(1).clone())
    filters.grad, matrix.grad = grad.contiguous(memory_format=memory_format), grad.flatten(1)
    for weight in (filters, matrix):
        Muon([weight], lr=0.1, normalize=True).step()
    assert torch.allclose(filters.flatten(1), matrix, atol=1e-6)
    assert not torch.allclose(matrix, values.flatten(1), atol=1e-2)


def test_muon_on_several_cores_is_muon_on_one() -> None:
    def stepped(threads_when_built: int) -> list[nn.Parameter]:
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(shape)) for shape in ((160, 40, 3, 3), (32, 16), (160, 40, 3, 3), (20, 50))]
        torch.set_num_threads(threads_when_built)
        optimizer = Muon(weights, lr=0.1, normalize=True)
        torch.set_num_threads(1)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        return weights

    before = torch.get_num_threads()
    try:
        assert all(map(torch.equal, stepped(3), stepped(1)))
    finally:
        torch.set_num_threads(before)


def test_muon_takes_the_hidden_weights_and_adamw_the_rest() -> None:
    model = small_net()
    optimizer = build_optimizer(OptimConfig(name="muon:other_lr=0.004", lr=0.1, momentum=0.6), model)
    assert isinstance(optimizer, Together)
    hidden, rest = optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in hidden["params"]} == {n for n, p in model.named_parameters() if p.ndim == 4}
    assert "head.weight" in {names[id(p)] for p in rest["params"]}
    assert (hidden["lr"], hidden["momentum"], rest["lr"]) == (0.1, 0.6, 0.004)

    # The rest is torch's AdamW; a convolution is taken as a matrix, and weights of one shape do not mix.
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    take_steps(model, optimizer, 1)
    for name, p in model.named_parameters():
        if p.ndim == 4:
            step = (before[name] - p).flatten(1) / 0.1
            u, _, v = torch.linalg.svd(p.grad.flatten(1), full_matrices=False)
            assert torch.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.97
        else:
            plain = nn.Parameter(before[name].clone())
            plain.grad = p.grad
            torch.optim.AdamW([plain], lr=0.004, betas=(0.9, 0.999), weight_decay=0.0).step()
            assert torch.allclose(plain, p, atol=1e-6)


def test_muon_normalizes_filters() -> None:
    model = small_net()
    optimizer = build_optimizer(OptimConfig(name="muon:normalize=true", lr=1e-9, weight_decay=0.1), model)
    take_steps(model, optimizer, 1)
    for weight in model.hidden_weights():
        assert weight.square().sum().item() == pytest.approx(len(weight), rel=1e-5)


def test_muon_with_sgd_for_the_rest() -> None:
    config = OptimConfig(name="muon:other=sgd:other_lr=0.05:other_momentum=0.85", nesterov=True, weight_decay=0.01)
    _, rest = build_optimizer(config, small_net()).param_groups
    assert [rest[key] for key in ("lr", "momentum", "nesterov", "weight_decay")] == [0.05, 0.85, True, 0.01]


def test_sgd_with_another_rate_for_the_rest() -> None:
    """Rate and decay of biases and head, and that what decay takes in a step is the same for both."""
    model = small_net()
    hidden, *rest = build_optimizer(OptimConfig(name="sgd:other=8", lr=0.5, weight_decay=0.01), model).param_groups
    assert (hidden["lr"], hidden["weight_decay"]) == (0.5, 0.01)
    assert {(group["lr"], group["weight_decay"]) for group in rest} == {(4.0, 0.00125)}
    assert set(map(id, hidden["params"])) == set(map(id, model.hidden_weights()))
    assert len(hidden["params"]) + sum(len(group["params"]) for group in rest) == len(list(model.parameters()))


def test_sgd_with_a_rate_of_its_own_for_the_head() -> None:
    """What gives the logits learns and decays by `head`, the biases by `other`, and neither changes the hidden weights' rate."""
    model = build_model("record:widths=16/16:depths=2/2", 4, 3, (16, 16))
    config = OptimConfig(name="sgd:other=8:head=32", lr=0.5, weight_decay=0.64)
    groups = build_optimizer(config, model).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.5, 0.64), (16.0, 0.02), (4.0, 0.08)]
    hidden, head, biases = (group["params"] for group in groups)
    assert [*map(id, head)] == [id(model.head.weight)]
    assert set(map(id, hidden)) == set(map(id, model.hidden_weights()))
    assert all(bias.ndim == 1 for bias in biases)
    assert len(groups) == 3


# -- schedules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.schedule.names())
def test_every_schedule(name: str) -> None:
    """From 0 to 1, somewhere 1, the same at every call; with a warm-up where it does not rise by itself."""
    factor = bind_schedule(name)
    factors = [factor(step / 1000) for step in range(1001)]
    assert 0 <= min(factors) <= max(factors) == pytest.approx(1, abs=1e-6)
    assert factors == [factor(step / 1000) for step in range(1001)]
    for num_steps in (1, 2, 7):  # the shortest runs, too
        assert all(0 <= build_schedule(ScheduleConfig(name=name), num_steps)(step) <= 1 for step in range(num_steps))
    if factors[0] == 1:
        warm = build_schedule(ScheduleConfig(name=name, warmup=0.2), 100)
        assert [warm(step) for step in range(20)] == pytest.approx([(step + 1) / 21 for step in range(20)])
        assert warm(20) == 1


def torchs(make: object, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


TORCHS = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200),
    "cosine:end=0.1": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200, eta_min=0.1),
    "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=200),
    "linear:end=0.07": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.07, total_iters=200),
    "step": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [100, 150], 0.1),
    "step:at=0.25/0.3/0.9:factor=0.5": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [50, 60, 180], 0.5),
    "constant": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
}


@pytest.mark.parametrize("spec", TORCHS)
def test_schedules_are_torchs(spec: str) -> None:
    ours = build_schedule(ScheduleConfig(name=spec), 200)
    assert [ours(step) for step in range(200)] == pytest.approx(torchs(TORCHS[spec], 200), abs=1e-7)


def test_one_cycle_is_torchs() -> None:
    """torch's highest lr comes a step before 0.3, its lowest at the last step, ours a step later: in a long run, one."""
    steps = 20_000
    ours = build_schedule(ScheduleConfig(name="one-cycle"), steps)
    theirs = torchs(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=steps + 1), steps)
    assert [ours(step) for step in range(steps)] == pytest.approx(theirs, abs=3e-4)
    assert (ours(0), ours(6000)) == pytest.approx((1 / 25, 1.0))
    assert bind_schedule("one-cycle")(1.0) == pytest.approx(1 / 25 / 1e4)


# -- the average ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("span", [0.1, 0.5])
def test_the_average_has_the_weights_that_it_promises(span: float, every: int) -> None:
    """Fed with the step's number, it is the mean step: span * t steps before t, but for the update interval."""
    model = small_net()
    average = WeightAverage(EmaConfig(span=span, every=every), model)
    for step in range(1, 3001):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(step)
        average.update(step, step / 3000)
    for name, tensor in average.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 3000
        else:
            assert torch.allclose(tensor, torch.tensor(3000 * (1 - span)), atol=every)
    average.update(3001, 1.0, force=True)
    assert average.state_dict()["last"] == 3001


def test_an_average_over_all_steps_is_their_mean() -> None:
    """span = 0.5 against torch's AveragedModel, which takes plain means."""
    model = small_net()
    ours, theirs = WeightAverage(EmaConfig(span=0.5, every=1), model), torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 8):
        take_steps(model, optimizer, 1)
        ours.update(step, step / 7)
        theirs.update_parameters(model)
    for mine, other, raw in zip(
        ours.model.parameters(), theirs.module.parameters(), model.parameters(), strict=True
    ):  # fmt: skip
        assert torch.allclose(mine, other, atol=1e-6)
        assert not torch.equal(mine, raw)


def test_with_lookahead_the_network_goes_on_from_the_average() -> None:
    """On a path that is known: each step adds 1, and every second one is an update."""
    model = small_net()
    average = WeightAverage(EmaConfig(lookahead=0.8, every=2), model)
    weights, slow = torch.zeros_like(next(model.parameters())), torch.zeros(())
    next(model.parameters()).data.zero_()
    next(average.model.parameters()).data.zero_()
    for step in range(1, 11):
        next(model.parameters()).data += 1
        average.update(step, step / 10)
        weights = weights + 1
        if step % 2 == 0:
            kept = 0.8 * (step / 10) ** 3
            slow = kept * slow + (1 - kept) * weights
            weights = slow
        assert torch.allclose(next(model.parameters()), weights), step
    assert torch.allclose(next(average.model.parameters()), weights)
    assert 0 < weights.flatten()[0] < 10
    for mine, theirs in zip(average.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("settings", [EmaConfig(lookahead=0.8, every=1), EmaConfig(span=0.1, every=1)])
def test_the_average_follows_weights_that_batches_in_parts_lay_out_anew(settings: EmaConfig) -> None:
    model = build_model("record:widths=32/48:depths=2/2", 4, 3, (16, 16))
    average = WeightAverage(settings, model)
    Parts(model, 8, num_threads=1)
    before = [weight.clone() for weight in average.model.parameters()]
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    average.update(1, 0.5)  # the first update forgets what the average began with, lookahead all but a tenth of it
    for weight, mine in zip(before, average.model.parameters(), strict=True):
        assert (mine - weight).min() > 0.85


def test_without_an_average_the_model_is_its_own() -> None:
    model = small_net()
    average = WeightAverage(EmaConfig(), model)
    average.update(5, 1.0, force=True)
    assert average.model is model
    assert average.state_dict() == {}


# -- in a run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"optim.name": "sgd", "ema.span": 0.1}, {"optim.name": "adamw"}, {"optim.name": "muon", "ema.span": 0.1},
     {"optim.name": "sgd:other=8", "ema.lookahead": 0.7, "ema.every": 3},
     {"optim.name": "muon:other=sgd:other_lr=0.01:normalize=true:steps=3", "schedule.name": "linear"}],
    ids=lambda settings: ",".join(map(str, settings.values())),
)  # fmt: skip
def test_a_resumed_run_ends_as_if_it_had_never_stopped(settings: dict[str, object], tmp_path: Path) -> None:
    def train(name: str, on_epoch: object = None) -> Run:
        return package.train(
            "synthetic:num_images=160:noise=1", out=tmp_path / name, settings=settings, quiet=True, epochs=4,
            batch_size=20, device="cpu", model="convnet:width=4", val_fraction=0.2, on_epoch=on_epoch,
        )  # fmt: skip

    def stop(record: dict[str, object]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop)
    resumed = package.resume(tmp_path / "stopped", quiet=True)
    for name in ("steps.csv", "weights/last.safetensors", "weights/best.safetensors", "predictions.csv"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes(), name

    state, last = whole.load_resume(), whole.weights("last")
    raw_is_last = all(torch.equal(tensor, state["model"][name]) for name, tensor in last.items())
    assert raw_is_last == ("ema.span" not in settings), "the average is what is saved, the raw weights go on"
    averaged = state["average"].get("model", state["model"])
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in last.items())


def test_a_run_folder_from_before_there_was_an_average_is_read(tiny_run: Path, fovea) -> None:
    tree = yaml.safe_load((tiny_run / "config.yaml").read_text(encoding="utf-8"))
    del tree["ema"]
    before = yaml.safe_dump(tree, sort_keys=False)
    assert RunConfig.from_yaml(before, "config.yaml").ema == EmaConfig()
    # Younger than the average, not than lookahead.
    younger = yaml.safe_dump({**tree, "ema": {"span": 0.1, "every": 5}}, sort_keys=False)
    assert RunConfig.from_yaml(younger, "config.yaml").ema == EmaConfig(span=0.1)
    (tiny_run / "config.yaml").write_text(before, encoding="utf-8")
    state = torch.load(tiny_run / "resume.pt", weights_only=True)
    del state["average"]
    torch.save(state, tiny_run / "resume.pt")
    assert fovea("train", "--resume", tiny_run).code == 0


# -- what the command line makes of it -----------------------------------------------------------------------------


def test_another_optimizer_brings_its_own_settings() -> None:
    """simple's lr of 0.05 is SGD's; what the user names stays."""

    def resolved(**values: object) -> RunConfig:
        values = {key.replace("__", "."): value for key, value in values.items()}
        return simple("digits").with_values(with_habits(simple("digits"), values))

    assert resolved(optim__name="sgd").optim == simple("digits").optim
    assert resolved(optim__name="adamw").optim == OptimConfig(name="adamw", lr=0.001, weight_decay=0.01)
    muon = resolved(optim__name="muon:steps=3", optim__lr=0.1).optim
    assert (muon.lr, muon.momentum, muon.nesterov) == (0.1, 0.95, True)
    assert resolved(schedule__name="linear").schedule == ScheduleConfig(name="linear", warmup=0.2)
    assert resolved(schedule__name="one-cycle").schedule == ScheduleConfig(name="one-cycle")


CONTRADICTIONS = [
    (["--momentum", "0"], ["nesterov", "momentum"]),
    (["--optimizer", "adamw", "--set", "optim.nesterov=true"], ["optim.nesterov", "adamw"]),
    (["--optimizer", "adam"], ["optimizer", "'adam'", "'adamw'"]),
    (["--optimizer", "adamw:beta2=1.5"], ["beta2", "1.5"]),
    (["--optimizer", "adamw:lr=0.1"], ["'lr'", "beta2"]),
    (["--optimizer", "muon:step=3"], ["'step'", "'steps'"]),
    (["--optimizer", "muon:steps=0"], ["steps", "0"]),
    (["--optimizer", "muon:other=lion"], ["other", "lion", "sgd"]),
    (["--optimizer", "muon:other_lr=-1"], ["other_lr", "-1"]),
    (["--schedule", "cosin"], ["schedule", "'cosin'", "'cosine'"]),
    (["--schedule", "step:at=0.5/1.5"], ["step:at", "1.5", "between 0 and 1"]),
    (["--schedule", "step:at=half"], ["step:at", "half"]),
    (["--schedule", "step:factor=2"], ["step:factor", "2"]),
    (["--schedule", "linear:end=2"], ["linear:end", "2"]),
    (["--schedule", "one-cycle:rise=1"], ["rise", "1"]),
    (["--schedule", "one-cycle", "--set", "schedule.warmup=0.1"], ["warmup", "one-cycle"]),
    (["--set", "ema.span=0.7"], ["ema.span", "0.7", "0.5"]),
    (["--set", "ema.span=0.1", "--set", "ema.lookahead=0.7"], ["span", "lookahead", "one of them"]),
    (["--optimizer", "sgd:other=0"], ["sgd:other=0", "1e-06"]),
    (["--optimizer", "sgd:head=-1"], ["sgd:head=-1", "1e-06"]),
]


@pytest.mark.parametrize(("words", "parts"), CONTRADICTIONS, ids=[" ".join(words) for words, _ in CONTRADICTIONS])
def test_contradictory_options_are_one_line(words: list[str], parts: list[str], fovea) -> None:
    result = fovea("train", "synthetic:num_images=100", "--recipe", "simple", "--out", "run", *words)
    assert result.code == 2
    assert result.stderr.count("\n") == 1
    assert all(part in result.stderr for part in parts), result.stderr
    assert not Path("run").exists()


def test_muon_without_hidden_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no hidden weights"):
        build_optimizer(OptimConfig(name="muon"), _Head())


class _Head(Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)


def test_an_optimizer_and_a_schedule_as_a_plugin(fovea, own_registry) -> None:
    """Those that CONTRIBUTING.md shows."""
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in ("my_signs", "my_stairs"):
        (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"def {name}(" in block]
        Path(f"{name}.py").write_text(code, encoding="utf-8")
    plugins = ["--plugin", "my_signs.py", "--plugin", "my_stairs.py"]
    assert "Steps of the same size" in fovea("list", "optimizers", *plugins).stdout
    assert "Down in equal steps" in fovea("list", "schedules", *plugins).stdout
    words = ["train", "synthetic:num_images=100", "--optimizer", "my-signs", "--schedule", "my-stairs:2",
             "--epochs", "2", "--set", "schedule.warmup=0", "--out", "run", *plugins]  # fmt: skip
    result = fovea(*words)
    assert result.code == 0, result.stderr
    assert [float(row["lr"]) for row in Run("run").results] == [0.0003, 0.00015]
    assert float(Run("run").results[-1]["train_loss"]) < float(Run("run").results[0]["train_loss"])
    assert Run("run").config.optim == OptimConfig(name="my-signs", lr=0.0003, momentum=0)
    assert "momentum" in fovea(*words, "--momentum", "0.9", "--out", "other").stderr
