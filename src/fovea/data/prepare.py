"""From a source's files to a data set: decode once, check, and split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fovea.config import DataConfig
from fovea.data.cache import load_pictures
from fovea.data.decode import Fit
from fovea.data.find import find
from fovea.data.sizes import choose_size
from fovea.data.splits import HeldOut, read_split, split_off
from fovea.data.types import SPLITS, Dataset, FileFacts, Picture, RawData, RawSplit, Split
from fovea.errors import DataError

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
    files = {name: split for name, split in raw.splits.items() if not isinstance(split.images, Tensor)}
    if files and config.image_size is None:
        size, why = choose_size(_pictures(files.get("train", next(iter(files.values())))))
        config = config.model_copy(update={"image_size": size})
        facts.notes.append(why)
    splits = _decoded(files, config, facts, progress)
    splits |= {name: _as_it_is(split, facts) for name, split in raw.splits.items() if name not in files}
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


def _decoded(
    files: dict[str, RawSplit], config: DataConfig, facts: FileFacts, progress: Progress | None
) -> dict[str, Split]:
    """The splits' pictures in one store, without those that cannot be decoded, which `facts` lists."""
    pictures: list[tuple[str, str, int, Picture]] = [
        (image_id, name, row, picture)
        for name, split in files.items()
        for row, (image_id, picture) in enumerate(zip(split.ids, _pictures(split), strict=True))
    ]
    pictures.sort(key=lambda each: each[:3])  # by id: however they are split, the cache finds them
    counter = itertools.count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(counter), len(pictures))

    fit = Fit((config.image_size or 0,) * 2, 3, config.resize)
    whose = str(Path(config.name).resolve()) if Path(config.name).exists() else config.name
    stored = load_pictures([each[3] for each in pictures], fit, whose, tick, facts.notes.append)
    places: dict[str, dict[int, int]] = {name: {} for name in files}  # from row of a split to row of the store
    for place, ((image_id, name, row, picture), found) in enumerate(zip(pictures, stored.found, strict=True)):
        if isinstance(found, str):
            facts.skipped[image_id] = f"{picture}: {found}"
            continue
        places[name][row] = place
        facts.sizes[(found.width, found.height)] += 1
        facts.modes[found.mode] += 1
        facts.files[image_id] = found
    splits = {}
    for name, split in files.items():
        kept = sorted(places[name])
        rows = torch.tensor([places[name][row] for row in kept], dtype=torch.int64)
        labels = torch.tensor([split.labels[row] for row in kept], dtype=torch.int64)
        splits[name] = Split(stored.store, labels, tuple(split.ids[row] for row in kept), rows)
    return splits


def _pictures(split: RawSplit) -> Sequence[Picture]:
    assert not isinstance(split.images, Tensor)
    return split.images


def _as_it_is(split: RawSplit, facts: FileFacts) -> Split:
    """A split that came as an array."""
    assert isinstance(split.images, Tensor)
    height, width = split.images.shape[2:]
    facts.sizes[(width, height)] += len(split.labels)
    facts.modes["L" if split.images.shape[1] == 1 else "RGB"] += len(split.labels)
    return Split(split.images, torch.tensor(list(split.labels), dtype=torch.int64), tuple(split.ids))


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
