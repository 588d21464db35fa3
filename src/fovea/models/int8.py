"""The products of Winograd's convolution in bytes, for training (fovea.models.winograd)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fovea.models.products import DEPTH, multiply, multiply_transposed, panel_width
from fovea.models.tiles import Grid, Room

_MOST = 127.0
_SAMPLE = 8  # one image of so many says how large the numbers of all of them are, which may be
_MARGIN = 1.25  # so many times as large: what is larger still is cut off (EXPERIMENTS.md)
_FEWEST = 8  # images of a sample
_TINY = 1e-30  # instead of dividing by 0


class Weights(NamedTuple):
    """At the points, as bytes in the order in which products read them, each share by itself."""

    panels: list[Tensor]  # `(points, panels, K / 4, columns, 4)`: forth K is C, the columns O; back the other way
    factors: Tensor  # `(points,)`: what they were multiplied by


class Bytes:
    """Of images, weights and gradients; O is a multiple of 16, and C of 8.

    Each point of each of the three has a factor of its own (tap-wise quantization: Andri et al. 2022, arXiv:2209.12982);
    the gradients are those of a convolution that is not rounded. What comes out differs by some 7 % of its root mean
    square, where bfloat16 by Winograd's way differs by 1.3 % (EXPERIMENTS.md).
    """

    gradient_factors: Tensor | None = None

    def __init__(self, tiling: Grid, weights: Weights | None, pixels: Tensor) -> None:
        self._tiling, self._weights = tiling, weights
        given = _factors(tiling.peaks("gather", pixels, None, _sample(pixels)))
        self.factors: Tensor | None = given
        self._scales = self._undone(given, weights)

    @staticmethod
    def transformed(tiling: Grid, weight: Tensor, back: bool) -> Weights:
        panels = _in_panels(weight.transpose(0, 1) if back else weight)
        # A weight that is no number any more has to come out, and not as one.
        factors = _factors(tiling.weight_peaks(panels), margin=1.0) + 0 * weight.sum()
        return Weights(tiling.bytes_at_points(panels, factors), factors)

    def meet(self, gradient: Tensor, chosen: Tensor | None) -> None:
        own = _factors(self._tiling.peaks("spread", gradient, chosen, _sample(gradient)))
        assert self.factors is not None
        self.gradient_factors = own
        self._weight_scales = self._of_shares(1 / (self.factors * own))
        self._scales = self._undone(own, self._weights)

    def room(self, rows: range, count: int, channels: int, slot: int) -> Room:
        return self._tiling.room(rows, count, channels, slot, torch.uint8, padded=True)

    def forth(self, tiles: Room, rows: range, count: int) -> Room:
        return self._times_weights(tiles, rows, count, 1)

    def back(self, tiles: Room, products: Room, rows: range, count: int) -> Room:
        return self._times_weights(products, rows, count, 2)

    def to_weight(self, tiles: Room, products: Room) -> list[Tensor]:
        found = []
        for read, of, scale in zip(tiles.tiles, products.tiles, self._weight_scales, strict=True):
            make = torch.empty if read.shape[1] else torch.zeros
            found.append(make(len(read), read.shape[2], of.shape[2], dtype=self._tiling.dtype))
            if read.shape[1]:
                multiply_transposed(read, of, scale, found[-1])
        return found

    def _times_weights(self, tiles: Room, rows: range, count: int, slot: int) -> Room:
        assert self._weights is not None
        panels = self._weights.panels
        columns = panels[0].shape[1] * panels[0].shape[3]
        products = self._tiling.room(rows, count, columns, slot, padded=True)
        for read, transformed, scale, written in zip(tiles.tiles, panels, self._scales, products.tiles, strict=True):
            if read.shape[1]:
                multiply(read, transformed, scale, written)
        return products

    def _undone(self, factors: Tensor, weights: Weights | None) -> list[Tensor]:
        """By what products with the weights, where there are any, are multiplied to undo the factors of both."""
        return [] if weights is None else self._of_shares(1 / (factors * weights.factors))

    def _of_shares(self, values: Tensor) -> list[Tensor]:
        return [values[places] for places in self._tiling.places]


def _in_panels(weight: Tensor) -> Tensor:
    """`(N, K, 3, 3)` to `(3, 3, N / W, K / 4, W, 4)`, as `multiply` reads it."""
    columns, depth = weight.shape[:2]
    width = panel_width(columns)
    panels = weight.detach().reshape(columns // width, width, depth // DEPTH, DEPTH, 3, 3)
    return panels.permute(4, 5, 0, 2, 1, 3).contiguous()


def _factors(peaks: Tensor, margin: float = _MARGIN) -> Tensor:
    return _MOST / (margin * peaks).clamp_min(_TINY)


def _sample(pixels: Tensor) -> int:
    """How many of the images of `(H, W, N, C)`."""
    return max(_FEWEST, pixels.shape[2] // _SAMPLE)
