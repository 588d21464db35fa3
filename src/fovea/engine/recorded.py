"""On a GPU, a step is recorded once and then replayed: one launch in place of several hundred (CUDA graphs).

A step of a small network takes a GPU less time than Python takes to ask for it, operation by operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fovea.models.base import Model

Step = Callable[[Tensor, Tensor, float], Tensor]
"""`(B, C, H, W)` images, labels, and the factor of their sides to the `(B,)` losses; weights have moved."""


@contextlib.contextmanager
def on_own_stream(device: torch.device) -> Iterator[None]:
    """Within the block, a GPU's work goes to a stream of its own, as only such can be recorded."""
    if device.type != "cuda":
        yield
        return
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    images: Tensor  # what a replay reads
    labels: Tensor
    losses: Tensor  # what it writes


class Recorded:
    """A step that is replayed from its third time on; called within `on_own_stream`.

    What differs in more than its numbers (sizes, what is trained, what is in training mode) is recorded by itself. The first
    step of each kind is made as ever: there, libraries load and optimizers make what they remember. A step that waits for
    the GPU cannot be recorded, and neither can any after it.
    """

    def __init__(self, step: Step, model: Model, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._step, self._model, self._optimizer = step, model, optimizer
        self._lrs = [torch.zeros((), device=device) for _ in optimizer.param_groups]  # where replays look for them
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._able = True

    def __call__(self, images: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
        """The `(B,)` losses."""
        kind = self._kind(images, labels, scale)
        if self._able and kind in self._recordings:
            recording = self._recordings[kind]
            if recording is None:
                recording = self._recordings[kind] = self._record(images, labels, scale)
            if recording is not None:
                return self._replay(recording, images, labels)
        self._recordings.setdefault(kind, None)
        return self._step(images, labels, scale)

    def _kind(self, images: Tensor, labels: Tensor, scale: float) -> Hashable:
        learns = tuple(parameter.requires_grad for parameter in self._model.parameters())
        trains = tuple(module.training for module in self._model.modules())
        return images.shape, labels.shape, labels.dtype, scale, learns, trains

    def _record(self, images: Tensor, labels: Tensor, scale: float) -> _Recording | None:
        """None where the step is not made of launches alone; from then on, none is recorded."""
        graph = torch.cuda.CUDAGraph()
        seen = images.clone(), labels.clone()
        try:
            with self._lrs_on_device(), torch.cuda.graph(graph, self._pool, torch.cuda.current_stream()):
                losses = self._step(*seen, scale)
        except RuntimeError:
            self._able = False
            return None
        return _Recording(graph, *seen, losses)

    def _replay(self, recording: _Recording, images: Tensor, labels: Tensor) -> Tensor:
        for lr, group in zip(self._lrs, self._optimizer.param_groups, strict=True):
            lr.fill_(group["lr"])
        recording.images.copy_(images)
        recording.labels.copy_(labels)
        recording.graph.replay()
        return recording.losses.clone()

    @contextlib.contextmanager
    def _lrs_on_device(self) -> Iterator[None]:
        """A number would be recorded as it is; PyTorch's optimizers also take a tensor, and ask to be told of it."""
        groups = self._optimizer.param_groups
        before = [dict(group) for group in groups]
        for group, lr in zip(groups, self._lrs, strict=True):
            group["lr"] = lr
            if "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, settings in zip(groups, before, strict=True):
                group.update({name: settings[name] for name in ("lr", "capturable") if name in settings})
