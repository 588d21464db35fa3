"""Stochastic gradient descent with momentum (Polyak 1964), also Nesterov's (Sutskever et al. 2013)."""

from typing import Any

import torch
from torch.optim import Optimizer

from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.build import can_fuse
from fovea.registry import optimizer


@optimizer
def sgd(
    model: Model, groups: list[dict[str, Any]], lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:  # fmt: skip
    """Stochastic gradient descent with momentum; weight decay is part of the gradient."""
    if nesterov and not momentum:
        raise ConfigError("optim.nesterov needs momentum: give --momentum 0.9, or --set optim.nesterov=false")
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=can_fuse(model)
    )
