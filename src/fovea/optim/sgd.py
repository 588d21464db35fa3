"""Stochastic gradient descent with momentum (Polyak 1964), also Nesterov's (Sutskever et al. 2013)."""

from typing import Any

import torch
from torch.optim import Optimizer

from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.build import can_fuse, split_hidden
from fovea.registry import optimizer


@optimizer
def sgd(
    model: Model, groups: list[dict[str, Any]], lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0,
    nesterov: bool = False, other: float = 1.0,
) -> Optimizer:  # fmt: skip
    """Stochastic gradient descent with momentum; weight decay is part of the gradient.

    Args:
        other: biases, factors of normalization and the layer that gives the logits learn so many times as fast as the hidden
            weights, and decay no faster: their weight decay is divided by it (Jordan 2024, arXiv:2404.00498: 64, for the
            biases of normalizations without factors). A network whose last layer is plain needs a lower lr then.
    """
    if nesterov and not momentum:
        raise ConfigError("optim.nesterov needs momentum: give --momentum 0.9, or --set optim.nesterov=false")
    if not 1e-6 <= other <= 1e6:
        raise ConfigError(f"sgd:other={other:g}: from 1e-06 to 1e+06")
    if other != 1:
        hidden, rest = split_hidden(groups, model.hidden_weights())
        changed = [
            {
                **group,
                "lr_scale": group.get("lr_scale", 1.0) * other,
                "weight_decay": group.get("weight_decay", weight_decay) / other,
            }
            for group in rest
        ]
        groups = hidden + changed
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=can_fuse(model)
    )
