"""3×3 convolutions with a quarter of the multiplications, for training on a CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below this product of channels the transforms cost more than they save (EXPERIMENTS.md).
_LEAST_CHANNELS, _LEAST_PRODUCT = 64, 64 * 128
# Bytes of transformed tiles worked on at a time: bounds memory; the speed hardly depends on it between 4 and 16 MB.
_CHUNK_BYTES = 8 << 20
_OUT, _TILE = 4, 6  # a tile of 6×6 input pixels gives 4×4 output pixels


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, that takes Winograd's way where that is faster: in float32 training on a CPU.

    Its state dict is that of `nn.Conv2d`; the results agree to about 1e-5 of the largest value.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, O, H, W)`."""
        if not self._winograd_pays(input):
            return super().forward(input)
        out: Tensor = _Winograd.apply(input, self.weight)
        return out if self.bias is None else out + self.bias[:, None, None]

    def _winograd_pays(self, images: Tensor) -> bool:
        channels = self.in_channels, self.out_channels
        return (
            images.device.type == "cpu"
            and images.dtype == torch.float32
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and min(channels) >= _LEAST_CHANNELS
            and channels[0] * channels[1] >= _LEAST_PRODUCT
        )


class _Winograd(torch.autograd.Function):
    """F(4×4, 3×3) of Lavin & Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), and both its gradients.

    Output tile = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, with the ⊙ summed over channels: 36 matrix products instead of 16 · 9. Each
    two-sided transform is one product with a Kronecker square. The gradients are the transposes of the same steps, so they
    cost a quarter as well; the transformed input is kept for the gradient of the weight.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        back, kernel, tile = _transforms()
        count, channels, height, width = images.shape
        out_channels = len(weight)
        down, across = -(-height // _OUT), -(-width // _OUT)
        pixels = images.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C): free where the memory format is channels_last
        weights = (kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, channels, out_channels)
        out = images.new_empty(count, down * _OUT, across * _OUT, out_channels)
        chunk = _chunk(count, down * across * max(channels, out_channels))
        kept = []
        for first in range(0, count, chunk):
            part = pixels[first : first + chunk]
            padded = F.pad(part, (0, 0, 1, across * _OUT - width + 1, 1, down * _OUT - height + 1))
            tiles = torch.mm(tile, _tiles(padded, down, across).reshape(_TILE**2, -1)).view(_TILE**2, -1, channels)
            products = torch.bmm(tiles, weights).view(_TILE**2, -1)
            done = torch.mm(back, products).view(_OUT, _OUT, len(part), down, across, out_channels)
            target = out[first : first + chunk].view(len(part), down, _OUT, across, _OUT, out_channels)
            target.copy_(done.permute(2, 3, 0, 4, 1, 5))
            kept.append(tiles)
        ctx.save_for_backward(weights, *kept)
        ctx.image_size, ctx.chunk = (height, width), chunk
        return out[:, :height, :width].permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        back, kernel, tile = _transforms()
        weights, *kept = ctx.saved_tensors
        (height, width), chunk = ctx.image_size, ctx.chunk
        channels, out_channels = weights.shape[1:]
        down, across = -(-height // _OUT), -(-width // _OUT)
        gradient = gradient.permute(0, 2, 3, 1)
        to_images = gradient.new_empty(len(gradient), height, width, channels) if ctx.needs_input_grad[0] else None
        to_weights = torch.zeros_like(weights)
        turned = weights.transpose(1, 2).contiguous()
        for number, tiles in enumerate(kept):
            place = slice(number * chunk, (number + 1) * chunk)
            part = F.pad(gradient[place], (0, 0, 0, across * _OUT - width, 0, down * _OUT - height))
            split = part.view(len(part), down, _OUT, across, _OUT, out_channels).permute(2, 4, 0, 1, 3, 5)
            products = torch.mm(back.t(), split.reshape(_OUT**2, -1)).view(_TILE**2, -1, out_channels)
            to_weights.baddbmm_(tiles.transpose(1, 2), products)
            if to_images is not None:
                spread = torch.mm(tile.t(), torch.bmm(products, turned).view(_TILE**2, -1))
                whole = _overlap_add(spread.view(_TILE, _TILE, len(part), down, across, channels))
                to_images[place] = whole[:, 1 : 1 + height, 1 : 1 + width]
        to_weight = (kernel.t() @ to_weights.view(_TILE**2, -1)).view(3, 3, channels, out_channels).permute(3, 2, 0, 1)
        return None if to_images is None else to_images.permute(0, 3, 1, 2), to_weight


@lru_cache(maxsize=1)
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Kronecker squares of Aᵀ (16, 36), G (36, 9) and Bᵀ (36, 36): Lavin & Gray, section 4.3 (points 0, ±1, ±2, ∞)."""
    back = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    kernel = [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]  # fmt: skip
    tile = [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip
    small = [torch.tensor(matrix, dtype=torch.float64) for matrix in (back, kernel, tile)]
    a, g, b = [torch.kron(matrix, matrix).float() for matrix in small]
    return a, g, b


def _chunk(count: int, floats_per_image: int) -> int:
    """Images worked on at a time."""
    return max(1, min(count, _CHUNK_BYTES // (4 * _TILE**2 * floats_per_image)))


def _tiles(padded: Tensor, down: int, across: int) -> Tensor:
    """Overlapping 6×6 tiles, 4 pixels apart, of `(N, H, W, C)`, as a `(6, 6, N, down, across, C)` view."""
    image, row, column, channel = padded.stride()
    shape = (_TILE, _TILE, len(padded), down, across, padded.shape[3])
    return padded.as_strided(shape, (row, column, image, _OUT * row, _OUT * column, channel))


def _overlap_add(tiles: Tensor) -> Tensor:
    """The transpose of `_tiles`: where tiles overlap they are added; `(N, 4 down + 4, 4 across + 4, C)`."""
    _, _, count, down, across, channels = tiles.shape
    whole = tiles.new_zeros(count, down + 1, _OUT, across + 1, _OUT, channels)
    cuts = ((slice(0, _OUT), 0), (slice(_OUT, _TILE), 1))  # a tile's own pixels, and its halo over the next
    for rows, below in cuts:
        for columns, right in cuts:
            part = tiles[rows, columns]
            place = whole[:, below : below + down, : part.shape[0], right : right + across, : part.shape[1]]
            place += part.permute(2, 3, 0, 4, 1, 5)
    return whole.view(count, (down + 1) * _OUT, (across + 1) * _OUT, channels)
