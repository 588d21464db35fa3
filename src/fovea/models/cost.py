"""What a network costs: its parameters, and the arithmetic of one forward pass."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fovea.models.base import build_model, num_parameters


def forward_flops(model: nn.Module, channels: int, image_size: tuple[int, int]) -> int:
    """Floating-point operations of one forward pass of one image, 2 for each multiply-add.

    Convolutions, matrix products and attention count; normalization, activations and pooling do not: of a
    convolutional network they are a percent or two. Training costs about 3 times as much: the gradients of the
    weights and of the inputs take a pass's arithmetic each. The model must be on the CPU or the meta device.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()  # so that batch normalization takes one image, and its averages stay as they are
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, channels, *image_size, device=device))
    finally:
        model.train(was_training)
    return int(counter.get_total_flops())


def flops_if_countable(model: nn.Module, channels: int, image_size: tuple[int, int]) -> int | None:
    """`forward_flops` of a copy that does no arithmetic; None for a network that wants real numbers to go on."""
    try:
        return forward_flops(copy.deepcopy(model).to("meta"), channels, image_size)
    except Exception:  # whatever it is, the count is not worth the training
        return None


def spec_cost(spec: str, num_classes: int, channels: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Parameters and forward FLOPs of the model that `spec` names. Raises ConfigError."""
    with torch.random.fork_rng([]):  # the caller's random numbers stay as they were
        model = build_model(spec, num_classes, channels, image_size)
    return num_parameters(model), forward_flops(model, channels, image_size)


def flops_text(flops: int) -> str:
    """`81.6 MFLOP`, with three digits."""
    power, unit = next((p, u) for p, u in ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")) if flops >= 10**p or not p)
    value = flops / 10**power
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}FLOP"
