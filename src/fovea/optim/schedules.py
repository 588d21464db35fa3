"""The learning rate as a function of how far the run has come.

A registered schedule is a function of the fraction of the run that is over, 0 to 1, counted from the end of the warm-up;
it returns the factor of the highest lr, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from fovea import registry
from fovea.config import ScheduleConfig
from fovea.errors import ConfigError
from fovea.registry import schedule


def build_schedule(config: ScheduleConfig, num_steps: float) -> Callable[[float], float]:
    """The factor of the highest lr at each step (from 0) of `num_steps`, after a linear warm-up. Raises ConfigError."""
    factor = bind_schedule(config.name)
    if config.warmup and factor(0.0) < 1:
        raise ConfigError(f"schedule.warmup = {config.warmup:g}: {config.name} warms up by itself; set it to 0")
    warmup = config.warmup * num_steps
    rest = max(1.0, num_steps - warmup)
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else factor((step - warmup) / rest)


def bind_schedule(spec: str) -> Callable[[float], float]:
    """`name[:option=value]...` as a function of the fraction alone. Raises ConfigError."""
    function, options = registry.schedule.bind(spec, num_given=1)
    return partial(function, **options)


@schedule
def constant(progress: float) -> float:
    """The same lr from the first step to the last."""
    return 1.0


@schedule
def linear(progress: float, end: float = 0.0) -> float:
    """Straight down to 0 (or `end`); with a warm-up, a triangle."""
    return _share("linear:end", end) + (1 - end) * (1 - progress)


@schedule
def cosine(progress: float, end: float = 0.0) -> float:
    """Down to 0 (or `end`) along half a cosine (Loshchilov & Hutter 2017, eq. 5)."""
    return _share("cosine:end", end) + (1 - end) * (0.5 * (1 + math.cos(math.pi * progress)))


@schedule
def step(progress: float, at: str = "0.5/0.75", factor: float = 0.1) -> float:
    """Times `factor` at each of the fractions `at`, as in `step:at=0.3/0.6/0.8:factor=0.2`."""
    try:
        milestones = [float(text) for text in at.split("/")]
    except ValueError:
        raise ConfigError(f"step:at={at}: write fractions of the run, as in step:at=0.5/0.75") from None
    wrong = [f"{milestone:g}" for milestone in milestones if not 0 < milestone < 1]
    if wrong:
        raise ConfigError(f"step:at={at}: {wrong[0]} is no fraction of the run: between 0 and 1, both excluded")
    power: float = _share("step:factor", factor) ** sum(progress >= milestone for milestone in milestones)
    return power


@schedule
def one_cycle(progress: float, rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> float:
    """Up from `start` over the fraction `rise`, then down to `end`, both along a cosine (Smith & Topin 2018).

    The shape and the defaults are those of torch's OneCycleLR (a start of 1/25, an end of a 10,000th of that); the
    momentum stays as it is.
    """
    if not 0 < rise < 1:
        raise ConfigError(f"one-cycle:rise={rise:g}: a fraction of the run, between 0 and 1, both excluded")
    low = _share("one-cycle:start", start) if progress < rise else _share("one-cycle:end", end)
    way = progress / rise if progress < rise else (1 - progress) / (1 - rise)
    return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * way))


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}={value:g}: a fraction of the highest lr, from 0 to 1")
    return value
