"""Which images are learned from, which choose, and which test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fovea.config import DataConfig
from fovea.data.types import SPLITS, Dataset, Split
from fovea.errors import DataError


@dataclass(frozen=True)
class HeldOut:
    """Which images an earlier run kept apart."""

    ids: Mapping[str, Sequence[str]]  # per split
    where: str  # the file that says so, for messages


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
