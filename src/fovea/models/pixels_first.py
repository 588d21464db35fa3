"""Layers for activations that lie in memory pixel by pixel, all images of a batch side by side: `(H, W, B, C)`.

Winograd's convolution leaves them so (fovea.models.winograd), as then each of its steps goes over
whole rows of B·C numbers, with nothing to gather. To the outside their shape stays `(B, C, H, W)`: only the strides differ.
"""

from __future__ import annotations

from torch import Tensor, nn


def pixels_first(images: Tensor) -> Tensor:
    """`(B, C, H, W)` as contiguous `(H, W, B, C)`: a view where they lie so already."""
    return images.permute(2, 3, 0, 1).contiguous()


def images_first(pixels: Tensor) -> Tensor:
    """`(H, W, B, C)` as `(B, C, H, W)`: always a view."""
    return pixels.permute(2, 3, 0, 1)


def lies_pixels_first(images: Tensor) -> bool:
    """Whether `pixels_first` of `(B, C, H, W)` would be a view."""
    return images.permute(2, 3, 0, 1).is_contiguous()


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that leaves the order in memory as it is."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        if not lies_pixels_first(input):
            return super().forward(input)
        pixels = pixels_first(input)
        rows = super().forward(pixels.view(-1, pixels.shape[3], 1, 1))
        return images_first(rows.view_as(pixels))
