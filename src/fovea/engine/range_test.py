"""The learning-rate range test (Smith 2017, section 3.3): train a throwaway network while lr grows, and watch the loss."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fovea.config import RunConfig
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess
from fovea.data.types import Dataset
from fovea.device import pick_device, reproducible
from fovea.engine.finetune import Freezing
from fovea.engine.gradients import build_backward, loss_weights
from fovea.engine.progress import Display
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.build import build_optimizer
from fovea.optim.schedules import build_schedule

# Measured with recipe simple on CIFAR-10 and digits (EXPERIMENTS.md).
LOWEST, HIGHEST = 1e-6, 10.0  # from where no optimizer moves to where nearly all diverge
NUM_IMAGES, MIN_STEPS, MAX_STEPS = 10_000, 150, 2000  # longer tests learn at low lr already, and propose too little
WORSE = 1.5  # times the first loss: it has diverged
SMOOTHING = 0.12  # decades of lr: the standard deviation of the weights of neighbouring losses
GAIN = 0.1  # the fall is over where the next decade of lr brings less than this share of its whole fall
FLAT = 0.1  # of that lr, where it stays as it is to the end of the run


@dataclass(frozen=True)
class LrRange:
    """What the test saw (the loss of each step, smoothed, as lr grows), and the lr that it proposes."""

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    valley: float  # from where on a higher lr helps no more
    lr: float
    rule: str


def range_test(
    config: RunConfig, dataset: Dataset, model: Model, preprocess: Preprocess, precision: str, display: Display
) -> LrRange:
    """Train `model`, which is not needed afterwards, with lr from LOWEST to HIGHEST. Raises FoveaError."""
    device = pick_device(config.device)
    height, width = preprocess.image_size
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        reproducible(device, config.batch_size * height * width),
        display,
    ):
        torch.manual_seed(config.seed)
        loader = Loader(
            dataset.train, preprocess, config.batch_size, device, config.seed, config.augment, shuffle=True,
            num_classes=len(dataset.classes), balanced=config.balance == "sample",
        )  # fmt: skip
        model.to(device).train()
        Freezing(config.freeze, model, len(dataset.classes)).at(1)  # what is frozen to the end
        weights = loss_weights(config, dataset, device)
        lrs, losses = _train(config, loader, model, precision, device, display, weights)
    return propose(lrs, losses, falls=build_schedule(config.schedule, 100)(99) < 0.5)


def _train(
    config: RunConfig, loader: Loader, model: Model, precision: str, device: torch.device, display: Display,
    weights: Tensor | None,
) -> tuple[list[float], list[float]]:  # fmt: skip
    optimizer = build_optimizer(config.optim, model, config.lr_decay)
    scales = [None if group.get("own_lr") else group["lr"] / config.optim.lr for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    backward = build_backward(config, model, precision, device, scaler, weights)
    num_steps = min(MAX_STEPS, max(MIN_STEPS, NUM_IMAGES // config.batch_size))
    display.start(num_steps * config.batch_size)
    batches = itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count(1))
    lrs: list[float] = []
    losses: list[float] = []
    few = num_steps // 20
    for step, (images, labels) in enumerate(itertools.islice(batches, num_steps)):
        lr = LOWEST * (HIGHEST / LOWEST) ** (step / (num_steps - 1))
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            if scale is not None:
                group["lr"] = lr * scale

        optimizer.zero_grad()
        loss = backward(images, labels).mean()
        scaler.step(optimizer)
        scaler.update()

        display.advance(step * config.batch_size, f"lr {lr:.1e}")
        value = loss.item()
        if not math.isfinite(value):
            break
        lrs.append(lr)
        losses.append(value)
        if sum(losses[-few:]) > WORSE * sum(losses[:few]):
            break
    return lrs, losses


def propose(lrs: list[float], losses: list[float], falls: bool) -> LrRange:
    """The lr for a schedule that starts at it and `falls`, or that stays. Raises ConfigError where no lr helped.

    A falling schedule may start from where the loss stops falling (Smith 2017). With some networks it goes on falling
    slowly for ever: normalization makes up for weights that grow with lr. So what counts is the first valley, or the
    first knee, not the lowest point. A lr that stays must be lower: a tenth.
    """
    smoothed = _smooth(lrs, losses)
    lowest = min(smoothed, default=math.inf)
    fall = smoothed[0] - lowest if smoothed else 0.0
    if fall <= 0:
        raise ConfigError(f"--find-lr: the loss fell at no lr from {LOWEST:g} on: look at the data and the model")
    for start, lr in enumerate(lrs):
        decade = [row for row in range(start, len(lrs)) if lrs[row] <= 10 * lr]
        gain = smoothed[start] - min(smoothed[row] for row in decade)
        if smoothed[start] <= lowest + fall / 2 and gain < GAIN * fall:
            break
    valleys = [row for row in decade[1:-1] if smoothed[row - 1] > smoothed[row] <= smoothed[row + 1]]
    valley = lrs[min(valleys, key=smoothed.__getitem__, default=start)]
    chosen = float(f"{valley if falls else FLAT * valley:.1e}")
    rule = f"the loss stops falling at {valley:.1e}, " + (
        "from where the schedule comes down" if falls else "of which this is a tenth, as the schedule stays there"
    )
    return LrRange(lrs, losses, smoothed, valley, chosen, rule)


def _smooth(lrs: list[float], losses: list[float]) -> list[float]:
    """Each loss as the mean of those around it, with Gaussian weights over the logarithm of lr."""
    position = torch.tensor(lrs, dtype=torch.float64).log10()
    weights = torch.exp(-0.5 * ((position[:, None] - position) / SMOOTHING) ** 2)
    means: list[float] = ((weights @ torch.tensor(losses, dtype=torch.float64)) / weights.sum(dim=1)).tolist()
    return means
