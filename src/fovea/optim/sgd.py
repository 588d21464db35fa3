"""Stochastic gradient descent with momentum (Polyak 1964), also Nesterov's (Sutskever et al. 2013)."""

from typing import Any

import torch
from torch.optim import Optimizer

from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.build import can_fuse, split_off
from fovea.registry import optimizer


@optimizer
def sgd(
    model: Model, groups: list[dict[str, Any]], lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0,
    nesterov: bool = False, other: float = 1.0, head: float = 0.0,
) -> Optimizer:  # fmt: skip
    """Stochastic gradient descent with momentum; weight decay is part of the gradient.

    Args:
        other: all but the hidden weights (biases, factors of normalization, the layer that gives the logits) learn so many
            times as fast as these, and decay no faster: their weight decay is divided by it (Jordan 2024, arXiv:2404.00498: 64,
            for the biases of normalizations without factors).
        head: the same for the layer that gives the logits alone; 0: as `other`. What suits it depends on how a network scales
            its logits: `record` with 512 channels learns as airbench96 does with 256, a plain last layer with 1.
    """
    if nesterov and not momentum:
        raise ConfigError("optim.nesterov needs momentum: give --momentum 0.9, or --set optim.nesterov=false")
    head = head or other
    for name, times in (("other", other), ("head", head)):
        if not 1e-6 <= times <= 1e6:
            raise ConfigError(f"sgd:{name}={times:g}: from 1e-06 to 1e+06")
    if (other, head) != (1, 1):
        hidden, rest = split_off(groups, model.hidden_weights())
        heads, others = split_off(rest, model.by_depth()[-1])
        groups = hidden + _faster(heads, head, weight_decay) + _faster(others, other, weight_decay)
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=can_fuse(model)
    )


def _faster(groups: list[dict[str, Any]], times: float, weight_decay: float) -> list[dict[str, Any]]:
    """The groups with `times` the lr, and the same decay a step."""
    return [
        {
            **group,
            "lr_scale": group.get("lr_scale", 1.0) * times,
            "weight_decay": group.get("weight_decay", weight_decay) / times,
        }
        for group in groups
    ]
