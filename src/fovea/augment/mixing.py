"""What mixing images shares: whom with, and how much of each."""

from __future__ import annotations

import torch
from torch import Tensor

from fovea.errors import ConfigError


def partners(count: int, generator: torch.Generator) -> Tensor:
    """`(count,) int64`: another order of the batch, so that each image is somebody's partner once (or its own)."""
    return torch.randperm(count, generator=generator, device=generator.device)


def shares(name: str, count: int, alpha: float, probability: float, generator: torch.Generator) -> Tensor:
    """`(count,) float32` of Beta(alpha, alpha), each with the given probability, else 1. Raises ConfigError."""
    if not alpha > 0:
        raise ConfigError(f"{name}:alpha={alpha:g} must be more than 0")
    if not 0 <= probability <= 1:
        raise ConfigError(f"{name}:probability={probability:g} must lie between 0 and 1")
    device = generator.device
    # What torch.distributions.Beta draws from, which takes no generator.
    drawn = torch._sample_dirichlet(torch.full((count, 2), alpha, device=device), generator=generator)[:, 0]
    chosen = torch.rand(count, generator=generator, device=device) < probability
    return torch.where(chosen, drawn, torch.ones_like(drawn))
