"""From files to pixels: every picture is decoded once."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fovea.data.types import FileFact, Picture
from fovea.errors import DataError

# What Pillow raises for a file that is no image, is cut short, or would unpack to gigabytes.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError)
# From 90 million pixels on, Pillow warns; from 179 million on it refuses, before any is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

GROUND = 128  # grey levels of what `pad` adds: the middle of the range
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fit:
    """How pictures become arrays of one size."""

    size: tuple[int, int]  # height, width
    channels: int = 3  # 1: grey
    resize: str = "crop"  # the shorter side, and cut the middle; pad: the longer side, on grey; squash: both


@dataclass(frozen=True)
class Decoded:
    """One picture, decoded; or why it is not."""

    digest: str  # of the file's bytes; empty where they could not be read
    pixels: Pixels | None = None  # (C, H, W)
    fact: FileFact | None = None
    error: str = ""


def decode_each(pictures: Sequence[Picture], fit: Fit) -> Iterator[Decoded]:
    """Decode in order, over all cores, a few ahead of the one that is asked for."""
    num_cores = os.cpu_count() or 1
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(num_cores) as pool:  # Pillow lets go of the interpreter while it decodes
        try:
            for picture in pictures:
                waiting.append(pool.submit(_decode_one, picture, fit))
                if len(waiting) > 8 * num_cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_one(picture: Picture, fit: Fit) -> Decoded:
    try:
        data = picture.read_bytes()
    except OSError as error:
        return Decoded("", error=error.strerror or str(error))
    digest = digest_of(data)
    try:
        pixels, width, height, mode = _decode(data, fit)
    except DataError as error:
        return Decoded(digest, error=str(error))
    return Decoded(digest, pixels, FileFact(width, height, mode, digest))


def digest_of(data: bytes) -> str:
    """A name for a file's content: equal bytes have equal ones."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def decode_image(picture: Picture, fit: Fit) -> Tensor:
    """Decode, turn upright and resize one picture to `(C, H, W) uint8`. Raises DataError naming the file and why."""
    found = _decode_one(picture, fit)
    if found.pixels is None:
        raise DataError(f"{picture}: {found.error}")
    return torch.from_numpy(found.pixels)


def _decode(data: bytes, fit: Fit) -> tuple[Pixels, int, int, str]:
    """`(C, H, W)`, and the file's width, height and mode. Raises DataError saying why, but not which file."""
    if not data:
        raise DataError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height, mode = image.width, image.height, image.mode
            wanted = "RGB" if fit.channels == 3 else "L"
            image.draft(wanted, fit.size[::-1])  # JPEG: decode at a smaller scale
            ImageOps.exif_transpose(image, in_place=True)
            fitted = _fit(_flatten(image, wanted), fit)
            # By channel: several times faster than to transpose an array of triples.
            pixels = np.stack([np.asarray(channel) for channel in fitted.split()])
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels to decode ({error})") from None
    except _UNREADABLE as error:
        if isinstance(error, UnidentifiedImageError):
            raise DataError(f"no image that Pillow can read{_looks_like(data)}") from None
        raise DataError(str(error) or type(error).__name__) from None
    return pixels, width, height, mode


def _looks_like(data: bytes) -> str:
    start = data[:1000].lstrip().lower()
    return ": it is an HTML page" if start.startswith((b"<!doctype html", b"<html")) else ""


def _fit(image: Image.Image, fit: Fit) -> Image.Image:
    size = fit.size[::-1]
    if image.size == size:
        return image
    if fit.resize == "squash":
        return image.resize(size, Image.Resampling.BICUBIC)
    if fit.resize == "pad":
        ground = (GROUND,) * 3 if image.mode == "RGB" else GROUND
        return ImageOps.pad(image, size, Image.Resampling.BICUBIC, ground)
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """To `mode`: transparency onto white, 16-bit and float levels down to 8 bits."""
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image, dtype=np.float64)
        # "I;16" says how many bits there are; "I" and "F" do not, and hold 8 or 16 of them.
        top = 65535.0 if image.mode.startswith("I;16") or levels.max(initial=0) > 255 else 255.0
        image = Image.fromarray((levels.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image if image.mode == mode else image.convert(mode)
