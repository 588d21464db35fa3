"""Momentum, orthogonalized by Newton-Schulz iterations: Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

A gradient of a weight matrix has a few directions that are large and many that are small. Muon takes U V^T of
its singular value decomposition U S V^T instead: each direction moves by the same amount.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from fovea.device import has_quick_bf16, is_intel
from fovea.errors import ConfigError
from fovea.models.base import Model
from fovea.optim.adamw import adamw
from fovea.optim.build import split_off
from fovea.optim.sgd import sgd
from fovea.registry import optimizer

# Of a x + b x^3 + c x^5, applied to each singular value: as steep at 0 as can be, so that few steps do. What comes out
# lies in a band around 1 rather than at 1, which costs nothing in training (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)

# From this many rows, and columns for each row, on, the iterations on X X^T alone are quicker (EXPERIMENTS.md).
LARGE, WIDE = 128, 4


@optimizer
def muon(
    model: Model, groups: list[dict[str, Any]], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0,
    nesterov: bool = True, steps: int = 5, normalize: bool = False, other: str = "adamw", other_lr: float = 0.003,
    other_momentum: float = 0.9,
) -> Optimizer:  # fmt: skip
    """Orthogonalized momentum for the hidden weights, `other` (adamw or sgd, with `other_lr`) for the rest.

    Args:
        steps: Newton-Schulz iterations; 5, or 3 for speed.
        normalize: rescale each hidden weight before each step, so that its filters have a mean square norm of 1. For
            layers that are followed by a normalization, which does not see the scale; weight decay has no use then.
        other_lr, other_momentum: of the rest. A schedule scales `other_lr` like `lr`. The rest takes `weight_decay`
            and, if `sgd`, `nesterov` as well.
    """
    others = {"adamw": {}, "sgd": {"nesterov": nesterov}}
    if other not in others:
        raise ConfigError(f"muon:other={other}: the rest can go to {' or '.join(others)}")
    if nesterov and not momentum:
        raise ConfigError("optim.nesterov needs momentum: give --momentum 0.9, or --set optim.nesterov=false")
    for name, value, least, most in (
        ("steps", steps, 1, 100), ("other_lr", other_lr, 1e-12, 1e12), ("other_momentum", other_momentum, 0, 0.9999)
    ):  # fmt: skip
        if not least <= value <= most:
            raise ConfigError(f"muon:{name}={value:g}: from {least:g} to {most:g}")
    hidden, rest = split_off(groups, model.hidden_weights())
    if not hidden:
        raise ConfigError("muon: the model has no hidden weights to orthogonalize; take --optimizer adamw or sgd")
    parts: list[Optimizer] = [Muon(hidden, lr, momentum, weight_decay, nesterov, steps, normalize)]
    if rest:
        make: Callable[..., Optimizer] = adamw if other == "adamw" else sgd
        # What belongs to the rest is marked: `lr` does not reach it.
        marked = [{**group, "own_lr": True} for group in rest]
        parts.append(make(model, marked, other_lr, other_momentum, weight_decay, **others[other]))
    return Together(parts)


class Muon(Optimizer):
    """Orthogonalized momentum, for weights of two dimensions or more (a convolution's are `(out, in * height * width)`).

    The iterations are in bfloat16 where that is quicker than float32; momentum and weights are what the weights are.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0,
        nesterov: bool = True, steps: int = 5, normalize: bool = False,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {**defaults, "steps": steps, "normalize": normalize})
        self._cores = torch.get_num_threads()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step: on a GPU for all weights of one shape at a time, on a CPU for each, the largest first."""
        for group in self.param_groups:
            half = has_quick_bf16(group["params"][0].device)
            alike: dict[Any, list[Tensor]] = defaultdict(list)
            for weight in sorted(group["params"], key=Tensor.numel, reverse=True):
                if weight.grad is not None:
                    alike[(weight.shape, weight.device) if weight.is_cuda else id(weight)].append(weight)
                    if not self.state[weight]:
                        self.state[weight]["momentum_buffer"] = torch.zeros_like(weight.grad)  # in its order in memory
            self._map(partial(self._step, group=group, half=half), alike.values())

    def _map(self, function: Callable[[list[Tensor]], None], batches: Iterable[list[Tensor]]) -> None:
        """On all cores where torch was left with one since the optimizer was built (fovea.engine.gradients)."""
        if torch.get_num_threads() == self._cores:
            for weights in batches:
                function(weights)
        else:
            list(self._pool.map(function, batches))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._cores, "fovea-muon", torch.set_num_threads, (1,))

    @torch.no_grad()  # of this thread
    def _step(self, weights: list[Tensor], group: dict[str, Any], half: bool) -> None:
        grads = [weight.grad for weight in weights if weight.grad is not None]
        velocities = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, grads)
        ahead = torch._foreach_add(grads, velocities, alpha=group["momentum"]) if group["nesterov"] else velocities

        order = _order(grads[0])
        matrices = [_matrix(direction, order) for direction in ahead]
        updates = newton_schulz(
            torch.stack(matrices) if len(matrices) > 1 else matrices[0][None], group["steps"], half=half
        )
        rows, columns = updates.shape[1:]
        if group["normalize"]:
            norms = torch._foreach_norm(weights)
            torch._foreach_mul_(weights, [rows**0.5 / norm for norm in norms])
        elif group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        # So that a weight with more outputs than inputs changes its outputs as much as others do (Jordan et al. 2024).
        lr = group["lr"] * max(1.0, rows / columns) ** 0.5
        for weight, update in zip(weights, updates, strict=True):
            laid = weight.permute(order)
            laid.add_((update if order[0] == 0 else update.mT).reshape(laid.shape), alpha=-lr)


def _order(weight: Tensor) -> list[int]:
    """Its dimensions as they lie in memory, outputs first or last."""
    found = sorted(range(weight.dim()), key=weight.stride, reverse=True)
    return found if 0 in (found[0], found[-1]) else list(range(weight.dim()))


def _matrix(weight: Tensor, order: list[int]) -> Tensor:
    """`(O, ...)` as `(O, N)`, N in this order: orthogonalization does not ask for another."""
    laid = weight.permute(order)
    return laid.flatten(1) if order[0] == 0 else laid.flatten(0, -2).mT


def newton_schulz(
    matrices: Tensor, steps: int = 5, coefficients: tuple[float, float, float] = QUINTIC, eps: float = 1e-7,
    half: bool = False,
) -> Tensor:  # fmt: skip
    """`(N, R, C)` matrices U S V^T to, nearly, U V^T, in float32; with `half`, in bfloat16."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller of the two products
    dtype = torch.bfloat16 if half else torch.float32
    # Divided by its norm it has no singular value above 1, where the iteration would explode.
    if not x.is_cuda and x.shape[1] >= LARGE and x.shape[2] >= WIDE * x.shape[1]:
        x = x.to(dtype)
        gram = (x @ x.mT).float()
        norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + eps
        scaled = (gram / norm.square()).unbind()
        factors = torch.stack([_polynomial(each, steps, coefficients) for each in scaled]) / norm
        # Symmetric; what comes out lies in memory as X does.
        factors = factors.to(dtype)
        x = torch.bmm(x.mT, factors).mT if x.mT.is_contiguous() else torch.bmm(factors, x)
        return x.mT if tall else x
    x = (x / (x.float().norm(dim=(1, 2), keepdim=True) + eps)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _polynomial(gram: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """What all steps together multiply X by, from X X^T alone: `(R, R)` to `(R, R)`.

    A step is X -> P X with P = a + b G + c G^2 of G = X X^T, and turns G into P G P. Of a wide X that is a half to a third
    of the work, as X itself is multiplied once. It asks for float32: bfloat16 would lose the small singular values.
    """
    a, b, c = coefficients
    total = None
    for step in range(steps):
        factor = torch.add(b * gram, _product(gram, gram), alpha=c)
        factor.diagonal().add_(a)
        total = factor if total is None else _product(factor, total)
        if step + 1 < steps:
            gram = _product(_product(factor, gram), factor)
    assert total is not None
    return total


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Of symmetric matrices; by oneDNN but on Intel's CPUs: what `@` calls is half as fast on AMD's (EXPERIMENTS.md)."""
    if is_intel() or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return first @ second
    product: Tensor = F.linear(first.to_mkldnn(), second.to_mkldnn()).to_dense()
    return product


class Together(Optimizer):
    """Several optimizers, each over its own parameters, that step as one."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self._parts = parts
        super().__init__(self._groups(), {})

    def step(self, closure: Any = None) -> Any:
        """A step of each."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Undo `state_dict`. Raises KeyError and ValueError where it is another's."""
        for part, saved in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
        self.param_groups = self._groups()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]
