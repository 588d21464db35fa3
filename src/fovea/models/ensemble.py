"""Several networks as one, whose answers are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fovea.config import OptimConfig
from fovea.models.base import Model


class Ensemble(Model):
    """The mean of its members' logits; the members take turns at learning, a step each.

    Each begins from weights of its own and sees batches of its own, so that they err in different places (Lakshminarayanan
    et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"). A run costs as much as with
    one network, and its answers as many times more as there are members.
    """

    def __init__(self, members: Iterable[Model]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)` logits."""
        return torch.stack([member(images) for member in self.members()]).mean(0)

    def members(self) -> Sequence[Model]:
        return list(self.networks)  # type: ignore[arg-type]

    def init_from_data(self, images: Tensor) -> None:
        for member in self.members():
            member.init_from_data(images)

    def settle(self, share: float) -> None:
        for member in self.members():
            member.settle(share)

    def param_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        return [group for member in self.members() for group in member.param_groups(config)]

    def hidden_weights(self) -> list[Tensor]:
        return [weight for member in self.members() for weight in member.hidden_weights()]

    def by_depth(self) -> list[list[Tensor]]:
        """The members' stages side by side."""
        stages = zip(*(member.by_depth() for member in self.members()), strict=True)
        return [[tensor for own in stage for tensor in own] for stage in stages]
