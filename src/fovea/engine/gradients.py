"""The gradients of a batch: of all of it at once, or in parts, which the cores of a CPU take one each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.config import RunConfig
from fovea.data.balance import class_weights
from fovea.data.types import Dataset
from fovea.device import autocast
from fovea.engine.small_first import shrink
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.models.pixels_first import by_groups
from fovea.models.winograd import Conv3x3, Transformed, has_int8, lay_as_gradients

MOST_TOGETHER = 250 * 32 * 32  # pixels of several parts: more save little, and take memory (EXPERIMENTS.md)

Loss = Callable[[Model, Tensor, Tensor], Tensor]
"""Network, `(B, C, H, W)` images and labels to the `(B,)` losses."""


class Backward(Protocol):
    """Images, made smaller by a factor, and labels to their `(B,)` losses, with `grad` of the mean set for every parameter."""

    def __call__(self, images: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
        """Of `(B, C, H, W)` images."""


def build_backward(
    config: RunConfig, model: Model, precision: str, device: torch.device, scaler: torch.amp.GradScaler,
    weights: Tensor | None = None,
) -> Backward:  # fmt: skip
    """How a step of this run gets its gradients; to be called within `device.reproducible`.

    `weights` are `(K,)`: how much an image of each class counts, of a soft label each share.
    Where the batch goes through in parts, PyTorch itself is left with one thread until that block ends.
    """

    def losses_of(network: Model, images: Tensor, labels: Tensor, scale: float) -> Tensor:
        if scale < 1:
            images = shrink(images, scale)
        with autocast(precision, device):
            logits = network(images).float()
        # Their mean is by the number of images, not by the sum of their weights: a batch of common classes counts for
        # less, too, and soft labels and parts of a batch add up to the same.
        return F.cross_entropy(logits, labels, weights, label_smoothing=config.label_smoothing, reduction="none")

    def whole(images: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
        losses = losses_of(model, images, labels, scale)
        scaler.scale(losses.mean()).backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    if not in_parts(config, device):
        return whole
    parts = Parts(model, config.part_size, torch.get_num_threads(), in_int8(config, model, precision, device))
    torch.set_num_threads(1)  # torch's idle threads spin for a while, and take a core from a part
    return lambda images, labels, scale=1.0: parts.backward(images, labels, partial(losses_of, scale=scale), scale)


def in_parts(config: RunConfig, device: torch.device) -> bool:
    """Whether batches go through the network in parts."""
    return device.type == "cpu" and config.part_size > 0


def in_int8(config: RunConfig, model: nn.Module, precision: str, device: torch.device) -> bool:
    """Whether a model's convolutions are trained with products of bytes."""
    able = config.int8 and precision in ("fp32", "bf16") and in_parts(config, device) and has_int8()
    return able and any(isinstance(layer, Conv3x3) for layer in model.modules())


def loss_weights(config: RunConfig, dataset: Dataset, device: torch.device) -> Tensor | None:
    """`(K,)` weights of the classes where the config balances the loss, else None."""
    if config.balance != "loss":
        return None
    return class_weights(dataset.train.counts(len(dataset.classes))).to(device)


def check_parts(part_size: int, model: Model) -> None:
    """Raises ConfigError where a model draws random numbers, which threads would draw in no fixed order."""
    drops = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p]
    if part_size and drops:
        raise ConfigError("part_size does not go with dropout: give --set part_size=0")


class Parts:
    """Sets the gradients of a model's parameters, part by part.

    PyTorch shares out every single operation among its threads, and after each of them all wait for the slowest. Where whole
    parts of the batch go through the network on one core, they wait once a step (EXPERIMENTS.md). A core takes several
    parts at once where normalization can keep them apart: what they share, as the weights, it handles once. What comes out
    depends on the size of the parts, and not on the number of cores but for rounding: gradients are summed in order.
    Batch normalization sees one part at a time (ghost batches: Hoffer et al. 2017).
    """

    def __init__(self, model: Model, part_size: int, num_threads: int, int8: bool = False) -> None:
        self._model, self._part_size, self._num_threads, self._int8 = model, part_size, num_threads, int8
        lay_as_gradients(model)
        self._replicas = [_replica(model)]
        self._keeps_apart = by_groups(self._replicas[0], part_size)
        # One operation, one thread: torch's own are for those who wait.
        self._pool = ThreadPoolExecutor(num_threads, "fovea-part", torch.set_num_threads, (1,))
        self._transformed = Transformed(self._pool.map)

    def backward(self, images: Tensor, labels: Tensor, loss: Loss, scale: float = 1.0) -> Tensor:
        """Set `grad` of every parameter as for the mean loss of the batch, and return the `(B,)` losses.

        `scale` is by what `loss` makes the images smaller.
        """
        sizes = self._sizes(len(images), images[0, 0].numel() * scale**2)
        pieces = list(zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True))
        while len(self._replicas) < len(pieces):
            self._replicas.append(_replica(self._replicas[0]))
        replicas = self._replicas[: len(pieces)]
        parameters = [p for p in self._model.parameters() if p.requires_grad]  # some may have settled, or thawed
        for replica in replicas:
            replica.train(self._model.training)
            for own, buffer in zip(replica.buffers(), self._model.buffers(), strict=True):
                own.copy_(buffer)

        def one(replica: Model, piece: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            losses = loss(replica, *piece)
            share = losses.sum() / len(images)
            return losses.detach(), torch.autograd.grad(share, parameters, allow_unused=True)

        for parameter in self._model.parameters():
            parameter.grad = None
        found = []
        with self._transformed.once_for(replicas, self._int8):
            for losses, gradients in self._pool.map(one, replicas, pieces):  # in order, each as soon as it is there
                found.append(losses)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if parameter.grad is None:
                        parameter.grad = gradient
                    elif gradient is not None:
                        parameter.grad += gradient
        self._gather_buffers(replicas)
        return torch.cat(found)

    def _sizes(self, num_images: int, num_pixels: float) -> list[int]:
        """How many images a core takes at once: of one part or of several, so that all cores have as many."""
        num_parts = -(-num_images // self._part_size)
        most = max(1, int(MOST_TOGETHER / num_pixels) // self._part_size) if self._keeps_apart else 1
        rounds = -(-num_parts // (most * self._num_threads))
        count = min(num_parts, rounds * self._num_threads)
        sizes = [(num_parts + place) // count * self._part_size for place in reversed(range(count))]
        sizes[-1] -= sum(sizes) - num_images  # the last part may be smaller
        return sizes

    def _gather_buffers(self, replicas: list[Model]) -> None:
        """Move the model's running averages by the mean of what the parts moved theirs."""
        for buffer, *owns in zip(self._model.buffers(), *(replica.buffers() for replica in replicas), strict=True):
            if buffer.is_floating_point():
                buffer += torch.stack([own - buffer for own in owns]).mean(0)  # exact where nothing moved
            else:
                buffer.copy_(owns[0])  # a count of steps


def _replica(model: Model) -> Model:
    """The same parameters with buffers of its own."""
    shared: dict[int, nn.Parameter] = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)
