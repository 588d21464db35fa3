"""3×3 convolutions with a third to a sixth of the multiplications, for training on a CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fovea.models.pixels_first import images_first, pixels_first

if TYPE_CHECKING:
    from fovea.models.tiles import Kernels

# Below this product of channels the transforms cost more than they save (EXPERIMENTS.md).
_LEAST_PRODUCT = 24 * 32
_FEWEST_IMAGES = 32  # below it, without gradients, transforming the weights costs more than is saved (EXPERIMENTS.md)
_ENOUGH_ROWS = 500  # of a matrix product, to run at full speed; more only take room in the caches (EXPERIMENTS.md)


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, that takes Winograd's way where that is faster: on a CPU.

    With `pool`, only the largest of every 2×2 of its results come out; an odd last row or column is left out. Its state
    dict is that of `nn.Conv2d`. The results are float32, agree to some 2e-5 of their root mean square, and lie in memory as
    fovea.models.pixels_first says. Under bfloat16 autocast the products, and they alone, are of bfloat16: the results agree to
    1.4e-2 (direct convolutions: 3e-3).
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False, pool: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.pool = pool
        self._kept: dict[Any, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, H, W)`, pooled `(B, O, H // 2, W // 2)`."""
        if not self._winograd_pays(input):
            out = super().forward(input)
            return F.max_pool2d(out, 2) if self.pool else out
        half = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            pixels = pixels_first(input.float())
            out = images_first(_Winograd.apply(pixels, self.weight, self.pool, half, self._kept))
        # The same for every pixel: the largest stays the largest.
        return out if self.bias is None else out + self.bias[:, None, None]

    def _winograd_pays(self, images: Tensor) -> bool:
        return (
            images.device.type == "cpu"
            and (images.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))
            and _has_llvm()
            and not torch.compiler.is_compiling()  # what is exported are plain convolutions
            and (torch.is_grad_enabled() or len(images) >= _FEWEST_IMAGES)
            and self.in_channels * self.out_channels >= _LEAST_PRODUCT
            and not (self.pool and min(images.shape[2:]) < 2)  # torch refuses what is too small
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


@lru_cache(maxsize=1)
def _has_llvm() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


class _Winograd(torch.autograd.Function):
    """Lavin & Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), and both gradients.

    Along a side, m outputs are Aᵀ[(G g) ⊙ (Bᵀ d)] of a kernel g and m + 2 inputs d. Along both, (m + 2)² products stand for
    9 m², and with channels each is a product of matrices. The gradients are the transposes of the same steps, so they cost
    as little.
    """

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, weight: Tensor, pool: bool, half: bool, kept: dict[Any, Tensor] | None
    ) -> Tensor:
        way = _Way(pixels.shape, pool, half)
        key = (id(weight), way.key)
        weights = (kept or {}).get(key)
        if weights is None:
            weights = way.weights(weight)
            weights = weights if kept is None else kept.setdefault(key, weights)  # another thread may have been first
        out = pixels.new_empty(*way.size, pixels.shape[2], len(weight))
        chosen = torch.empty_like(out, dtype=torch.uint8) if pool else None
        for rows in way.chunks:
            tiles = way.gather(pixels, rows)
            way.kernels.collect(torch.bmm(tiles, weights), out, chosen, rows, way.columns)
        ctx.save_for_backward(pixels, weights, chosen)
        ctx.way = way
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        pixels, weights, chosen = ctx.saved_tensors
        way: _Way = ctx.way
        gradient = gradient.contiguous()
        to_pixels = torch.zeros_like(pixels) if ctx.needs_input_grad[0] else None
        to_weights = torch.zeros(weights.shape)
        for rows in way.chunks:
            tiles = way.gather(pixels, rows)  # once more: as quick as to keep them, in half of the memory
            products = way.empty(rows, weights.shape[2])
            way.kernels.spread(gradient, chosen, products, rows, way.columns)
            to_weights += torch.bmm(tiles.transpose(1, 2), products)
            if to_pixels is not None:
                torch.bmm(products, weights.transpose(1, 2), out=tiles)
                way.kernels.add(tiles, to_pixels, rows, way.columns)
        return to_pixels, way.to_weight(to_weights), None, None, None


class _Way:
    """How the outputs for `(H, W, N, C)` pixels are cut into tiles, and in which pieces they are worked out."""

    def __init__(self, shape: torch.Size, pool: bool, half: bool) -> None:
        from fovea.models import tiles  # llvmlite is loaded where it is used, and a GPU can do without

        # What a pooling would not read is not worked out.
        height, width = (side // 2 * 2 if pool else side for side in shape[:2])
        self.size = (height // 2, width // 2) if pool else (height, width)
        down, across = (tiles.best_tile(side, half, pool) for side in (height, width))
        self.key = (down, across, half, pool)
        self.kernels: Kernels = tiles.kernels(*self.key)
        self.columns = -(-width // across)
        self._down, self._across = (torch.from_numpy(tiles.points(tile).kernel).float() for tile in (down, across))
        self._count, self._dtype = shape[2], torch.bfloat16 if half else torch.float32
        num_rows = -(-height // down)
        step = -(-_ENOUGH_ROWS // (self.columns * self._count))
        self.chunks = [range(start, min(num_rows, start + step)) for start in range(0, num_rows, step)]

    def empty(self, rows: range, channels: int) -> Tensor:
        """`(points, tiles of these rows · N, channels)`."""
        shape = len(self._down) * len(self._across), len(rows) * self.columns * self._count, channels
        return torch.empty(shape, dtype=self._dtype)

    def gather(self, pixels: Tensor, rows: range) -> Tensor:
        """The tiles of these rows."""
        tiles = self.empty(rows, pixels.shape[3])
        self.kernels.gather(pixels, tiles, rows, self.columns)
        return tiles

    def weights(self, weight: Tensor) -> Tensor:
        """`(O, C, 3, 3)` to `(points, C, O)`."""
        at_points = _along_both(self._down, self._across, weight.permute(2, 3, 1, 0).contiguous())
        return at_points.flatten(0, 1).to(self._dtype)

    def to_weight(self, gradient: Tensor) -> Tensor:
        """The transpose of `weights`."""
        sides = gradient.view(len(self._down), len(self._across), *gradient.shape[1:])
        return _along_both(self._down.t(), self._across.t(), sides).permute(3, 2, 0, 1)


def _along_both(down: Tensor, across: Tensor, weights: Tensor) -> Tensor:
    """`(h, w, C, O)` times `(y, h)` along the first axis and `(x, w)` along the second: `(y, x, C, O)`."""
    half = (down @ weights.flatten(1)).view(len(down), across.shape[1], -1)
    return torch.bmm(across.expand(len(down), -1, -1), half).view(-1, len(across), *weights.shape[2:])
