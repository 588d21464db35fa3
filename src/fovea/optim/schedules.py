"""The learning rate as a function of how far the run has come."""

from __future__ import annotations

import math

from fovea.config import ScheduleConfig


def lr_factor(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """The factor of the highest lr at step `step` (from 0) of `num_steps`, 0 to 1.

    `cosine` falls to 0 along half a cosine (Loshchilov & Hutter 2017, eq. 5); warm-up rises linearly before either.
    """
    warmup = config.warmup * num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, num_steps - warmup)))
