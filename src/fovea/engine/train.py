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
from fovea.data.ahead import ahead
from fovea.data.hardest import Hardest
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess, statistics, to_unit
from fovea.data.types import Dataset
from fovea.device import (
    describe,
    memory_errors,
    pick_device,
    pick_precision,
    release_freed_memory,
    reproducible,
)
from fovea.engine.cost import Cost
from fovea.engine.evaluate import infer
from fovea.engine.finetune import Freezing, read_start, take
from fovea.engine.gradients import build_backward, check_parts, in_int8, in_parts, loss_weights
from fovea.engine.pace import NUM_CHECKED, build_pace
from fovea.engine.progress import Display, clock
from fovea.engine.small_first import check_small_first, scale_at
from fovea.engine.state import State
from fovea.errors import Diverged
from fovea.models.base import Model, build_model, num_parameters
from fovea.optim.average import WeightAverage
from fovea.optim.build import build_optimizer, set_lr
from fovea.optim.schedules import build_schedule
from fovea.run import RESULTS_COLUMNS, ModelInfo, Run, load_weights, read_weights

AUTO_LOGS_PER_EPOCH = 6
RELEASE_EVERY = 60.0  # seconds: fresh memory takes up to one of them
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
    precision = pick_precision(config.precision, pick_device(config.device), config.int8)
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
    release_freed_memory()


def _fit(
    run: Run, config: RunConfig, dataset: Dataset, model: Model, preprocess: Preprocess, device: torch.device,
    display: Display, on_epoch: OnEpoch | None, cost: Cost,
) -> None:  # fmt: skip
    torch.manual_seed(config.seed)
    hardest = Hardest(len(dataset.train), config.hardest)
    loader = Loader(
        dataset.train, preprocess, config.batch_size, device, config.seed, config.augment, shuffle=True,
        num_classes=len(dataset.classes), balanced=config.balance == "sample", hardest=hardest,
    )  # fmt: skip
    optimizer = build_optimizer(config.optim, model, config.lr_decay)
    freezing = Freezing(config.freeze, model, len(dataset.classes))
    highest_lrs = [group["lr"] for group in optimizer.param_groups]
    average = WeightAverage(config.ema, model)
    precision = pick_precision(run.info.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # else it passes everything on as it is
    state = State(run, model, optimizer, average, scaler, hardest, dataset.train.fingerprint(), cost)
    first_epoch = state.restore(device) + 1
    pace = build_pace(run, dataset, model, len(loader), first_epoch, device, cost)
    lr_factor = build_schedule(config.schedule, pace.num_steps)
    log_every = config.log_interval or max(1, len(loader) // AUTO_LOGS_PER_EPOCH)
    log_every = min(log_every, len(loader))
    computing = describe(device, precision, in_int8(config, model, precision, device))
    display.say(f"training on {computing}, {num_parameters(model):,} parameters")
    num_threads = torch.get_num_threads()  # which a batch in parts leaves with one
    backward = build_backward(config, model, precision, device, scaler, loss_weights(config, dataset, device))
    # Small steps do not win back what the thread costs, and a policy draws from the generator that dropout draws from, too.
    make = ahead if in_parts(config, device) else iter
    display.start()
    model.train()
    released, scale = time.perf_counter(), 1.0

    for epoch in pace.epochs(first_epoch) if not state.ended else ():
        begun = time.perf_counter()
        done = (epoch - first_epoch) * loader.num_images
        losses: list[Tensor] = []
        batches = loader.epoch(epoch)
        for step, (images, labels) in enumerate(make(batches), start=1):
            total_steps = (epoch - 1) * len(loader) + step
            position = pace.position(total_steps)
            factor = lr_factor(position)
            set_lr(optimizer, highest_lrs, factor)
            freezing.at(position / pace.num_steps)
            model.settle(position / pace.num_steps)

            reached = (position + 1) / pace.num_steps
            before, scale = scale, scale_at(config.small_first, reached)
            if scale != before:  # what smaller images left is too small for these (EXPERIMENTS.md)
                release_freed_memory()

            optimizer.zero_grad()
            losses.append(backward(images, labels, scale))
            scaler.step(optimizer)
            scaler.update()
            average.update(total_steps, reached)

            share, left = pace.share(total_steps), pace.seconds_left(total_steps)
            display.advance(done + step * config.batch_size, pace.name(epoch), share, left)
            if step % log_every == 0:
                mean = _finite_mean(losses, step - log_every, epoch, run)
                state.steps.append([epoch, step, f"{mean:.6f}"])
                if config.log_interval:
                    display.say(f"[{epoch}, {step:5d}] loss: {mean:.3f}")
            if pace.over(total_steps):
                break

        average.update(total_steps, reached, force=True)
        of_images = torch.cat(losses).cpu().double()  # fewer than the epoch's where the time was up
        if not of_images.isfinite().all():
            _finite_mean(losses, 0, epoch, run)  # says which
        train_loss, num_images = of_images.mean().item(), len(of_images)
        loader.learn(epoch, of_images)
        seconds = time.perf_counter() - begun
        if begun + seconds - released > RELEASE_EVERY:
            release_freed_memory()
            released = begun + seconds
        cost.lap("step")
        val_loss, val_accuracy, score = _validate(average.model, dataset, preprocess, device, epoch, run, num_threads)
        cost.lap("val")
        row = (epoch, train_loss, val_loss, val_accuracy, config.optim.lr * factor, seconds, num_images / seconds)
        record = dict(zip(RESULTS_COLUMNS, row, strict=True))
        state.end_epoch(record, score, pace.over(total_steps), device)
        is_last = bool(state.ended) or epoch == config.epochs
        display.say(_epoch_line(pace.name(epoch), record, None if is_last else pace.seconds_left(total_steps)))
        if on_epoch is not None:
            on_epoch(record)
        if state.ended:
            display.say(state.ended)
            break


def _smaller(config: RunConfig, dataset: Dataset) -> str:
    half = min(config.batch_size, len(dataset.train)) // 2
    return f"try --batch-size {half}, or a smaller --model" if half else "try a smaller --model or --image-size"


def _finite_mean(losses: list[Tensor], start: int, epoch: int, run: Run) -> float:
    """Mean of the losses of the steps from `start` on: the only place, once a log interval, where the loop waits for the device."""
    values = torch.stack([of_images.mean() for of_images in losses[start:]]).cpu().double()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise _diverged(values[bad[0]].item(), f"epoch {epoch}, step {start + int(bad[0]) + 1}", epoch, run)
    return values.mean().item()


def _diverged(loss: float, where: str, epoch: int, run: Run) -> Diverged:
    kept = f"the weights of epoch {epoch - 1} are kept in {run.path / 'weights'}"
    return Diverged(f"the loss is {loss} at {where}: try a lower --lr; {kept}")


def _validate(
    model: Model, dataset: Dataset, preprocess: Preprocess, device: torch.device, epoch: int, run: Run, num_threads: int
) -> tuple[float | None, float | None, list[float]]:  # fmt: skip
    """Loss and accuracy on val, and by what epochs are compared: accuracy (with `balance`, the mean of the classes'),
    then loss. (None, None, []) without a val split. Raises Diverged where the last step broke the weights.
    """
    val = dataset.splits.get("val")
    split = val if val is not None else dataset.train.take(torch.arange(min(NUM_CHECKED, len(dataset.train))))
    logits = infer(model, split, preprocess, device, precision=run.info.precision, num_threads=num_threads)
    loss = F.cross_entropy(logits.double(), split.labels).item()
    if not math.isfinite(loss):
        raise _diverged(loss, f"the end of epoch {epoch}", epoch, run)
    if val is None:
        return None, None, []
    right = (logits.argmax(dim=1) == split.labels).double()
    accuracy = right.mean().item()
    if run.config.balance == "none":
        return loss, accuracy, [accuracy, -loss]
    counts = split.labels.bincount()
    recalls = split.labels.bincount(weights=right)[counts > 0] / counts[counts > 0]
    return loss, accuracy, [recalls.mean().item(), -loss]


def _epoch_line(name: str, record: dict[str, Any], seconds_left: float | None) -> str:
    parts = [f"{name}: train loss {record['train_loss']:.3f}"]
    if record["val_loss"] is not None:
        parts += [f"val loss {record['val_loss']:.3f}", f"val accuracy {100 * record['val_accuracy']:.1f} %"]
    parts += [f"{record['seconds']:.1f} s", f"{record['images_per_second']:,.0f} images/s"]
    return ", ".join(parts + ([f"{clock(seconds_left)} left"] if seconds_left is not None else []))
