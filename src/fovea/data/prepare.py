"""From a source's files to a data set: decode once, check, and split."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor

from fovea.config import DataConfig
from fovea.data.decode import decode_split
from fovea.data.find import find
from fovea.data.splits import HeldOut, read_split, split_off
from fovea.data.types import SPLITS, Dataset, FileFacts, RawData, Split
from fovea.errors import DataError

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
    if held_out is None and config.split_file is not None:
        held_out = read_split(config.split_file)
    raw = find(config)
    facts = FileFacts(skipped=dict(raw.bad), notes=list(raw.notes))
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
    whole = Dataset(config, raw.classes, {n: splits[n] for n in SPLITS if n in splits}, facts, {}, _groups(raw))
    return split_off(whole, config, held_out) if for_training else whole


def _groups(raw: RawData) -> dict[str, str]:
    return {i: group for s in raw.splits.values() if s.groups for i, group in zip(s.ids, s.groups, strict=True)}


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
