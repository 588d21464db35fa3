"""One self-contained page about a data set: what is wrong with it, with pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fovea import __version__, files
from fovea.uses.health.album import Album
from fovea.uses.health.finding import Finding, counted
from fovea.uses.page import data_uri, embedded, render

_GROUPS, _MEMBERS = 24, 8  # shown with pictures, of a finding and of a group
_NAMED = 500  # groups of a finding that the page names; inspect.json has all
_SIDE = 128  # pixels of a thumbnail at most
_COARSE = 64  # images up to so many pixels are shown pixel by pixel


def write_page(
    path: Path, album: Album, facts: dict[str, Any], findings: Sequence[Finding], pictures: Sequence[Path]
) -> None:
    """Write inspect.html.

    Args:
        facts: what `inspect_data` returns.
        pictures: PNGs to embed.
    """
    page = render(
        "inspect.html", facts=facts, findings=findings, counted=counted(findings), thumbs=_thumbnails(album, findings),
        pictures=embedded(pictures), most_groups=_GROUPS, most_members=_MEMBERS, most_named=_NAMED,
        pixelated=max(album.dataset.image_size) <= _COARSE, version=__version__, now=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip
    files.write_text(path, page)


def _thumbnails(album: Album, findings: Sequence[Finding]) -> dict[int, str]:
    """A data URI for each row of the album that the page shows."""
    shown = [group[:_MEMBERS] for finding in findings for group in finding.groups[:_GROUPS]]
    rows = sorted({seen.row for group in shown for seen in group if seen.row is not None})
    thumbs = {}
    for row in rows:
        pixels = album.pick(torch.tensor([row]))[0].permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((_SIDE, _SIDE))
        data = io.BytesIO()
        if max(image.size) <= _COARSE:
            image.save(data, "png", optimize=True)
        else:
            image.save(data, "jpeg", quality=85)
        thumbs[row] = data_uri(data.getvalue(), "png" if max(image.size) <= _COARSE else "jpeg")
    return thumbs
