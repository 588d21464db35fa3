"""From a source's files to a data set: decode once, check, and split."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fovea import registry
from fovea.config import DataConfig, data_dir_candidates
from fovea.data.preprocess import decode_image
from fovea.data.types import SPLITS, Dataset, FileFacts, Place, RawData, RawSplit, Split
from fovea.errors import DataError, UnknownName

DEFAULT_IMAGE_SIZE = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class HeldOut:
    """Which images an earlier run kept apart."""

    ids: Mapping[str, Sequence[str]]  # per split
    where: str  # the file that says so, for messages


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

    splits = {name: _decoded(raw.splits[name], size, facts, tick) for name in SPLITS if name in raw.splits}
    if facts.skipped and not config.skip_bad:
        names = "; ".join(itertools.islice(facts.skipped.values(), 3))
        more = f" (and {len(facts.skipped) - 3} more)" if len(facts.skipped) > 3 else ""
        raise DataError(f"cannot decode {names}{more}: mend or remove them, or go on without them by --skip-bad")
    if for_training:
        _check(config.name, raw.classes, splits, len(facts.skipped))
    whole = Dataset(config, raw.classes, {n: splits[n] for n in SPLITS if n in splits}, facts, {})
    return split_off(whole, config, held_out) if for_training else whole


def split_off(dataset: Dataset, config: DataConfig, held_out: HeldOut | None = None) -> Dataset:
    """The data set with `test`, then `val`, split off `train` where it lacks them and the config asks for them."""
    splits, made = dict(dataset.splits), dict(dataset.held_out)
    for name, fraction in (("test", config.test_fraction), ("val", config.val_fraction)):
        if name in splits or not fraction:
            continue
        train = splits["train"]
        if held_out is None:
            chosen = stratified(train.labels, fraction, config.split_seed + (name == "val"))
        else:
            chosen = _rows_of(train, held_out, name)
        mask = torch.zeros(len(train), dtype=torch.bool)
        mask[chosen] = True
        splits[name], splits["train"] = train.take(chosen), train.take((~mask).nonzero().flatten())
        made[name] = list(splits[name].ids)
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return replace(dataset, config=config, splits=ordered, held_out=made)


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


def _decoded(raw: RawSplit, size: tuple[int, int], facts: FileFacts, tick: Callable[[], None]) -> Split:
    labels = torch.tensor(list(raw.labels), dtype=torch.int64)
    if isinstance(raw.images, Tensor):
        height, width = raw.images.shape[2:]
        facts.sizes[(width, height)] += len(labels)
        facts.modes["L" if raw.images.shape[1] == 1 else "RGB"] += len(labels)
        return Split(raw.images, labels, tuple(raw.ids))

    paths = raw.images
    images = torch.empty((len(paths), 3, *size), dtype=torch.uint8)

    def work(row: int) -> tuple[tuple[int, int], str] | DataError:
        try:
            images[row], found_size, mode = decode_image(paths[row], size, 3)
        except DataError as error:
            return error
        return found_size, mode

    kept = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter while it decodes
        for row, result in enumerate(pool.map(work, range(len(labels)))):
            tick()
            if isinstance(result, DataError):
                facts.skipped[raw.ids[row]] = str(result)
                continue
            kept.append(row)
            facts.sizes[result[0]] += 1
            facts.modes[result[1]] += 1
    whole = Split(images, labels, tuple(raw.ids))
    return whole if len(kept) == len(labels) else whole.take(torch.tensor(kept, dtype=torch.int64))


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


def stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Sorted row numbers of about `fraction` of each class, of each at least one and never all.

    Args:
        labels: `(N,) int64`, at least two of each class that is there.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero().flatten()
        count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    return torch.cat(chosen).sort().values


def _rows_of(train: Split, held_out: HeldOut, name: str) -> Tensor:
    if name not in held_out.ids:
        raise DataError(f"{held_out.where} does not name the {name} split that was held out: restore it, or train anew")
    position = {image_id: row for row, image_id in enumerate(train.ids)}
    ids = held_out.ids[name]
    missing = [image_id for image_id in ids if image_id not in position]
    if missing:
        raise DataError(
            f"{len(missing)} images of the run's {name} split are gone, the first is {missing[0]}: "
            "put them back, or train anew"
        )
    return torch.tensor(sorted(position[image_id] for image_id in ids), dtype=torch.int64)
