"""3×3 convolutions with a third to a sixth of the multiplications, for training on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fovea.models.pixels_first import images_first, pixels_first

# Below this product of channels the transforms cost more than they save (EXPERIMENTS.md).
_LEAST_PRODUCT = 24 * 32
_FEWEST_IMAGES = 32  # below it, without gradients, transforming the weights costs more than is saved (EXPERIMENTS.md)
_LARGEST_TILE = 8  # pixels along a side: each more costs float32 half a digit (EXPERIMENTS.md)


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, that takes Winograd's way where that is faster: in float32 on a CPU.

    Its state dict is that of `nn.Conv2d`. The results agree to some 2e-5 of their root mean square (bfloat16: 3e-3), and lie
    in memory as fovea.models.pixels_first says. With `even_only`, where a 2×2 pooling follows that would not read them, an
    odd last row and column may be left out of the result.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False, even_only: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.even_only = even_only
        self._kept: dict[Any, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, H, W)`."""
        if not self._winograd_pays(input):
            return super().forward(input)
        height, width = (side - side % 2 if self.even_only else side for side in input.shape[2:])
        out = images_first(_Winograd.apply(pixels_first(input), self.weight, height, width, self._kept))
        return out if self.bias is None else out + self.bias[:, None, None]

    def _winograd_pays(self, images: Tensor) -> bool:
        return (
            images.device.type == "cpu"
            and images.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()  # what is exported are plain convolutions
            and (torch.is_grad_enabled() or len(images) >= _FEWEST_IMAGES)
            and self.in_channels * self.out_channels >= _LEAST_PRODUCT
        )


@contextmanager
def transformed_once(models: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, in which weights stay as they are, those that models share are transformed once for all of them."""
    layers = [layer for model in models for layer in model.modules() if isinstance(layer, Conv3x3)]
    kept: dict[Any, Tensor] = {}
    for layer in layers:
        layer._kept = kept
    try:
        yield
    finally:
        for layer in layers:
            layer._kept = None


class _Winograd(torch.autograd.Function):
    """Lavin & Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), and both gradients.

    Along a side, m outputs are Aᵀ[(G g) ⊙ (Bᵀ d)] of a kernel g and m + 2 inputs d. Along both, (m + 2)² products stand for
    9 m², and with channels each is a product of matrices. The gradients are the transposes of the same steps, so they cost
    as little.
    """

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, weight: Tensor, height: int, width: int, kept: dict[Any, Tensor] | None
    ) -> Tensor:
        count, channels = pixels.shape[2:]
        down, across = _side(pixels.shape[0], height), _side(pixels.shape[1], width)
        key = (id(weight), len(down.kernel), len(across.kernel))
        weights = (kept or {}).get(key)
        if weights is None:
            weights = _along_both(down.kernel, across.kernel, weight.permute(2, 3, 1, 0).contiguous()).flatten(0, 1)
            weights = weights if kept is None else kept.setdefault(key, weights)  # another thread may have been first
        tiles = pixels.new_empty(len(weights), len(across.reads) * count, channels)
        products = pixels.new_empty(*tiles.shape[:2], len(weight))
        out = pixels.new_empty(height, width, count, len(weight))
        for read, write in zip(down.reads, down.writes, strict=True):
            _read(pixels, read, across.reads, tiles)
            torch.bmm(tiles, weights, out=products)
            _write(products, write, across.writes, out)
        ctx.save_for_backward(pixels, weights)
        ctx.sides = down, across
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        pixels, weights = ctx.saved_tensors
        down, across = ctx.sides
        gradient = gradient.contiguous()
        to_pixels = torch.zeros_like(pixels) if ctx.needs_input_grad[0] else None
        to_weights = torch.zeros_like(weights)
        tiles = pixels.new_empty(len(weights), len(across.reads) * pixels.shape[2], pixels.shape[3])
        products = pixels.new_empty(*tiles.shape[:2], weights.shape[2])
        for read, write in zip(down.reads, down.writes, strict=True):
            _read(pixels, read, across.reads, tiles)  # once more: as quick as to keep them, in half of the memory
            _read(gradient, write, across.writes, products)
            to_weights.baddbmm_(tiles.transpose(1, 2), products)
            if to_pixels is not None:
                torch.bmm(products, weights.transpose(1, 2), out=tiles)
                _write(tiles, read, across.reads, to_pixels, add=True)
        to_weights = to_weights.view(len(down.kernel), len(across.kernel), *weights.shape[1:])
        to_weight = _along_both(down.kernel.t(), across.kernel.t(), to_weights)
        return to_pixels, to_weight.permute(3, 2, 0, 1), None, None, None


class _Piece(NamedTuple):
    """The pixels of a side that a tile reads or writes, and its `(points, pixels)` matrix over them."""

    place: slice
    matrix: Tensor


class _Side(NamedTuple):
    """A side of an image cut into tiles: what each reads and writes, and what the kernel's side is multiplied by."""

    reads: list[_Piece]
    writes: list[_Piece]
    kernel: Tensor


@lru_cache(maxsize=256)
def _side(size: int, outputs: int) -> _Side:
    """How to get the first `outputs` pixels from a side of `size`, with a 0 before it and zeros behind, by fewest products.

    The points at which polynomials are multiplied (Toom-Cook) are tan(k π / n): evenly spread over the projective line, ∞
    among them. The usual 0, ±1, ±2, ±1/2 lose two to three times as much to rounding (EXPERIMENTS.md).
    """
    tile = min(range(1, _LARGEST_TILE + 1), key=lambda tile: (-(-outputs // tile) * (tile + 2), tile))
    points = tile + 2
    angles = torch.arange(points, dtype=torch.float64) * (torch.pi / points)

    def evaluate(length: int) -> Tensor:  # of polynomials with so many coefficients, at each point
        degrees = torch.arange(length)
        return angles.sin()[:, None] ** degrees.flip(0) * angles.cos()[:, None] ** degrees

    back, kernel, forth = evaluate(tile), evaluate(3), torch.linalg.inv(evaluate(points)).t()
    reads, writes = [], []
    for start in range(0, outputs, tile):
        first, last = max(0, start - 1), min(size, start + tile + 1)
        reads.append(_Piece(slice(first, last), forth[:, first - start + 1 : last - start + 1].float()))
        last = min(outputs, start + tile)
        writes.append(_Piece(slice(start, last), back[:, : last - start].float()))
    return _Side(reads, writes, kernel.float())


def _along_both(down: Tensor, across: Tensor, weights: Tensor) -> Tensor:
    """`(h, w, C, O)` times `(y, h)` along the first axis and `(x, w)` along the second: `(y, x, C, O)`."""
    half = (down @ weights.flatten(1)).view(len(down), across.shape[1], -1)
    return torch.bmm(across.expand(len(down), -1, -1), half).view(-1, len(across), *weights.shape[2:])


def _read(pixels: Tensor, down: _Piece, across: list[_Piece], tiles: Tensor) -> None:
    """One row of tiles of `(H, W, N, C)` pixels into `(points down · across, tiles · N, C)`.

    A row of tiles at a time, so that what comes between stays in the caches.
    """
    half = (down.matrix @ pixels[down.place].flatten(1)).view(len(down.matrix), pixels.shape[1], -1)
    out = tiles.view(len(half), -1, len(across), half.shape[2])
    for number, piece in enumerate(across):
        torch.bmm(piece.matrix.expand(len(half), -1, -1), half[:, piece.place], out=out[:, :, number])


def _write(tiles: Tensor, down: _Piece, across: list[_Piece], pixels: Tensor, add: bool = False) -> None:
    """The transpose of `_read`: into the pixels, or added to them where pieces overlap."""
    beta, width = int(add), pixels.shape[1]
    given = tiles.view(len(down.matrix), -1, len(across), pixels[0, 0].numel())
    half = (torch.zeros if add else torch.empty)(len(given), width, given.shape[3])
    for number, piece in enumerate(across):
        matrices = piece.matrix.t().expand(len(given), -1, -1)
        half[:, piece.place].baddbmm_(matrices, given[:, :, number], beta=beta)
    pixels[down.place].flatten(1).addmm_(down.matrix.t(), half.flatten(1), beta=beta)
