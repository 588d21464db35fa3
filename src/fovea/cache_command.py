"""`fovea cache`: what Fovea keeps of decoded pictures."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

import typer

from fovea.errors import UnknownName
from fovea.options import Json
from fovea.program import print_json


def cache(
    action: Annotated[str, typer.Argument(metavar="list|clear", help="Show it, or remove all of it.")],
    as_json: Json = False,
) -> None:
    """Show or clear the cache of decoded pictures ($FOVEA_CACHE, else the user's own)."""
    if action not in ("list", "clear"):
        raise UnknownName("action of fovea cache", action, ("list", "clear"))
    from fovea.config import cache_dir
    from fovea.data.cache import clear, entries

    if action == "clear":
        freed = clear()
        print_json({"freed_bytes": freed}) if as_json else print(f"freed {freed / 1e6:,.1f} MB of {cache_dir()}")
        return
    found = entries()
    if as_json:
        print_json({"folder": cache_dir(), "entries": [dataclasses.asdict(entry) for entry in found]})
        return
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        height, width = entry.image_size
        size = f"{entry.num_bytes / 1e6:10,.1f} MB"
        print(f"{size}  last used {used}  {entry.num_pictures:,} at {width}×{height}, {entry.resize}: {entry.name}")
    print(f"{sum(entry.num_bytes for entry in found) / 1e6:10,.1f} MB in {cache_dir()}")
