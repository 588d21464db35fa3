"""A head on a frozen backbone: the features of all images once, then the best linear layer on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import RunConfig
from fovea.data.preprocess import Preprocess
from fovea.data.types import Dataset, Split
from fovea.device import describe, memory_errors, pick_device, reproducible
from fovea.engine.cost import Cost
from fovea.engine.evaluate import infer
from fovea.engine.finetune import head_of
from fovea.engine.progress import Display
from fovea.engine.train import OnEpoch
from fovea.errors import ConfigError
from fovea.models.base import Model, num_parameters
from fovea.run import RESULTS_COLUMNS, Run

_AT_ONCE = 2000  # images between two moves of the progress bar
_MIRROR = "mirror"
# Of half the sum of squares, beside the mean loss, on features of variance 1: from far too much to hardly any.
STRENGTHS = [10 ** (exponent / 2) for exponent in range(1, -13, -1)]
_FEW = 2**20  # numbers, below which the two threads of an operation wait for each other longer than they compute
_PATIENCE = 3  # strengths that do worse on val, after which weaker ones are not tried
_MAX_ITERATIONS = 200  # of L-BFGS; one strength begins where the stronger one before it ended


def fit_head(
    run: Run,
    dataset: Dataset,
    model: Model,
    display: Display,
    on_epoch: OnEpoch | None = None,
    cost: Cost | None = None,
) -> None:
    """Train the head of `model` on features that are computed once, and leave a run folder as any training does.

    The head is multinomial logistic regression, whose strength of weight decay is chosen by the loss on val (without val,
    on a fifth of train, and then all of train is learned from). The whole network is saved. A finished run stays as it is.
    """
    if run.has("resume.pt"):
        return
    config, preprocess = run.config, run.info.preprocess
    device = pick_device(config.device)
    height, width = preprocess.image_size
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        reproducible(device, config.batch_size * height * width),
        memory_errors(f"for the features of {len(dataset.train):,} images", "try --set freeze.cached=false"),
        display,
    ):
        _fit_head(run, config, dataset, model.to(device), preprocess, device, display, on_epoch, cost or Cost(device))


def _fit_head(
    run: Run, config: RunConfig, dataset: Dataset, model: Model, preprocess: Preprocess, device: torch.device,
    display: Display, on_epoch: OnEpoch | None, cost: Cost,
) -> None:  # fmt: skip
    head = head_of(model, len(dataset.classes))
    backbone = _Backbone(model, head)
    views = [False, True] if _has_mirror(config.augment) else [False]
    display.say(f"training the head on {describe(device, run.info.precision)}, {num_parameters(head):,} parameters")
    display.say(_unused(config))
    cost.lap("setup")
    begun = time.perf_counter()
    splits = {name: split for name, split in dataset.splits.items() if name != "test"}
    total = sum(len(split) * (len(views) if name == "train" else 1) for name, split in splits.items())
    display.start(total)

    done = 0
    found: dict[str, Tensor] = {}
    for name, split in splits.items():
        seen = []
        for backbone.mirrored in views if name == "train" else [False]:
            for rows in torch.split(torch.arange(len(split)), _AT_ONCE):
                seen.append(infer(backbone, split.take(rows), preprocess, device, precision=run.info.precision))
                done += len(rows)
                display.advance(done, f"features of {name}")
        found[name] = torch.cat(seen)
    backbone.detach()
    _check_linear(model, head, dataset.train, found["train"], preprocess, device)
    display.say(f"features of {total:,} views in {time.perf_counter() - begun:.1f} s, {found['train'].shape[1]} each")

    labels = dataset.train.labels.repeat(len(views))
    if found["train"].numel() < _FEW:
        torch.set_num_threads(1)  # until `reproducible` ends
    train = (found["train"].to(device), labels.to(device))
    val = (found["val"].to(device), dataset.splits["val"].labels.to(device)) if "val" in found else None
    fitted = _fit(train, val, len(dataset.train), len(dataset.classes), head.bias is not None, config)
    with torch.no_grad():
        head.weight.copy_(fitted.weight.view_as(head.weight))
        if head.bias is not None and fitted.bias is not None:
            head.bias.copy_(fitted.bias)
    seconds = time.perf_counter() - begun
    cost.lap("step")

    train_loss, _ = fitted.measure(*train)
    val_loss, val_accuracy = fitted.measure(*val) if val is not None else (None, None)
    display.say(
        f"head: weight decay {fitted.strength:.1e}, train loss {train_loss:.3f}"
        + (f", val loss {val_loss:.3f}, val accuracy {100 * val_accuracy:.1f} %" if val_accuracy is not None else "")
        + f", {seconds:.1f} s"
    )
    row = (1, train_loss, val_loss, val_accuracy, None, seconds, total / seconds)
    run.save_weights("best", model.state_dict())
    run.save_weights("last", model.state_dict())
    run.save_history([["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in row]], [])
    run.save_cost(cost.summary())
    run.save_resume({"epoch": 1, "features": found["train"].shape[1]})  # nothing is left to go on with
    cost.lap("save")
    if on_epoch is not None:
        on_epoch(dict(zip(RESULTS_COLUMNS, row, strict=True)))


def _fit(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor] | None, num_images: int, num_classes: int, with_bias: bool,
    config: RunConfig,
) -> Head:  # fmt: skip
    if val is not None:
        return best_head(train, val, num_classes, with_bias, config.label_smoothing)
    # Both views of an image on one side.
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(config.seed))
    apart = torch.zeros(num_images, dtype=torch.bool)
    apart[order[: max(1, num_images // 5)]] = True
    apart = apart.repeat(len(train[1]) // num_images).to(train[1].device)
    most, rest = ((train[0][rows], train[1][rows]) for rows in (~apart, apart))
    chosen = best_head(most, rest, num_classes, with_bias, config.label_smoothing).strength
    stronger = [
        strength for strength in STRENGTHS if strength >= chosen
    ]  # the way there, each start from the one before
    return best_head(train, train, num_classes, with_bias, config.label_smoothing, stronger)


def _has_mirror(augment: tuple[str, ...]) -> bool:
    return any(spec.partition(":")[0] == _MIRROR for spec in augment)


def _unused(config: RunConfig) -> str:
    """What a head on fixed features has no use for."""
    names = [spec for spec in config.augment if spec.partition(":")[0] != _MIRROR]
    return (
        f"the backbone stays as it is: features are computed once, {'of each image and its mirror' if _has_mirror(config.augment) else 'of each image'}; "
        f"not used: {', '.join([*names, 'epochs, lr, optimizer and schedule'])} (--set freeze.cached=false uses them, slowly)"
    )


class _Backbone(nn.Module):
    """All of a model but its head: images to what the head is given, `(B, F)`."""

    def __init__(self, model: Model, head: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.model = model
        self.mirrored = False
        self._given = threading.local()  # several batches go through at once
        self._hook = head.register_forward_pre_hook(lambda module, inputs: self._given.tensors.append(inputs[0]))

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, F)` features, once for each time that the head is called."""
        self._given.tensors = []
        self.model(images.flip(-1) if self.mirrored else images)
        return torch.cat(self._given.tensors).flatten(1)

    def detach(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()


def _check_linear(
    model: Model, head: nn.Linear | nn.Conv2d, train: Split, features: Tensor, preprocess: Preprocess, device: torch.device
) -> None:  # fmt: skip
    """Raises ConfigError where the logits are not a linear function of the features."""
    rows = torch.arange(min(2, len(train)))
    logits = infer(model, train.take(rows), preprocess, device)
    bias = None if head.bias is None else head.bias.detach().cpu()
    expected = F.linear(features[rows], head.weight.detach().cpu().flatten(1), bias)
    # Lower precisions than float32 may have computed the features.
    if logits.shape != expected.shape or not torch.allclose(logits, expected, rtol=0.1, atol=0.1 * logits.std().item()):
        raise ConfigError(
            f"--freeze backbone: the logits of {type(model).__name__} are not those of its last layer alone: "
            "give --set freeze.cached=false"
        )


@dataclass(frozen=True)
class Head:
    """A linear layer, and the strength of the weight decay that it was found with."""

    weight: Tensor  # (K, F)
    bias: Tensor | None  # (K,); none where the network's head has none
    strength: float

    def measure(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Mean cross-entropy, and accuracy, on `(N, F)` features."""
        logits = F.linear(features, self.weight, self.bias)
        right = (logits.argmax(dim=1) == labels).double().mean().item()
        return F.cross_entropy(logits, labels).item(), right


def best_head(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int, with_bias: bool, label_smoothing: float,
    strengths: Sequence[float] = STRENGTHS,
) -> Head:  # fmt: skip
    """Of the heads that fit `(N, F)` features and their labels, by falling strength, the one with the lowest loss on val."""
    features, labels = train
    # On features of mean 0 and variance 1, L-BFGS needs few steps and one strength means the same for all of them. A layer
    # without bias cannot make up for a mean.
    mean = features.mean(0) if with_bias else torch.zeros_like(features[0])
    std = features.std(0, correction=0) if with_bias else features.square().mean(0).sqrt()
    std = torch.where(std > 1e-6 * std.max(), std, 1.0)
    scaled = (features - mean) / std
    weight = torch.zeros(num_classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=features.device, requires_grad=with_bias)
    best: tuple[float, Head] | None = None
    worse = 0
    for strength in strengths:
        _minimize(scaled, labels, weight, bias, strength, label_smoothing)
        with torch.no_grad():
            unscaled = weight / std
            head = Head(unscaled, bias - unscaled @ mean if with_bias else None, strength)
            loss, _ = head.measure(*val)
        if best is None or loss < best[0]:
            best, worse = (loss, head), 0
        else:
            worse += 1
        if worse == _PATIENCE:
            break
    assert best is not None
    return best[1]


def _minimize(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, strength: float, label_smoothing: float
) -> None:
    """Move weight and bias to the minimum of mean loss and decay, from where they are."""
    parameters = [tensor for tensor in (weight, bias) if tensor.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_MAX_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels, label_smoothing=label_smoothing)
        loss = loss + strength / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
