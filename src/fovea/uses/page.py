"""What all pages share: their templates, and pictures inside them, so that a page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

_CSS_PIXELS = 0.58  # per pixel of a plot: its type comes out as large as the page's


def render(template: str, **values: Any) -> str:
    """The page that a file in templates/ makes of some values; a value that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fovea"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["span"] = lambda ends: f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f} %"
    return environment.get_template(template).render(**values)


def embedded(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """By stem, each PNG as a data URI with its width in CSS pixels."""
    pictures = {}
    for path in sorted(paths):
        data = path.read_bytes()
        width = int.from_bytes(data[16:20], "big")  # of the PNG's header
        pictures[path.stem] = {"uri": data_uri(data, "png"), "width": round(width * _CSS_PIXELS)}
    return pictures


def data_uri(data: bytes, kind: str) -> str:
    """A picture inside a page; `kind` is png or jpeg."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
