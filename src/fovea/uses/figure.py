"""What all pictures share: colours, style, fonts, and an atomic save."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from fovea import files

BLUE, ORANGE, RED, GREEN, GREY = "#2563a8", "#d97706", "#c0392b", "#2e7d4f", "#6b7280"
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e7eb",
    "axes.axisbelow": True, "axes.edgecolor": "#9ca3af", "axes.labelcolor": "#374151", "xtick.color": "#374151",
    "ytick.color": "#374151", "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
    "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 160,
}  # fmt: skip

# Fonts for class names in other scripts, of Linux, macOS and Windows; those that are installed are used.
_OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip


def style() -> dict[Any, Any]:
    """Settings for matplotlib's rc_context."""
    installed = {font.name for font in fontManager.ttflist}
    return {**_STYLE, "font.family": ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    data = io.BytesIO()
    with _quiet_about_fonts():
        figure.savefig(data, format="png")
    files.write_bytes(path, data.getvalue())


@contextlib.contextmanager
def _quiet_about_fonts() -> Iterator[None]:
    """A letter that no font has is drawn as a box, and the report's text shows it all the same: no word about it."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            yield
    finally:
        logger.setLevel(level)
