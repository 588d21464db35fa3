"""From files to pixels: every picture is decoded once."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fovea.data.types import FileFact, FileFacts, Picture, RawSplit, Split
from fovea.errors import DataError

# What Pillow raises for a file that is no image, is cut short, or would unpack to gigabytes.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode_split(raw: RawSplit, size: tuple[int, int], facts: FileFacts, tick: Callable[[], None]) -> Split:
    """The split's pictures as `(N, 3, *size) uint8`, without those that cannot be decoded, which `facts` lists.

    A split that came as an array stays as it is. `tick` is called after each picture.
    """
    labels = torch.tensor(list(raw.labels), dtype=torch.int64)
    if isinstance(raw.images, Tensor):
        height, width = raw.images.shape[2:]
        facts.sizes[(width, height)] += len(labels)
        facts.modes["L" if raw.images.shape[1] == 1 else "RGB"] += len(labels)
        return Split(raw.images, labels, tuple(raw.ids))

    pictures = raw.images
    images = torch.empty((len(pictures), 3, *size), dtype=torch.uint8)

    def work(row: int) -> FileFact | DataError:
        try:
            images[row], fact = decode_image(pictures[row], size, 3)
        except DataError as error:
            return error
        return fact

    kept = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter while it decodes
        for row, result in enumerate(pool.map(work, range(len(labels)))):
            tick()
            if isinstance(result, DataError):
                facts.skipped[raw.ids[row]] = str(result)
                continue
            kept.append(row)
            facts.sizes[(result.width, result.height)] += 1
            facts.modes[result.mode] += 1
            facts.files[raw.ids[row]] = result
    whole = Split(images, labels, tuple(raw.ids))
    return whole if len(kept) == len(labels) else whole.take(torch.tensor(kept, dtype=torch.int64))


def decode_image(picture: Picture, image_size: tuple[int, int], channels: int) -> tuple[Tensor, FileFact]:
    """Decode, turn upright and resize one picture to `(C, H, W) uint8`. Raises DataError naming the file and why."""
    try:
        data = picture.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            fact = FileFact(image.width, image.height, image.mode, hashlib.blake2b(data, digest_size=16).hexdigest())
            height, width = image_size
            image.draft("RGB" if channels == 3 else "L", (width, height))  # JPEG: decode at a smaller scale
            upright = ImageOps.exif_transpose(image)
            flat = _flatten(upright, "RGB" if channels == 3 else "L")
            fitted = (
                flat if flat.size == (width, height) else ImageOps.fit(flat, (width, height), Image.Resampling.BICUBIC)
            )
            pixels = np.asarray(fitted).reshape(height, width, channels)
    except _UNREADABLE as error:
        reason = "no image that Pillow can read" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{picture}: {reason}") from None
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), fact


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
    return image.convert(mode)
