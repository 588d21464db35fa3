"""3×3 convolutions with a third to a sixth of the multiplications, for training on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fovea.device import has_llvm
from fovea.models.pixels_first import images_first, pixels_first
from fovea.models.vectors import LANES

if TYPE_CHECKING:
    from fovea.models.tiles import Grid, Room, Scale

# Below this product of channels the transforms cost more than they save (EXPERIMENTS.md).
_LEAST_PRODUCT = 24 * 32
_FEWEST_IMAGES = 32  # below it, without gradients, transforming the weights costs more than is saved (EXPERIMENTS.md)
_ENOUGH_ROWS = 500  # of a matrix product, to run at full speed; more only take room in the caches (EXPERIMENTS.md)


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, that takes Winograd's way where that is faster: on a CPU.

    With `pool`, only the largest of every 2×2 of its results come out; an odd last row or column is left out. Its state
    dict is that of `nn.Conv2d`. The results agree to some 2e-5 of their root mean square, and lie in memory as
    fovea.models.pixels_first says. Under bfloat16 autocast they are bfloat16, and agree to 1.4e-2 (direct convolutions: 3e-3).
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False, pool: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.pool = pool
        self._transformed: Transformed | None = None
        self._int8 = False

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, H, W)`, pooled `(B, O, H // 2, W // 2)`."""
        if not self._winograd_pays(input):
            out = super().forward(input)
            return F.max_pool2d(out, 2) if self.pool else out
        half = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            pixels = pixels_first(input.to(torch.bfloat16 if half else torch.float32))
            form = self._form(pixels)
            weights = (self._transformed or Transformed()).of(self.weight, form)
            out = images_first(_Winograd.apply(pixels, self.weight, weights, self.pool, form))
        # The same for every pixel: the largest stays the largest.
        return out if self.bias is None else out + self.bias[:, None, None]

    def has_kernels(self) -> bool:
        """Whether Winograd's way is there on a CPU, and its channels are enough for it."""
        return has_llvm() and self.in_channels * self.out_channels >= _LEAST_PRODUCT

    def _winograd_pays(self, images: Tensor) -> bool:
        return (
            images.device.type == "cpu"
            and (images.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))
            and self.has_kernels()
            and not torch.compiler.is_compiling()  # what is exported are plain convolutions
            and len(images) >= (1 if torch.is_grad_enabled() else _FEWEST_IMAGES)
            and not (self.pool and min(images.shape[2:]) < 2)  # torch refuses what is too small
        )

    def _form(self, pixels: Tensor) -> Form:
        from fovea.models.tiles import grid  # llvmlite is loaded where it is used, and a GPU can do without

        # What a pooling would not read is not worked out.
        height, width = (side // 2 * 2 if self.pool else side for side in pixels.shape[:2])
        way, with_back = self._way(), pixels.requires_grad
        return Form(grid(height, width, pixels.dtype == torch.bfloat16, self.pool, way.in_bytes), way, with_back)

    def _way(self) -> type[Multiplier]:
        if not self._int8 or self.out_channels % LANES or self.in_channels % (LANES // 2):  # sums lie in vectors
            return Plain
        from fovea.models.int8 import Bytes  # only where there is llvmlite

        return Bytes


class Form(NamedTuple):
    """What a weight is transformed to."""

    tiling: Grid
    way: type[Multiplier]
    with_back: bool  # for the gradient of the images, too


class Transformed:
    """Weights at the points, each once for all models that share it, by several threads where `run` is a pool's `map`."""

    def __init__(self, run: Callable[..., Iterable[Any]] = map) -> None:
        self._run = run
        self._found: dict[Any, Any] = {}
        self._asked: dict[Any, tuple[Tensor, Form]] = {}  # in the last block

    @contextmanager
    def once_for(self, models: Iterable[nn.Module], int8: bool = False) -> Iterator[None]:
        """Within the block weights stay as they are. With `int8`, bytes are multiplied, for which the CPU has to have the
        instruction (fovea.models.int8).
        """
        layers = [layer for model in models for layer in model.modules() if isinstance(layer, Conv3x3)]
        for layer in layers:
            layer._transformed, layer._int8 = self, int8
        try:
            # What one step asked for the next will, too: two threads would both find it lacking, and both make it.
            asked, self._asked = self._asked, {}
            largest_first = dict(sorted(asked.items(), key=lambda item: -item[1][0].numel()))
            self._found = dict(zip(largest_first, self._run(_transform, largest_first.values()), strict=True))
            yield
        finally:
            self._found = {}
            for layer in layers:
                layer._transformed, layer._int8 = None, False

    def of(self, weight: Tensor, form: Form) -> Any:
        """The `(O, C, 3, 3)` weight in this form."""
        key = id(weight), form
        self._asked[key] = weight, form
        if key not in self._found:
            self._found[key] = _transform((weight, form))
        return self._found[key]


@torch.no_grad()
def _transform(asked: tuple[Tensor, Form]) -> Any:
    weight, form = asked
    return form.way.transformed(form.tiling, weight, form.with_back)


def lay_as_gradients(model: nn.Module) -> None:
    """Put the weights of a model in that order in memory in which their gradients will come: a step is quicker (EXPERIMENTS.md)."""
    for layer in model.modules():
        if isinstance(layer, Conv3x3) and layer.has_kernels():
            layer.weight.data = layer.weight.data.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def has_int8() -> bool:
    """Whether this CPU multiplies bytes faster than anything else."""
    if not has_llvm():
        return False
    from fovea.models.products import has_vnni

    return has_vnni()


class Multiplier(Protocol):
    """How the tiles of one convolution's images are multiplied by its weight, and by the gradient of what comes out."""

    in_bytes: ClassVar[bool]
    images: Scale | None  # of bytes: what images are multiplied by
    gradient: Scale | None  # and the gradient of what comes out

    def __init__(self, tiling: Grid, weights: Any, pixels: Tensor) -> None: ...

    @staticmethod
    def transformed(tiling: Grid, weight: Tensor, with_back: bool) -> Any:
        """The weights: `(O, C, 3, 3) float32` at the points; `with_back` says whether `back` will be asked for."""

    def meet(self, pixels: Tensor, gradient: Tensor, chosen: Tensor | None) -> None:
        """From now on, products are of this gradient."""

    def room(self, rows: range, count: int, channels: int, slot: int) -> Room:
        """For tiles that will be multiplied."""

    def forth(self, tiles: Room, rows: range, count: int) -> Room:
        """The images' tiles times the weights."""

    def back(self, tiles: Room, products: Room, rows: range, count: int) -> Room:
        """The gradient's tiles times the weights; the images' tiles are done with."""

    def to_weight(self, tiles: Room, products: Room) -> list[Tensor]:
        """The images' tiles times the gradient's: `(points, C, O)` of each of the shares."""


class Plain:
    """The numbers as they are, float32 or bfloat16."""

    in_bytes: ClassVar[bool] = False
    images: Scale | None = None
    gradient: Scale | None = None

    def __init__(self, tiling: Grid, weights: list[Tensor], pixels: Tensor) -> None:
        self._tiling, self._weights = tiling, weights

    @staticmethod
    def transformed(tiling: Grid, weight: Tensor, with_back: bool) -> list[Tensor]:
        return tiling.at_points(weight)

    def meet(self, pixels: Tensor, gradient: Tensor, chosen: Tensor | None) -> None:
        pass

    def room(self, rows: range, count: int, channels: int, slot: int) -> Room:
        return self._tiling.room(rows, count, channels, slot)

    def forth(self, tiles: Room, rows: range, count: int) -> Room:
        products = self.room(rows, count, self._weights[0].shape[2], 1)
        for read, transformed, written in zip(tiles.tiles, self._weights, products.tiles, strict=True):
            torch.bmm(read, transformed, out=written)
        return products

    def back(self, tiles: Room, products: Room, rows: range, count: int) -> Room:
        for written, transformed, read in zip(products.tiles, self._weights, tiles.tiles, strict=True):
            torch.bmm(written, transformed.transpose(1, 2), out=read)
        return tiles

    def to_weight(self, tiles: Room, products: Room) -> list[Tensor]:
        return [torch.bmm(read.transpose(1, 2), of) for read, of in zip(tiles.tiles, products.tiles, strict=True)]


class _Winograd(torch.autograd.Function):
    """Lavin & Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), and both gradients.

    Along a side, m outputs are Aᵀ[(G g) ⊙ (Bᵀ d)] of a kernel g and m + 2 inputs d. Along both, (m + 2)² products stand for
    9 m², and with channels each is a product of matrices. The gradients are the transposes of the same steps, so they cost
    as little.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, weights: Any, pool: bool, form: Form) -> Tensor:
        tiling = form.tiling
        height, width = pixels.shape[:2]
        count, channels = pixels.shape[2:]
        size = (height // 2, width // 2) if pool else (height, width)
        out = pixels.new_empty(*size, count, len(weight))
        chosen = torch.empty_like(out, dtype=torch.uint8) if pool else None
        multiplier = form.way(tiling, weights, pixels)
        for rows in _chunks(tiling, count):
            tiles = multiplier.room(rows, count, channels, 0)
            tiling.gather(pixels, tiles, rows, multiplier.images)
            tiling.collect(multiplier.forth(tiles, rows, count), out, chosen, rows)
        ctx.save_for_backward(pixels, chosen)
        ctx.tiling, ctx.multiplier = tiling, multiplier
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        pixels, chosen = ctx.saved_tensors
        tiling: Grid = ctx.tiling
        multiplier: Multiplier = ctx.multiplier
        (count, channels), outputs = pixels.shape[2:], gradient.shape[3]
        gradient = gradient.contiguous()
        multiplier.meet(pixels, gradient, chosen)
        to_pixels = torch.empty_like(pixels) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros(3, 3, channels, outputs)
        for rows in _chunks(tiling, count):
            tiles, products = (multiplier.room(rows, count, *way) for way in ((channels, 0), (outputs, 1)))
            # Once more: as quick as to keep them, in half of the memory.
            tiling.gather(pixels, tiles, rows, multiplier.images)
            tiling.spread(gradient, chosen, products, rows, multiplier.gradient)
            tiling.add_from_points(multiplier.to_weight(tiles, products), to_weight)
            if to_pixels is not None:
                tiling.add(multiplier.back(tiles, products, rows, count), to_pixels, rows, multiplier.images)
        return to_pixels, to_weight.permute(3, 2, 0, 1), None, None, None


def _chunks(tiling: Grid, count: int) -> list[range]:
    """Rows of tiles, as many at a time as fill a matrix product."""
    num_rows = tiling.down.num_tiles
    step = -(-_ENOUGH_ROWS // (tiling.across.num_tiles * count))
    return [range(start, min(num_rows, start + step)) for start in range(0, num_rows, step)]
