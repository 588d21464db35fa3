"""Are two images the same picture? Lay one over the other, and compare what is fine in them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_COARSE, _FINE = 16, 32  # pixels a side at which images are laid over each other, and compared
_STEPS = 5
_MOST = 0.25  # by how much a copy may be larger or smaller along a side, or its middle lie elsewhere (of half a side)
_PROMISING = 0.3  # pairs below, once laid over each other coarsely, are not laid over each other finely
_SHARE = 0.5  # of the image that both must show
_GREY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """How alike what is fine in two images is once one lies over the other, `(B,)` from -1 to 1.

    Brightness and contrast do not matter, nor a crop of some pixels. Even surfaces, which many pictures share (sky, snow),
    do not count: only what differs from its neighbourhood does.

    Args:
        first: `(B, C, H, W) uint8`.
        second: the same shape.
    """
    fixed, moving = _grey(first), _grey(second)
    start = (torch.ones(len(first), 2), torch.zeros(len(first), 2))
    scale, shift = _align(F.adaptive_avg_pool2d(fixed, _COARSE), F.adaptive_avg_pool2d(moving, _COARSE), *start)
    alike = _compare(fixed, moving, scale, shift)
    rows = (alike > _PROMISING).nonzero().flatten()
    scale, shift = _align(fixed[rows], moving[rows], scale[rows], shift[rows])
    return alike.index_put((rows,), _compare(fixed[rows], moving[rows], scale, shift).maximum(alike[rows]))


def _compare(fixed: Tensor, moving: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The correlation of what is fine, `(B,)`; 0 where hardly anything is common to both."""
    fixed, moving = _details(fixed), _details(moving)
    (rows, inside_y), (columns, inside_x) = (_resample(_FINE, scale[:, axis], shift[:, axis]) for axis in (0, 1))
    laid = rows @ moving @ columns.transpose(1, 2)
    inside = inside_y[:, :, None] * inside_x[:, None, :]
    alike = _correlation(fixed, laid, inside)
    sane = ((scale - 1).abs().amax(1) <= _MOST) & (shift.abs().amax(1) <= _MOST) & (inside.mean((1, 2)) >= _SHARE)
    return torch.where(sane, alike, torch.zeros(()))


def _grey(images: Tensor) -> Tensor:
    """`(B, C, H, W) uint8` to `(B, _FINE, _FINE) float32`."""
    grey = (images.float() * _GREY).sum(1) if images.shape[1] == 3 else images[:, 0].float()
    return F.adaptive_avg_pool2d(grey / 255, _FINE)


def _align(fixed: Tensor, moving: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift along y and x, `(B, 2)` each, by which `moving` has to be read so that it lies over `fixed`.

    In coordinates from -1 to 1. Least squares after Lucas and Kanade (1981), in the inverse form of Baker and Matthews
    (2004): its Jacobian and Hessian are computed once.
    """
    side = fixed.shape[-1]
    at = _centres(side)
    fixed, moving = _blur(fixed), _blur(moving)
    fixed = fixed - fixed.mean((1, 2), keepdim=True)
    along_y, along_x = torch.gradient(fixed, spacing=2 / side, dim=(1, 2))
    jacobian = torch.stack([along_y * at[:, None], along_x * at, along_y, along_x], 1).flatten(2)
    jacobian = jacobian - jacobian.mean(2, keepdim=True)
    hessian = jacobian @ jacobian.transpose(1, 2)
    hessian += torch.eye(4) * (1e-3 * hessian.diagonal(dim1=1, dim2=2).mean(1) + 1e-6)[:, None, None]
    solve = torch.linalg.solve(hessian, jacobian)
    for _ in range(_STEPS):
        (rows, inside_y), (columns, inside_x) = (_resample(side, scale[:, axis], shift[:, axis]) for axis in (0, 1))
        inside = inside_y[:, :, None] * inside_x[:, None, :]
        num = inside.sum((1, 2), keepdim=True).clamp_min(1)
        laid = rows @ moving @ columns.transpose(1, 2)
        laid = (laid - (laid * inside).sum((1, 2), keepdim=True) / num) * inside
        wanted = (fixed - (fixed * inside).sum((1, 2), keepdim=True) / num) * inside
        gain = (laid * wanted).sum((1, 2)) / laid.square().sum((1, 2)).clamp_min(1e-6)
        step = (solve @ (gain[:, None, None] * laid - wanted).flatten(1)[:, :, None]).squeeze(2)
        scale = (scale / (1 + step[:, :2]).clamp(0.5, 2)).clamp(0.5, 2)
        shift = (shift - scale * step[:, 2:]).clamp(-1, 1)
    return scale, shift


def _resample(side: int, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """`(B, side, side)`: linear interpolation at `scale * at + shift` along one axis; `(B, side)`: 1 inside, 0 beyond."""
    wanted = scale[:, None] * _centres(side) + shift[:, None]
    pixel = ((wanted + 1) * side - 1) / 2
    weights = (1 - (pixel.clamp(0, side - 1)[:, :, None] - torch.arange(side)).abs()).clamp_min(0)
    return weights, (wanted.abs() <= 1).float()


def _centres(side: int) -> Tensor:
    return (2 * torch.arange(side) + 1) / side - 1


def _blur(images: Tensor) -> Tensor:
    """By 1, 2, 1 along both sides."""
    side = images.shape[-1]
    at = torch.arange(side)
    kernel = torch.zeros(side, side)
    for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        kernel.index_put_((at, (at + offset).clamp(0, side - 1)), torch.tensor(weight), accumulate=True)
    return kernel @ images @ kernel.T


def _details(images: Tensor) -> Tensor:
    return images - _blur(_blur(images))


def _correlation(first: Tensor, second: Tensor, inside: Tensor) -> Tensor:
    num = inside.sum((1, 2), keepdim=True).clamp_min(1)
    first = (first - (first * inside).sum((1, 2), keepdim=True) / num) * inside
    second = (second - (second * inside).sum((1, 2), keepdim=True) / num) * inside
    norm = first.square().sum((1, 2)) * second.square().sum((1, 2))
    return (first * second).sum((1, 2)) / norm.sqrt().clamp_min(1e-6)
