"""Images that are unlike all others: in size, shape, brightness, contrast, sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fovea.uses.health.album import Album, Measures
from fovea.uses.health.finding import Finding

_FAR = 6.0  # robust standard deviations from the median; of normal values, 2 in 10^9
_MAD = 1.4826  # times the median absolute deviation: the standard deviation of normal values
_MOST = 0.02  # of all images: what is more frequent than that is a kind, not an outlier
ONE_COLOUR = 0.5 / 255  # contrast below which an image holds nothing


def check_outliers(album: Album, measures: Measures) -> list[Finding]:
    """One finding for each quantity, and one for images of a single colour."""
    flat = measures.contrast < ONE_COLOUR
    found = _one_colour(album, flat)
    show: Callable[[float], str]
    # Logarithms, and the logit of what lies between 0 and 1: on these scales most sets are nearly symmetric.
    pixels = [
        ("brightness", measures.brightness.logit(0.002), 0.1, lambda v: f"{100 / (1 + math.exp(-v)):.0f} % bright", "darker or brighter"),
        ("contrast", measures.contrast.clamp_min(0.002).log2(), 0.1, lambda v: f"{100 * 2**v:.1f} % contrast", "paler or harsher"),
        ("sharpness", measures.sharpness.clamp_min(1e-4).log2(), 0.2, lambda v: f"sharpness {2**v:.2g}", "more blurred or noisier"),
    ]  # fmt: skip
    for kind, values, least, show, words in pixels:
        found += _far(album, kind, values, least, show, words, torch.arange(len(album)), ~flat)
    rows, width, height = _file_sizes(album)
    if len(rows):
        size = (width * height).log2()
        shape = (width / height).log2()
        found += _far(album, "size", size, 0.3, lambda v: f"{2**v / 1e6:.3g} megapixels", "smaller or larger", rows)
        found += _far(album, "aspect ratio", shape, 0.1, lambda v: f"{2**v:.2f} : 1", "taller or wider", rows)
    return found


def _one_colour(album: Album, flat: Tensor) -> list[Finding]:
    rows = flat.nonzero().flatten().tolist()
    if not rows:
        return []
    text = (
        f"{_images(len(rows))} of a single colour: nothing can be learned from {'it' if len(rows) == 1 else 'them'}; "
        f"remove {'it' if len(rows) == 1 else 'them'}, or mend what made {'it' if len(rows) == 1 else 'them'}"
    )
    return [Finding("single colour", "warning", text, [(album.seen(row, "a single colour"),) for row in rows])]


def _far(
    album: Album, kind: str, values: Tensor, least: float, show: Callable[[float], str], words: str, rows: Tensor,
    counted: Tensor | None = None,
) -> list[Finding]:  # fmt: skip
    """Values far from the median in units of the usual distance from it, which is taken to be `least` at least."""
    kept = torch.ones(len(values), dtype=torch.bool) if counted is None else counted
    if not kept.any():
        return []
    median = values[kept].median()
    spread = max(_MAD * float((values[kept] - median).abs().median()), least)
    z = (values - median) / spread
    far = ((z.abs() > _FAR) & kept).nonzero().flatten()
    if not len(far) or len(far) > max(1, _MOST * len(values)):
        return []
    far = far[z[far].abs().argsort(descending=True, stable=True)]
    text = (
        f"{_images(len(far))} far {words} than the others (median {show(float(median))}): look whether "
        f"{'it belongs' if len(far) == 1 else 'they belong'} to the set, and whether something broke on the way"
    )
    groups = [
        (album.seen(int(rows[at]), show(float(values[at])), value=round(float(values[at]), 4), z=round(float(z[at]), 1)),)
        for at in far.tolist()
    ]  # fmt: skip
    return [Finding(f"outliers in {kind}", "note", text, groups)]


def _file_sizes(album: Album) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, widths and heights of the pictures that came from files."""
    files = album.dataset.facts.files
    known = [(row, files[name].width, files[name].height) for name, row in album.rows.items() if name in files]
    table = torch.tensor(known, dtype=torch.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1].float(), table[:, 2].float()


def _images(number: int) -> str:
    return "1 image is" if number == 1 else f"{number:,} images are"
