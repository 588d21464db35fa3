"""The running average of the weights over the last part of the way."""

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

    Batch normalization's running statistics are averaged like the weights (as airbench94's lookahead does, and torch's
    AveragedModel with use_buffers): over a short span both hardly move, and no second pass over the images is needed.
    Counters are copied.
    """

    def __init__(self, config: EmaConfig, model: Model) -> None:
        self._config = config
        self._last = 0  # the step of the last update
        self.model = copy.deepcopy(model).requires_grad_(False) if config.span else model
        both = [*zip(_tensors(self.model), _tensors(model), strict=True)]
        self._floats = [(mine, theirs) for mine, theirs in both if mine.is_floating_point()]
        self._counters = [(mine, theirs) for mine, theirs in both if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int, force: bool = False) -> None:
        """Take in the weights after `step` (from 1), if an update is due, or by `force`."""
        if not self._config.span or step == self._last or not (force or step % self._config.every == 0):
            return
        kept = (self._last / step) ** (1 / self._config.span - 1)
        self._last = step
        torch._foreach_lerp_([mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - kept)
        for mine, theirs in self._counters:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """What resume.pt holds of the average; nothing where there is none."""
        return {"last": self._last, "model": self.model.state_dict()} if self._config.span else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`. Raises KeyError where it is another's."""
        if self._config.span:
            self._last = state["last"]
            self.model.load_state_dict(state["model"])


def _tensors(model: Model) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
