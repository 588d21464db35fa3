"""The products of Winograd's convolution in bytes, for training (fovea.models.winograd)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fovea.models.products import DEPTH, multiply, multiply_transposed, panel_width
from fovea.models.tiles import Grid, Room, Scale

_MOST = 127.0
_SAMPLE = 8  # one image of so many says how large the numbers of all of them are, which may be
_MARGIN = 1.25  # so many times as large: what is larger still is cut off (EXPERIMENTS.md)
_FEWEST = 8  # images of a sample
_TINY = 1e-30  # instead of dividing by 0
_LEAST = 2.0**-12  # of the largest gradient: one that looks smaller counts as so large


class Weights(NamedTuple):
    """At the points, as bytes in the order in which products read them, each share by itself."""

    forth: list[Tensor]  # `(points, panels, C / 4, columns, 4)`, of columns of O
    back: list[Tensor]  # `(points, panels, O / 4, columns, 4)`, of columns of C; none where nobody asks for them
    factors: Tensor  # `(points,)`: what they were multiplied by
    shape: tuple[int, int]  # C, O


class Bytes:
    """Of images, weights and gradients; O is a multiple of 16, and C of 8.

    Each point of each of the three has a factor of its own (tap-wise quantization: Andri et al. 2022, arXiv:2209.12982);
    on the way back each image has one, too (`_shares`). The gradients are those of a convolution that is not rounded. What comes
    out differs by some 7 % of its root mean square, where bfloat16 by Winograd's way differs by 1.3 % (EXPERIMENTS.md).
    """

    in_bytes: ClassVar[bool] = True
    gradient: Scale | None = None

    def __init__(self, tiling: Grid, weights: Weights, pixels: Tensor) -> None:
        self._tiling, self._weights = tiling, weights
        factors = _factors(tiling.peaks("gather", pixels, None, _sample(pixels)))
        self.images: Scale | None = Scale(factors)
        self._scales = self._of_shares(1 / (factors * weights.factors))

    @staticmethod
    def transformed(tiling: Grid, weight: Tensor, with_back: bool) -> Weights:
        forth = _in_panels(weight)
        # A weight that is no number any more has to come out, and not as one.
        factors = _factors(tiling.weight_peaks(forth), margin=1.0) + 0 * weight.sum()
        back = tiling.bytes_at_points(_in_panels(weight.transpose(0, 1)), factors) if with_back else []
        return Weights(tiling.bytes_at_points(forth, factors), back, factors, (weight.shape[1], weight.shape[0]))

    def meet(self, pixels: Tensor, gradient: Tensor, chosen: Tensor | None) -> None:
        shares = _shares(gradient)
        to_images, to_gradient = (
            by.repeat_interleave(of.shape[3]) for by, of in ((shares, pixels), (1 / shares, gradient))
        )
        own = _factors(self._tiling.peaks("gather", pixels, None, _sample(pixels), to_images))
        theirs = _factors(self._tiling.peaks("spread", gradient, chosen, _sample(gradient), to_gradient))
        self.images, self.gradient = Scale(own, to_images), Scale(theirs, to_gradient)
        self._weight_scales = self._of_shares(1 / (own * theirs))
        self._back_scales = self._of_shares(1 / (self._weights.factors * theirs))

    def room(self, rows: range, count: int, channels: int, slot: int) -> Room:
        return self._tiling.room(rows, count, channels, slot, torch.uint8, padded=True)

    def forth(self, tiles: Room, rows: range, count: int) -> Room:
        products = self._tiling.room(rows, count, self._weights.shape[1], 1, padded=True)
        _multiply(tiles, self._weights.forth, self._scales, products)
        return products

    def back(self, tiles: Room, products: Room, rows: range, count: int) -> Room:
        found = self._tiling.room(rows, count, self._weights.shape[0], 2, padded=True)
        _multiply(products, self._weights.back, self._back_scales, found)
        return found

    def to_weight(self, tiles: Room, products: Room) -> list[Tensor]:
        found = []
        for read, of, scale in zip(tiles.tiles, products.tiles, self._weight_scales, strict=True):
            make = torch.empty if read.shape[1] else torch.zeros
            found.append(make(len(read), *self._weights.shape, dtype=self._tiling.dtype))
            if read.shape[1]:
                multiply_transposed(read, of, scale, found[-1])
        return found

    def _of_shares(self, values: Tensor) -> list[Tensor]:
        return [values[places] for places in self._tiling.places]


def _multiply(rows: Room, panels: list[Tensor], scales: list[Tensor], out: Room) -> None:
    for read, transformed, scale, written in zip(rows.tiles, panels, scales, out.tiles, strict=True):
        if read.shape[1]:
            multiply(read, transformed, scale, written)


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


def _shares(gradient: Tensor) -> Tensor:
    """`(N,)` powers of two, at most 1: the root of how large the gradient of each image of `(H, W, N, O)` is, of the largest.

    Gradients are divided by them, and images multiplied. Some are a hundred times as large as others, whose bytes would be 0;
    so either is ten times as large, and their product, which a weight learns from, stays what it is.
    """
    rows = gradient[len(gradient) // 4 :: (len(gradient) + 1) // 2].unbind()  # two: more find little more
    # Of each pixel all channels together, as quick a reduction as torch has.
    sizes = torch.stack([torch.linalg.vector_norm(row, dim=2).amax(0) for row in rows]).amax(0).float().clamp_min(_TINY)
    return torch.exp2((torch.log2((sizes / sizes.max()).clamp_min(_LEAST)) / 2).round())
