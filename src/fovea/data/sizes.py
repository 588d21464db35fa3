"""Which size pictures are decoded to, where nobody says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from fovea.data.types import Picture

SIZES = (32, 64, 96, 128, 160, 224)
_SAMPLE = 1000  # pictures whose headers are read
_QUANTILE = 0.1  # of the shorter sides: so many pictures may have to be enlarged
# What a CPU trains in minutes: an epoch of at most 164 million pixels, three times those of CIFAR-10. For few pictures,
# the number of steps rather than of pictures decides, and 128 pixels are where a step still takes about a second.
_LARGEST = 128
_SMALLEST_LIMIT = 64  # any less shows little of a photograph
_EPOCH_PIXELS = 10_000 * 128**2


def choose_size(pictures: Sequence[Picture]) -> tuple[int, str]:
    """The side in pixels, and one line that says why. Reads headers only."""
    step = max(1, -(-len(pictures) // _SAMPLE))
    with ThreadPoolExecutor() as pool:
        sides = sorted(side for side in pool.map(_shorter_side, pictures[::step]) if side)
    if not sides:
        return SIZES[0], f"image size {SIZES[0]}: no picture tells its size"
    low = sides[int(_QUANTILE * len(sides))]
    limit = max(
        [_SMALLEST_LIMIT] + [s for s in SIZES if s <= _LARGEST and len(pictures) * s**2 <= _EPOCH_PIXELS],
    )
    size = max([SIZES[0]] + [s for s in SIZES if s <= min(low, limit)])
    why = f"nine of ten pictures are at least {low} pixels on their shorter side"
    if low > limit and size == limit:
        why += f", and {limit} is what a CPU trains in good time with {len(pictures):,} of them"
    return size, f"image size {size}: {why}; --image-size overrides that"


def _shorter_side(picture: Picture) -> int:
    """0 where the header cannot be read: decoding says why."""
    try:
        with Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture.read_bytes())) as image:
            side: int = min(image.size)
            return side
    except Exception:  # Pillow raises many kinds
        return 0
