"""The running average of the weights: one that looks on, or one that the network goes on from (lookahead)."""

from __future__ import annotations

import copy
from typing import Any

import torch

from fovea.config import EmaConfig
from fovea.models.base import Model


class WeightAverage:
    """`model` is the averaged network (the trained one itself where there is no average).

    An exponential average looks back a fixed number of steps: too many early on, too few in a longer run. This one
    looks back a fixed fraction of the steps so far. With a weight of tau^(1 / span - 2) for the weights of step tau
    (Karras et al. 2024, section 3.1), they are span * t steps old in the mean at step t; it forgets the first weights
    by itself. span = 0.5 is the plain mean of all steps.

    With `lookahead` the network goes on from the average after each update (Zhang et al. 2019, "Lookahead Optimizer"), which
    keeps lookahead * x^3 of itself where the share x of the run is over (as in airbench96, Jordan 2024): nearly nothing at first.

    Batch normalization's running statistics are averaged like the weights (as airbench94's lookahead does, and torch's
    AveragedModel with use_buffers): over a short span both hardly move, and no second pass over the images is needed.
    Counters are copied.
    """

    def __init__(self, config: EmaConfig, model: Model) -> None:
        self._config = config
        self._last = 0  # the step of the last update
        self._averages = config.span > 0 or config.lookahead > 0
        self.model = copy.deepcopy(model).requires_grad_(False) if self._averages else model
        # Parameters themselves, not their memory: a batch in parts lays it out anew (fovea.models.winograd.lay_as_gradients).
        both = [*zip(_tensors(self.model), _tensors(model), strict=True)]
        self._floats = [(mine, theirs) for mine, theirs in both if mine.is_floating_point()]
        self._counters = [(mine, theirs) for mine, theirs in both if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int, share: float, force: bool = False) -> None:
        """Take in the weights after `step` (from 1), if an update is due, or by `force`; `share` of the run is over, up to 1."""
        if not self._averages or step == self._last or not (force or step % self._config.every == 0):
            return
        ahead = self._config.lookahead
        kept = ahead * share**3 if ahead else (self._last / step) ** (1 / self._config.span - 1)
        self._last = step
        for mine, theirs in self._floats:
            if mine.stride() != theirs.stride():  # several times as slow as what lies alike
                mine.data = torch.empty_like(theirs).copy_(mine)
        averages, weights = map(list, zip(*self._floats, strict=True))
        torch._foreach_lerp_(averages, weights, 1 - kept)
        if ahead:
            torch._foreach_copy_(weights, averages)
        for mine, theirs in self._counters:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """What resume.pt holds of the average; nothing where there is none."""
        return {"last": self._last, "model": self.model.state_dict()} if self._averages else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`. Raises KeyError where it is another's."""
        if self._averages:
            self._last = state["last"]
            self.model.load_state_dict(state["model"])


def _tensors(model: Model) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
