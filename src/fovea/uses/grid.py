"""Grids of captioned images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fovea.uses.figure import GREEN, RED, save, style

COLUMNS = 8
_INK = "#1f2937"
_LETTER = 0.062  # inches, of a caption: a mean letter of DejaVu Sans at 8 points
_GROUP_TITLE = 34  # letters of a line above a group of three pictures


@dataclass(frozen=True)
class Group:
    """Pictures that stand together under a title."""

    title: str
    images: Tensor  # (N, C, H, W) uint8; none where N is 0
    captions: Sequence[str]
    wrong: bool


def draw_images(
    path: Path, images: Tensor, captions: Sequence[str], title: str, wrong: Sequence[bool] | None = None,
    columns: int = COLUMNS,
) -> None:  # fmt: skip
    """A grid of pictures with a caption each; wrong ones framed and captioned in red.

    All pictures share one axes, in units of a picture's height: an axes for each would take seconds to draw.

    Args:
        images: `(N, C, H, W) uint8`.
    """
    columns = min(columns, len(images))
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
            color = None if wrong is None else RED if wrong[position] else GREEN
            letters = int(width / height * inches / _LETTER)
            _paint(axes, image, left, top, "\n".join(_cut(text, letters) for text in caption.split("\n")), color)
        axes.set(xlim=(0, total), ylim=(rows * down, -0.3))
        save(figure, path)


def draw_groups(path: Path, rows: Sequence[Sequence[Group]], title: str) -> None:
    """A row of groups of at most three pictures each."""
    height, width = next(group.images.shape[2:] for row in rows for group in row if len(group.images))
    gap, above = 0.08, 0.75  # above each row: two lines of title, and a line of captions
    across, down = width / height + gap, 1 + gap + above
    between = 0.25 * across
    total = max(len(row) for row in rows) * (3 * across + between)
    inches = 10 / total
    with mpl.rc_context(style()):
        figure = Figure(figsize=(10, (len(rows) * down + 0.35) * inches))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(gap / 2, -0.14, title, fontsize=11, va="center")
        for line, row in enumerate(rows):
            for place, group in enumerate(row):
                start, top = place * (3 * across + between) + gap / 2, line * down + above
                heading = "\n".join(textwrap.wrap(group.title, _GROUP_TITLE)[:2])
                axes.text(start, top - 0.22, heading, fontsize=8, va="bottom", color=RED if group.wrong else _INK)
                for position, (image, caption) in enumerate(zip(group.images, group.captions, strict=True)):
                    _paint(axes, image, start + position * across, top, caption, RED if group.wrong else GREEN)
        axes.set(xlim=(0, total), ylim=(len(rows) * down, -0.35))
        save(figure, path)


def _cut(line: str, letters: int) -> str:
    """As much of a line as there is room for; the probability at its end stays."""
    if len(line) <= letters:
        return line
    start, bracket, end = line.rpartition(" (")
    kept = letters - len(bracket + end) - 1
    return f"{start[:kept]}…{bracket}{end}" if bracket and kept > 3 else f"{line[: letters - 1]}…"


def _paint(axes: Axes, image: Tensor, left: float, top: float, caption: str, frame: str | None) -> None:
    """A picture one unit high, its caption above it, in a frame; what is wrong has its caption in red, too."""
    pixels = image.permute(1, 2, 0).numpy()
    width = pixels.shape[1] / pixels.shape[0]
    axes.imshow(
        pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels, interpolation="nearest",
        extent=(left, left + width, top + 1, top), aspect="auto",
    )  # fmt: skip
    axes.text(left + width / 2, top - 0.03, caption, fontsize=8, ha="center", va="bottom",
              color=RED if frame == RED else _INK, linespacing=1.05)  # fmt: skip
    if frame is not None:
        edge = Rectangle((left, top), width, 1, fill=False, linewidth=2.5)
        edge.set_edgecolor(frame)
        axes.add_patch(edge)
