"""What rotation, scale and perspective share: one bilinear resampling of a whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resample(images: Tensor, matrices: Tensor) -> Tensor:
    """Take each output pixel from where `matrices` send it; reflection fills what lies outside.

    Args:
        images: `(B, C, H, W) float32`.
        matrices: `(B, 3, 3)`, homogeneous, from output to input coordinates in pixels around the centre.
    """
    count, _, height, width = images.shape
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    points = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(x).expand(height, width)]
    )
    moved = matrices @ points.reshape(1, 3, -1).expand(count, 3, -1)
    # To grid_sample's coordinates: -1 and 1 are the outer edges of the image.
    half = torch.tensor([width / 2, height / 2], device=images.device).view(1, 2, 1)
    grid = (moved[:, :2] / moved[:, 2:] / half).permute(0, 2, 1).reshape(count, height, width, 2)
    # Resampling averages, and so keeps the range; rounding may leave it by a last bit.
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp_(0, 1)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """`(count,)` random numbers, on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
