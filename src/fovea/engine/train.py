"""The training loop, from top to bottom: build, for epoch, for batch, evaluate, record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea import registry
from fovea.config import RunConfig
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess, statistics, to_unit
from fovea.data.types import Dataset
from fovea.device import (
    describe,
    memory_errors,
    pick_device,
    pick_precision,
    reproducible,
    rng_state,
    set_rng_state,
)
from fovea.engine.cost import Cost
from fovea.engine.evaluate import infer
from fovea.engine.finetune import Freezing, read_start, take
from fovea.engine.gradients import build_backward, check_parts
from fovea.engine.progress import Display
from fovea.engine.small_first import check_small_first, shrink
from fovea.errors import Diverged, RunError
from fovea.models.base import Model, build_model, num_parameters
from fovea.optim.average import WeightAverage
from fovea.optim.build import build_optimizer, set_lr
from fovea.optim.schedules import build_schedule
from fovea.run import RESULTS_COLUMNS, ModelInfo, Run, load_weights, read_weights

AUTO_LOGS_PER_EPOCH = 6
OnEpoch = Callable[[dict[str, Any]], None]


def build(
    config: RunConfig, dataset: Dataset, say: Callable[[str], object] = lambda text: None
) -> tuple[Model, ModelInfo]:
    """The network with its first weights, and all that a later program must know of it. Raises FoveaError.

    `say` is told which weights were taken, where they do not begin anew.
    """
    with torch.random.fork_rng([]):  # the caller's random numbers stay as they were
        torch.manual_seed(config.seed)
        model = build_model(config.model, len(dataset.classes), dataset.channels, dataset.image_size)
    check_parts(config.part_size, model)
    check_small_first(config.small_first, model, dataset.channels, dataset.image_size)
    half = (0.5,) * dataset.channels  # [0, 1] to [-1, 1], the note's transform
    start = read_start(config)
    if start is not None:  # a network goes on seeing what it has learned to see
        mean, std = start.statistics(dataset.channels)
    else:
        mean, std = statistics(dataset.train) if config.standardize else (half, half)
    preprocess = Preprocess(dataset.image_size, dataset.channels, mean, std, dataset.config.resize)
    if config.weights and start is None:
        load_weights(model, read_weights(config.weights), config.weights)
    else:
        first = to_unit(dataset.train.pick(torch.arange(min(_num_first(dataset.image_size), len(dataset.train)))))
        model.init_from_data(preprocess.standardizer(first.device)(first))
    if start is not None:
        say(take(model, start, dataset.classes))
    Freezing(config.freeze, model, len(dataset.classes))  # what it cannot freeze is told before there is a run folder
    precision = pick_precision(config.precision, pick_device(config.device))
    spec = registry.model.resolve(config.model, 3)
    return model, ModelInfo(spec, dataset.classes, preprocess, num_parameters(model), config.views, precision)


def _num_first(image_size: tuple[int, int]) -> int:
    """How many images the first weights see: enough pixels for statistics, and a bounded number of them."""
    return min(5000, 5000 * 32 * 32 // (image_size[0] * image_size[1]) + 1)


def fit(
    run: Run, dataset: Dataset, model: Model, display: Display, on_epoch: OnEpoch | None = None,
    cost: Cost | None = None,
) -> None:  # fmt: skip
    """Train `model` into the run folder, from where its resume.pt stands or from the start.

    `cost` is the clock that began before the model was built. The state is saved after every epoch; the same seed on the same machine gives the same steps.csv and weights.
    Raises Diverged when the loss is no longer finite, OutOfMemory, RunError when the data is no longer that of the run.
    """
    config = run.config
    device = pick_device(config.device)
    preprocess = run.info.preprocess
    height, width = preprocess.image_size
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        reproducible(device, config.batch_size * height * width),
        memory_errors(f"on {device} at batch size {config.batch_size}", _smaller(config, dataset)),
        display,
    ):
        _fit(run, config, dataset, model.to(device), preprocess, device, display, on_epoch, cost or Cost(device))


def _fit(
    run: Run, config: RunConfig, dataset: Dataset, model: Model, preprocess: Preprocess, device: torch.device,
    display: Display, on_epoch: OnEpoch | None, cost: Cost,
) -> None:  # fmt: skip
    torch.manual_seed(config.seed)
    loader = Loader(
        dataset.train, preprocess, config.batch_size, device, config.seed, config.augment, shuffle=True,
        num_classes=len(dataset.classes),
    )  # fmt: skip
    optimizer = build_optimizer(config.optim, model, config.lr_decay)
    freezing = Freezing(config.freeze, model, len(dataset.classes))
    highest_lrs = [group["lr"] for group in optimizer.param_groups]
    num_steps = len(loader) * config.epochs
    lr_factor = build_schedule(config.schedule, num_steps)
    average = WeightAverage(config.ema, model)
    precision = pick_precision(run.info.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # else it passes everything on as it is
    state = _State(run, model, optimizer, average, scaler, dataset.train.fingerprint(), cost)
    first_epoch = state.restore(device) + 1
    log_every = config.log_interval or max(1, len(loader) // AUTO_LOGS_PER_EPOCH)
    log_every = min(log_every, len(loader))
    display.say(f"training on {describe(device, precision)}, {num_parameters(model):,} parameters")
    backward = build_backward(config, model, precision, device, scaler)
    display.start(loader.num_images * (config.epochs - first_epoch + 1))
    model.train()

    for epoch in range(first_epoch, config.epochs + 1):
        begun = time.perf_counter()
        losses = torch.zeros(len(loader), device=device)
        done = (epoch - first_epoch) * loader.num_images
        for step, (images, labels) in enumerate(loader.epoch(epoch), start=1):
            total_steps = (epoch - 1) * len(loader) + step
            factor = lr_factor(total_steps - 1)
            set_lr(optimizer, highest_lrs, factor)
            freezing.at((total_steps - 1) / num_steps)

            if total_steps <= config.small_first.until * num_steps:
                images = shrink(images, config.small_first.scale)

            optimizer.zero_grad()
            loss = backward(images, labels)
            scaler.step(optimizer)
            scaler.update()
            average.update(total_steps, force=step == len(loader))

            losses[step - 1] = loss
            display.advance(done + step * config.batch_size, f"epoch {epoch}/{config.epochs}")
            if step % log_every == 0:
                mean = _finite_mean(losses, step - log_every, step, epoch, run)
                state.steps.append([epoch, step, f"{mean:.6f}"])
                if config.log_interval:
                    display.say(f"[{epoch}, {step:5d}] loss: {mean:.3f}")

        train_loss = _epoch_loss(losses, loader, epoch, run)
        seconds = time.perf_counter() - begun
        cost.lap("step")
        val_loss, val_accuracy = _validate(average.model, dataset, preprocess, device, epoch, run)
        cost.lap("val")
        lr = config.optim.lr * factor
        row = (epoch, train_loss, val_loss, val_accuracy, lr, seconds, loader.num_images / seconds)
        record = dict(zip(RESULTS_COLUMNS, row, strict=True))
        state.end_epoch(record, device)
        left = display.time_left(done + loader.num_images) if epoch < config.epochs else None
        display.say(_epoch_line(record, config.epochs, left))
        if on_epoch is not None:
            on_epoch(record)


class _State:
    """What is saved after each epoch, so that a run can go on as if it had never stopped."""

    def __init__(
        self, run: Run, model: Model, optimizer: torch.optim.Optimizer, average: WeightAverage,
        scaler: torch.amp.GradScaler, fingerprint: int, cost: Cost,
    ) -> None:  # fmt: skip
        self.run, self.model, self.optimizer, self.average = run, model, optimizer, average
        self.scaler, self.fingerprint, self.cost = scaler, fingerprint, cost
        self.results: list[list[Any]] = []
        self.steps: list[list[Any]] = []
        self.best: list[float] = []  # val accuracy and minus val loss, of the best epoch so far

    def restore(self, device: torch.device) -> int:
        """Go back to the last whole epoch and return its number; 0, and a first save, in a new run."""
        if not self.run.has("resume.pt"):
            self.cost.lap("setup")
            self._save(0, device)
            return 0
        saved = self.run.load_resume()
        try:
            if saved["fingerprint"] != self.fingerprint:
                raise RunError(f"the training images are no longer those that {self.run.path} began with: train anew")
            load_weights(self.model, saved["model"], str(self.run.path / "resume.pt"))
            self.optimizer.load_state_dict(saved["optimizer"])
            self.average.load_state_dict(saved.get("average", {}))
            self.scaler.load_state_dict(saved.get("scaler", {}))
            if "cost" in saved:  # not of a run older than the clock
                self.cost.restore(saved["cost"])
            set_rng_state(saved["rng"], device)
            self.results, self.steps, self.best = saved["results"], saved["steps"], saved["best"]
            self.run.save_history(self.results, self.steps)
            epoch: int = saved["epoch"]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.run.path / 'resume.pt'} does not belong to this run: {error}") from None
        self.cost.lap("setup")
        return epoch

    def end_epoch(self, record: dict[str, Any], device: torch.device) -> None:
        """Note the epoch and save; without a val split the latest weights count as the best."""
        values = record.values()
        self.results.append(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values])
        score = [] if record["val_loss"] is None else [record["val_accuracy"], -record["val_loss"]]
        if not score or score > self.best:
            self.best = score
            self.run.save_weights("best", self.average.model.state_dict())
        self._save(record["epoch"], device)

    def _save(self, epoch: int, device: torch.device) -> None:
        self.run.save_weights("last", self.average.model.state_dict())
        if epoch == 0:
            self.run.save_weights("best", self.average.model.state_dict())
        self.run.save_history(self.results, self.steps)
        cost = self.cost.summary()
        self.run.save_cost(cost)
        # The last file written: until it stands, the epoch before it counts.
        self.run.save_resume({
            "epoch": epoch, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(), "rng": rng_state(device), "fingerprint": self.fingerprint,
            "results": self.results, "steps": self.steps, "best": self.best,
            "scaler": self.scaler.state_dict(), "cost": cost,
        })  # fmt: skip
        self.cost.lap("save")


def _smaller(config: RunConfig, dataset: Dataset) -> str:
    half = min(config.batch_size, len(dataset.train)) // 2
    return f"try --batch-size {half}, or a smaller --model" if half else "try a smaller --model or --image-size"


def _finite_mean(losses: Tensor, start: int, stop: int, epoch: int, run: Run) -> float:
    """Mean of the losses of some steps: the only place, once a log interval, where the loop waits for the device."""
    values = losses[start:stop].cpu().double()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise _diverged(values[bad[0]].item(), f"epoch {epoch}, step {start + int(bad[0]) + 1}", epoch, run)
    return values.mean().item()


def _diverged(loss: float, where: str, epoch: int, run: Run) -> Diverged:
    kept = f"the weights of epoch {epoch - 1} are kept in {run.path / 'weights'}"
    return Diverged(f"the loss is {loss} at {where}: try a lower --lr; {kept}")


def _epoch_loss(losses: Tensor, loader: Loader, epoch: int, run: Run) -> float:
    """Mean over images: the last batch, where smaller, counts less."""
    _finite_mean(losses, 0, len(losses), epoch, run)
    sizes = torch.full((len(losses),), loader.batch_size, dtype=torch.float64)
    sizes[-1] = loader.num_images - sizes[:-1].sum()
    return float((losses.cpu().double() * sizes).sum() / loader.num_images)


def _validate(
    model: Model, dataset: Dataset, preprocess: Preprocess, device: torch.device, epoch: int, run: Run
) -> tuple[float | None, float | None]:
    """Loss and accuracy on val, or (None, None) without one. Raises Diverged where the last step broke the weights."""
    val = dataset.splits.get("val")
    split = val if val is not None else dataset.train.take(torch.arange(min(100, len(dataset.train))))
    logits = infer(model, split, preprocess, device, precision=run.info.precision)
    loss = F.cross_entropy(logits.double(), split.labels).item()
    if not math.isfinite(loss):
        raise _diverged(loss, f"the end of epoch {epoch}", epoch, run)
    if val is None:
        return None, None
    return loss, (logits.argmax(dim=1) == split.labels).double().mean().item()


def _epoch_line(record: dict[str, Any], epochs: int, left: str | None) -> str:
    parts = [f"epoch {record['epoch']}/{epochs}: train loss {record['train_loss']:.3f}"]
    if record["val_loss"] is not None:
        parts += [f"val loss {record['val_loss']:.3f}", f"val accuracy {100 * record['val_accuracy']:.1f} %"]
    parts += [f"{record['seconds']:.1f} s", f"{record['images_per_second']:,.0f} images/s"]
    return ", ".join(parts + ([f"{left} left"] if left else []))
