"""Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

from typing import Any

import torch
from torch.optim import Optimizer

from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.build import can_fuse
from fovea.registry import optimizer


@optimizer
def adamw(
    model: Model, groups: list[dict[str, Any]], lr: float = 0.001, momentum: float = 0.9, weight_decay: float = 0.01,
    beta2: float = 0.999,
) -> Optimizer:  # fmt: skip
    """Adam with decoupled weight decay; each weight has a step size of its own (momentum: its first beta)."""
    if not 0 <= beta2 < 1:
        raise ConfigError(f"adamw:beta2={beta2}: at least 0, and below 1")
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, beta2), weight_decay=weight_decay, fused=can_fuse(model))
