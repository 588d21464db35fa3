"""From a source's files to a data set: decode once, check, and split."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from fovea import registry
from fovea.config import DataConfig, data_dir_candidates
from fovea.data.decode import decode_split
from fovea.data.splits import HeldOut, split_off
from fovea.data.types import SPLITS, Dataset, FileFacts, Place, RawData, Split
from fovea.errors import DataError, UnknownName

DEFAULT_IMAGE_SIZE = 32
Progress = Callable[[int, int], None]


def prepare(
    config: DataConfig, held_out: HeldOut | None = None, progress: Progress | None = None, for_training: bool = True
) -> Dataset:
    """Load, decode, check and split a data set. Raises DataError.

    Args:
        held_out: the splits that an earlier run drew; without it, missing splits are drawn anew.
        progress: called with (decoded, of how many) while pictures are decoded.
        for_training: False asks nothing of the number of images, and splits nothing off.
    """
    raw = _find(config)
    facts = FileFacts()
    size = (config.image_size or DEFAULT_IMAGE_SIZE,) * 2
    total = sum(len(s.images) for s in raw.splits.values() if not isinstance(s.images, Tensor))
    counter = itertools.count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(counter), total)

    splits = {name: decode_split(raw.splits[name], size, facts, tick) for name in SPLITS if name in raw.splits}
    if facts.skipped and not config.skip_bad:
        names = "; ".join(itertools.islice(facts.skipped.values(), 3))
        more = f" (and {len(facts.skipped) - 3} more)" if len(facts.skipped) > 3 else ""
        raise DataError(f"cannot decode {names}{more}: mend or remove them, or go on without them by --skip-bad")
    if for_training:
        _check(config.name, raw.classes, splits, len(facts.skipped))
    whole = Dataset(config, raw.classes, {n: splits[n] for n in SPLITS if n in splits}, facts, {})
    return split_off(whole, config, held_out) if for_training else whole


def _find(config: DataConfig) -> RawData:
    place = Place(tuple(Path(c).expanduser() for c in data_dir_candidates(config.data_dir)))
    if Path(config.name).is_dir():
        raw: RawData = registry.source.get("folder")(place, path=config.name)
        return raw
    name = config.name.partition(":")[0]
    if name not in registry.source.names():
        if any(mark in config.name for mark in "/\\.~"):
            raise DataError(
                f"no folder {config.name}: DATA is a folder of class folders, or a name that `fovea list` shows"
            )
        raise UnknownName("data set", name, registry.source.names(), "; or give the path of a folder of class folders")
    function, options = registry.source.bind(config.name, num_given=1)
    named: RawData = function(place, **options)
    return named


def _check(name: str, classes: tuple[str, ...], splits: dict[str, Split], num_skipped: int) -> None:
    skipped = f" ({num_skipped} that cannot be decoded left out)" if num_skipped else ""
    if "train" not in splits or not len(splits["train"]):
        raise DataError(f"{name} holds no images to train on{skipped}")
    if len(classes) < 2:
        raise DataError(f"{name} has only the class '{classes[0]}': a classifier needs at least two")
    for class_name, count in zip(classes, splits["train"].counts(len(classes)), strict=True):
        if count < 2:
            raise DataError(
                f"class '{class_name}' of {name} has {count} training image{'' if count == 1 else 's'}{skipped}: "
                "each class needs at least 2; add some, or move the class away"
            )
