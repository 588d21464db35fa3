"""Winograd's convolution with its products in bytes, for training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fovea.models.products import DEPTH, multiply, multiply_transposed, panel_width
from fovea.models.tiles import Grid, grid
from fovea.models.winograd import chunks

_MOST = 127.0
_SAMPLE = 8  # one image of so many says how large the numbers of all of them are, which may be
_MARGIN = 1.25  # so many times as large: what is larger still is cut off (EXPERIMENTS.md)
_FEWEST = 8  # images of a sample
_TINY = 1e-30  # instead of dividing by 0


class Weights(NamedTuple):
    """At the points, as bytes in the order in which products read them, each share by itself."""

    forth: list[Tensor]  # `(points, panels, C / 4, columns, 4)`, of columns of O
    back: list[Tensor]  # `(points, panels, O / 4, columns, 4)`, of columns of C
    factors: Tensor  # `(points,)`: what they were multiplied by


class Int8Winograd(torch.autograd.Function):
    """As fovea.models.winograd does it; what is multiplied, forward and in both gradients, are bytes.

    Each point of each tensor has a factor of its own (tap-wise quantization: Andri et al. 2022, arXiv:2209.12982); the
    gradients are those of a convolution that is not rounded. What comes out differs by some 7 % of its root mean square,
    where bfloat16 by Winograd's way differs by 1.3 %; what is learned is as good (EXPERIMENTS.md).
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, pool: bool, kept: dict[Any, Any]) -> Tensor:
        """`(H, W, B, C)` to `(H, W, B, O)`, pooled `(H // 2, W // 2, B, O)`, float32 or bfloat16.

        O is a multiple of 16, and C of 8, or where the pixels need a gradient of 16.
        """
        height, width = (side // 2 * 2 if pool else side for side in pixels.shape[:2])
        tiling = grid(height, width, pixels.dtype == torch.bfloat16, pool, in_bytes=True)
        key = (id(weight), tiling, "int8")
        weights: Weights = kept.get(key) or kept.setdefault(key, at_points(tiling, weight, ctx.needs_input_grad[0]))
        count, channels = pixels.shape[2:]
        size = (height // 2, width // 2) if pool else (height, width)
        out = pixels.new_empty(*size, count, len(weight))
        chosen = torch.empty_like(out, dtype=torch.uint8) if pool else None
        factors = _factors(tiling.peaks("gather", pixels, None, _sample(count)))
        scales = _of_shares(tiling, 1 / (factors * weights.factors))
        for rows in chunks(tiling, count):
            tiles = tiling.room(rows, count, channels, 0, torch.uint8, padded=True)
            products = tiling.room(rows, count, len(weight), 1, padded=True)
            tiling.gather(pixels, tiles, rows, factors)
            for read, panels, scale, written in zip(tiles.tiles, weights.forth, scales, products.tiles, strict=True):
                if len(read[0]):
                    multiply(read, panels, scale, written)
            tiling.collect(products, out, chosen, rows)
        ctx.save_for_backward(pixels, chosen, factors, weights.factors, *weights.back)
        ctx.tiling, ctx.outputs = tiling, len(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """To the gradients of the pixels, where they need one, and of the weight."""
        pixels, chosen, factors, weight_factors, *weights = ctx.saved_tensors
        tiling: Grid = ctx.tiling
        (count, channels), outputs = pixels.shape[2:], ctx.outputs
        gradient = gradient.contiguous()
        own = _factors(tiling.peaks("spread", gradient, chosen, _sample(count)))
        to_pixels = torch.zeros_like(pixels) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros(3, 3, channels, outputs)
        weight_scales = _of_shares(tiling, 1 / (factors * own))
        pixel_scales = _of_shares(tiling, 1 / (weight_factors * own))
        for rows in chunks(tiling, count):
            tiles = tiling.room(rows, count, channels, 0, torch.uint8, padded=True)
            products = tiling.room(rows, count, outputs, 1, torch.uint8, padded=True)
            tiling.gather(pixels, tiles, rows, factors)
            tiling.spread(gradient, chosen, products, rows, own)
            found = []
            for read, written, scale in zip(tiles.tiles, products.tiles, weight_scales, strict=True):
                found.append(torch.empty(len(read), channels, outputs, dtype=tiling.dtype))
                if len(read[0]):
                    multiply_transposed(read, written, scale, found[-1])
                else:
                    found[-1].zero_()
            tiling.add_from_points(found, to_weight)
            if to_pixels is not None:
                spread = tiling.room(rows, count, channels, 2, padded=True)
                for written, panels, scale, read in zip(
                    products.tiles, weights, pixel_scales, spread.tiles, strict=True
                ):
                    if len(read[0]):
                        multiply(written, panels, scale, read)
                tiling.add(spread, to_pixels, rows)
        return to_pixels, to_weight.permute(3, 2, 0, 1), None, None


def at_points(tiling: Grid, weight: Tensor, with_back: bool) -> Weights:
    """Of `(O, C, 3, 3) float32`; `back` is for the gradient of the pixels."""
    forth = _in_panels(weight)
    # A weight that is no number any more has to come out, and not as one.
    factors = _factors(tiling.weight_peaks(forth), margin=1.0) + 0 * weight.sum()
    back = tiling.bytes_at_points(_in_panels(weight.transpose(0, 1)), factors) if with_back else []
    return Weights(tiling.bytes_at_points(forth, factors), back, factors)


def _in_panels(weight: Tensor) -> Tensor:
    """`(N, K, 3, 3)` to `(3, 3, N / W, K / 4, W, 4)`, as `multiply` reads it."""
    columns, depth = weight.shape[:2]
    width = panel_width(columns)
    panels = weight.detach().reshape(columns // width, width, depth // DEPTH, DEPTH, 3, 3)
    return panels.permute(4, 5, 0, 2, 1, 3).contiguous()


def _factors(peaks: Tensor, margin: float = _MARGIN) -> Tensor:
    return _MOST / (margin * peaks).clamp_min(_TINY)


def _sample(count: int) -> int:
    return max(_FEWEST, count // _SAMPLE)


def _of_shares(tiling: Grid, values: Tensor) -> list[Tensor]:
    return [values[numbers] for numbers in tiling.places]
