"""Decoded pictures, kept outside the user's folders and mapped from there: found again by content and settings.

decoded/<key>/pixels           (N, C, H, W) uint8
decoded/<key>/facts.json       of each picture: width, height, mode and digest, or why it cannot be decoded
decoded/<key>/entry.json       for whom: data set, number of pictures, size; its time of change is its last use
decoded/<key>/seen-<files>     these files, by path, size and time of change, hold what the entry holds
decoded/.<random>.part/        being written; put in place in one step

The key follows from the bytes of all files and from the settings, so a copied or moved folder is found again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from fovea import files
from fovea.config import cache_dir
from fovea.data.decode import Decoded, Fit, decode_each, digest_of
from fovea.data.types import FileFact, Picture
from fovea.errors import DataError

FORMAT = 1  # raised when pictures are decoded otherwise than before
_LEFT_BEHIND = 3600  # seconds without a change after which nobody writes a .part any more
_SHARE_OF_DISK = 0.2  # that entries may take before those that were not used for longest go
_NO_ROOM = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG")}
Tick = Callable[[], None]


@dataclass(frozen=True)
class Stored:
    """All pictures in one store, `(N, C, H, W) uint8`, and what was found of each; zeros where there is an error."""

    store: Tensor
    found: list[FileFact | str]  # a text: why it cannot be decoded


@dataclass(frozen=True)
class Entry:
    """What `fovea cache list` shows."""

    key: str
    name: str
    num_pictures: int
    image_size: list[int]
    resize: str
    num_bytes: int
    last_used: float  # seconds since 1970


def load_pictures(pictures: Sequence[Picture], fit: Fit, name: str, tick: Tick, note: Callable[[str], None]) -> Stored:
    """The decoded pictures, mapped from the cache; decoded into it where they are not there yet.

    Args:
        name: whose pictures they are, for `fovea cache list`.
        tick: called for each picture that is decoded.
        note: told, in one line, where the cache cannot be used; the pictures are then held in memory.

    Raises DataError where the cache's disk is full.
    """
    if not pictures:
        return Stored(torch.empty((0, fit.channels, *fit.size), dtype=torch.uint8), [])
    folder = _folder()
    settings = {"format": FORMAT, "pillow": PIL.__version__, "channels": fit.channels, "resize": fit.resize,
                "image_size": list(fit.size), "num_pictures": len(pictures)}  # fmt: skip
    seen, source_bytes = _signature(pictures, settings)
    found = _find(folder, pictures, settings, seen, source_bytes)
    if found is not None:
        return found
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        part.mkdir(parents=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _full(folder, error) from None
        note(f"the cache {folder} cannot be written ({error.strerror}): decoded in memory, and anew each time")
        return _in_memory(pictures, fit, tick)
    try:
        shape = (len(pictures), fit.channels, *fit.size)
        free = shutil.disk_usage(folder).free
        if free < np.prod(shape):
            raise OSError(errno.ENOSPC, f"{_size(int(np.prod(shape)))} needed, {_size(free)} free")
        key = _write(part, pictures, fit, settings, {"name": name, "source_bytes": source_bytes}, seen, tick)
        if _open(folder / key) is None:
            with contextlib.suppress(OSError):  # another process was first with the same
                part.rename(folder / key)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _full(folder, error) from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _tidy(folder, keep=key)
    stored = _open(folder / key)
    if stored is None:
        raise DataError(f"{folder / key} was removed while it was in use: start again")
    if stored.store.numel() >= 1e8:
        note(
            f"decoded {len(pictures):,} pictures into the cache: {_size(stored.store.numel())}; see `fovea cache list`"
        )
    return stored


def entries() -> list[Entry]:
    """What the cache holds, the last used first."""
    found = []
    for path in _entry_folders(_folder()):
        value, pixels = _json(path / "entry.json"), path / "pixels"
        if isinstance(value, dict) and pixels.is_file():
            named = {k: value[k] for k in ("name", "num_pictures", "image_size", "resize")}
            num_bytes = sum(file.stat().st_size for file in path.iterdir())
            found.append(
                Entry(path.name, **named, num_bytes=num_bytes, last_used=(path / "entry.json").stat().st_mtime)
            )
    return sorted(found, key=lambda entry: entry.last_used, reverse=True)


def clear() -> int:
    """Remove everything that was decoded; returns the bytes that this freed."""
    folder = _folder()
    freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    for path in [*_entry_folders(folder), *folder.glob(".*.part")]:
        _remove(path)
    return freed


def _folder() -> Path:
    return Path(cache_dir()).expanduser() / "decoded"


def _find(
    folder: Path, pictures: Sequence[Picture], settings: dict[str, Any], seen: str, source_bytes: int
) -> Stored | None:
    """By the files' names, sizes and times; else by their bytes, where an entry may hold the same."""
    for path in _entry_folders(folder):
        if (path / f"seen-{seen}").exists() and (stored := _open(path)) is not None:
            return stored
    wanted = {**settings, "source_bytes": source_bytes}
    like = [p for p in _entry_folders(folder) if _has(_json(p / "entry.json"), wanted)]
    if not like:
        return None
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, pictures))
    path = folder / _key(settings, digests)
    stored = _open(path) if path in like else None
    if stored is not None and all(digests):
        with contextlib.suppress(OSError):  # a cache that can only be read
            (path / f"seen-{seen}").touch()
    return stored


def _write(
    part: Path, pictures: Sequence[Picture], fit: Fit, settings: dict[str, Any], more: dict[str, Any], seen: str, tick: Tick
) -> str:  # fmt: skip
    """Fill the folder `part`; returns the key of what it holds."""
    digests, found = [], []
    blank = bytes(fit.channels * fit.size[0] * fit.size[1])
    with (part / "pixels").open("wb") as file:
        for one in _ticking(decode_each(pictures, fit), tick):
            file.write(blank if one.pixels is None else one.pixels.data)
            digests.append(one.digest)
            found.append(one.error if one.fact is None else list(astuple(one.fact)))
        file.flush()
        os.fsync(file.fileno())
    files.write_json(part / "facts.json", found)
    files.write_json(part / "entry.json", {**settings, **more})
    if all(digests):  # who cannot read a file today may be able to tomorrow
        (part / f"seen-{seen}").touch()
    return _key(settings, digests)


def _in_memory(pictures: Sequence[Picture], fit: Fit, tick: Tick) -> Stored:
    store = torch.zeros((len(pictures), fit.channels, *fit.size), dtype=torch.uint8)
    found: list[FileFact | str] = []
    for row, one in enumerate(_ticking(decode_each(pictures, fit), tick)):
        if one.pixels is not None:
            store[row] = torch.from_numpy(one.pixels)
        found.append(one.fact or one.error)
    return Stored(store, found)


def _open(path: Path) -> Stored | None:
    """The entry, mapped read-only; None, and it is removed, where it is damaged."""
    entry, facts, pixels = _json(path / "entry.json"), _json(path / "facts.json"), path / "pixels"
    try:
        shape = (entry["num_pictures"], entry["channels"], *entry["image_size"])
        if pixels.stat().st_size != np.prod(shape) or len(facts) != shape[0]:
            raise ValueError("cut short")
        found = [fact if isinstance(fact, str) else FileFact(*fact) for fact in facts]
        mapped = np.memmap(pixels, np.uint8, "r", shape=shape)
    except (OSError, KeyError, TypeError, ValueError):
        if path.exists():
            _remove(path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path / "entry.json")
    with warnings.catch_warnings():  # PyTorch warns of arrays that cannot be written; nobody writes this one
        warnings.simplefilter("ignore", UserWarning)
        return Stored(torch.from_numpy(mapped), found)


def _tidy(folder: Path, keep: str) -> None:
    """Remove what killed processes left, and the entries used longest ago while all together are too large."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.part"):
            if time.time() - max(p.stat().st_mtime for p in [path, *path.iterdir()]) > _LEFT_BEHIND:
                _remove(path)
        room = _SHARE_OF_DISK * shutil.disk_usage(folder).total
        for entry in sorted(entries(), key=lambda entry: (entry.key == keep, entry.last_used), reverse=True):
            room -= entry.num_bytes
            if room < 0 and entry.key != keep:
                _remove(folder / entry.key)


def _remove(path: Path) -> None:
    """In one step, whatever kills this process: nobody finds half an entry. Who has it mapped, keeps it."""
    gone = path.with_name(f".{uuid.uuid4().hex}.part")
    with contextlib.suppress(OSError):
        path.rename(gone)
        shutil.rmtree(gone)


def _entry_folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if not path.name.startswith(".") and path.is_dir()]


def _signature(pictures: Sequence[Picture], settings: dict[str, Any]) -> tuple[str, int]:
    """A name for these files as they lie there, and their bytes together. Reads none of them."""
    lines, total = [], 0
    for picture in pictures:
        if not isinstance(picture, Path):
            signature = getattr(picture, "signature", None)
            lines.append(f"{picture} {signature() if signature is not None else _digest(picture)}")
            continue
        try:
            facts = picture.stat()
        except OSError:  # it vanished, or may not be looked at
            lines.append(f"{picture} gone")
            continue
        lines.append(f"{os.path.abspath(picture)} {facts.st_size} {facts.st_mtime_ns}")
        total += facts.st_size
    return _key(settings, lines), total


def _key(settings: dict[str, Any], lines: Iterable[str]) -> str:
    text = json.dumps(settings, sort_keys=True) + "\n" + "\n".join(lines)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _digest(picture: Picture) -> str:
    try:
        return digest_of(picture.read_bytes())
    except OSError:
        return ""


def _ticking(each: Iterable[Decoded], tick: Tick) -> Iterator[Decoded]:
    for one in each:
        tick()
        yield one


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _has(value: Any, wanted: dict[str, Any]) -> bool:
    return isinstance(value, dict) and all(value.get(key) == item for key, item in wanted.items())


def _full(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the cache {folder} has no room for the decoded pictures ({error.strerror}): free some (`fovea cache clear`), "
        "name a folder on another disk by FOVEA_CACHE, or take a smaller --image-size"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
