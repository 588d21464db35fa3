"""The optimizer that a config names."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from fovea.config import OptimConfig
from fovea.models.base import Model


def build_optimizer(config: OptimConfig, model: Model) -> Optimizer:
    """SGD or AdamW over the model's parameter groups.

    Fused where torch has it: one kernel for all parameters, the same arithmetic in another rounding.
    """
    groups = model.param_groups(config)
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.nesterov, fused=fused,
    )  # fmt: skip
