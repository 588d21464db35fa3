"""Grids of captioned images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fovea.uses.figure import GREEN, RED, save, style

COLUMNS = 8


def draw_images(
    path: Path, images: Tensor, captions: Sequence[str], title: str, wrong: Sequence[bool] | None = None
) -> None:
    """A grid of pictures with a caption each; wrong ones framed and captioned in red.

    All pictures share one axes, in units of a picture's height: an axes for each would take seconds to draw.

    Args:
        images: `(N, C, H, W) uint8`.
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[2:]
    lines = max(caption.count("\n") for caption in captions) + 1
    gap, line = 0.08, 0.14  # between pictures, and a line of a caption
    across, down = width / height + gap, 1 + gap + line * lines
    inches = min(1.6, 10 / (columns * across))  # for a picture's height
    total = max(columns * across, 4 / inches)  # the title needs some room even above one picture
    with mpl.rc_context(style()):
        figure = Figure(figsize=(total * inches, (rows * down + 0.3) * inches))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(gap / 2, -0.12, title, fontsize=11, va="center")
        for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
            left = position % columns * across + gap / 2
            top = position // columns * down + line * lines + 0.04
            color = "#1f2937" if wrong is None or not wrong[position] else RED
            pixels = image.permute(1, 2, 0).numpy()
            axes.imshow(
                pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels, interpolation="nearest",
                extent=(left, left + width / height, top + 1, top), aspect="auto",
            )  # fmt: skip
            axes.text(left + width / height / 2, top - 0.03, caption, fontsize=8, ha="center", va="bottom",
                      color=color, linespacing=1.05)  # fmt: skip
            if wrong is not None:
                frame = Rectangle((left, top), width / height, 1, fill=False, linewidth=2.5)
                frame.set_edgecolor(RED if wrong[position] else GREEN)
                axes.add_patch(frame)
        axes.set(xlim=(0, total), ylim=(rows * down, -0.3))
        save(figure, path)
