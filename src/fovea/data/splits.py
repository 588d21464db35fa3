"""Which images are learned from, which choose, and which test."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fovea.config import DataConfig
from fovea.data.types import SPLITS, Dataset, Split
from fovea.errors import DataError


@dataclass(frozen=True)
class HeldOut:
    """Which images are kept apart from training, as an earlier run or the user says."""

    ids: Mapping[str, Sequence[str]]  # per split
    where: str  # the file that says so, for messages
    is_whole: bool = True  # it names every split that is held out; else what it lacks is drawn


def read_split(path: str) -> HeldOut:
    """The split.json of a run folder, or such a file: `{"test": [ids], "val": [ids]}`. Raises DataError."""
    file = Path(path) / "split.json" if Path(path).is_dir() else Path(path)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        reason = (
            "the run's data came split"
            if (file.parent / "config.yaml").is_file()
            else "give a run folder, or its split.json"
        )
        raise DataError(f"--split {path}: there is no {file} ({reason})") from None
    except (OSError, ValueError) as error:
        raise DataError(f"--split {path}: {file} cannot be read ({error})") from None
    is_split = isinstance(value, dict) and value and set(value) <= {"val", "test"}
    if not is_split or not all(
        isinstance(i, str) for ids in value.values() for i in (ids if isinstance(ids, list) else [0])
    ):
        raise DataError(f'--split {path}: {file} is not of the form {{"test": [ids], "val": [ids]}}')
    ids = [i for part in value.values() for i in part]
    if len(set(ids)) < len(ids):
        double = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"--split {path}: {file} names {double} twice")
    return HeldOut(value, str(file), is_whole=False)


def split_off(dataset: Dataset, config: DataConfig, held_out: HeldOut | None = None) -> Dataset:
    """The data set with `test`, then `val`, split off `train` where it lacks them and the config asks for them."""
    splits, made = dict(dataset.splits), dict(dataset.held_out)
    if config.fold is not None and "test" in splits and "test" not in made:
        raise DataError(f"{config.name} has a test split of its own: folds are for data without one")
    for name, fraction in (("test", config.test_fraction), ("val", config.val_fraction)):
        is_named = held_out is not None and name in held_out.ids
        is_fold = name == "test" and config.fold is not None
        if name in splits:
            if held_out is not None and is_named and not held_out.is_whole:
                raise DataError(f"{config.name} has a {name} split of its own, and {held_out.where} names another")
            continue
        if not (fraction or is_fold or is_named):
            continue
        train = splits["train"]
        if held_out is not None and (is_named or held_out.is_whole):
            chosen = _rows_of(train, held_out, name, dataset.facts.skipped)
        elif is_fold:
            chosen = fold_rows(train, dataset.groups, config)
        else:
            chosen = _draw(train, dataset.groups, fraction, config.split_seed + (name == "val"))
        made[name] = [train.ids[row] for row in chosen.tolist()]
        if not len(chosen):  # of each class a single image, or group, is left to train on
            continue
        mask = torch.zeros(len(train), dtype=torch.bool)
        mask[chosen] = True
        splits[name], splits["train"] = train.take(chosen), train.take((~mask).nonzero().flatten())
    _check_left(dataset, splits, made)
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return replace(dataset, config=config, splits=ordered, held_out=made)


def how_split(config: DataConfig, held_out: Mapping[str, Sequence[str]]) -> list[str]:
    """What Fovea held out, in sentences for a log and a report; none where the data came split."""
    lines = []
    kept = f" (images of one {config.group} together)" if config.group not in (None, "none") else ""
    for name in [name for name in ("test", "val") if name in held_out]:
        fraction = config.test_fraction if name == "test" else config.val_fraction
        option = " (--val-fraction)" if name == "val" else ""
        how = f"{100 * fraction:g} % of each class{option}{kept}, drawn with split_seed {config.split_seed}"
        if name == "test" and config.fold is not None:
            how = f"fold {config.fold} of {config.folds}{kept}, dealt with split_seed {config.split_seed}"
        if config.split_file is not None:
            how = f"as {config.split_file} says or, where it names none, {how}"
        if not held_out[name]:
            lines.append(f"The data is too small for a {name} split: there is none.")
            continue
        lines.append(
            f"The data came without a {name} split, so Fovea kept {len(held_out[name]):,} images apart: {how}. "
            "split.json lists them."
        )
    return lines


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


def deal(labels: Sequence[int] | np.ndarray, groups: Sequence[str], shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal whole groups to parts, so that each part has about its share of every class; `(N,) int64` part numbers.

    Groups come in a random order, but larger ones first, by powers of two of their size; each goes to the part whose
    counts of its classes lack most. (The greedy way of scikit-learn's StratifiedGroupKFold, for shares of any size.)

    Args:
        labels: of each image its class, from 0.
        groups: of each image its group.
        shares: of each part, together 1.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    classes = np.asarray(labels)
    counts = np.zeros((len(names), classes.max() + 1))
    np.add.at(counts, (group, classes), 1)
    random = np.random.default_rng(seed).permutation(len(names))
    order = random[np.argsort(-np.floor(np.log2(counts.sum(axis=1)))[random], kind="stable")]
    weights = counts / np.maximum(counts.sum(axis=0), 1)  # rare classes count as much as others
    wanted = np.asarray(shares)[:, None]
    got = np.zeros((len(shares), weights.shape[1]))
    part_of = np.zeros(len(names), dtype=np.int64)
    for number in order:
        own = weights[number]
        part = int(np.argmin((own * (2 * (got - wanted) + own)).sum(axis=1)))  # by how much the squared lack grows
        part_of[number] = part
        got[part] += own
    return part_of[group]


def fold_rows(train: Split, groups: Mapping[str, str], config: DataConfig) -> Tensor:
    """Sorted row numbers of the fold that the config names; every image is in exactly one. Raises DataError."""
    from sklearn.model_selection import StratifiedKFold  # a second to import, and seldom needed

    assert config.fold is not None
    labels = train.labels.numpy()
    if groups:
        own = [groups[image_id] for image_id in train.ids]
        _check_enough_groups(own, config.folds)
        part = deal(labels, own, [1 / config.folds] * config.folds, config.split_seed)
        return torch.from_numpy(np.flatnonzero(part == config.fold - 1))
    largest = int(np.bincount(labels).max())
    if largest < config.folds:
        raise DataError(f"{config.folds} folds need a class of as many images, and the largest has {largest}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds: some folds test none of it
        folds = list(StratifiedKFold(config.folds, shuffle=True, random_state=config.split_seed).split(labels, labels))
    return torch.from_numpy(folds[config.fold - 1][1])


def _draw(train: Split, groups: Mapping[str, str], fraction: float, seed: int) -> Tensor:
    if not groups:
        return stratified(train.labels, fraction, seed)
    own = [groups[image_id] for image_id in train.ids]
    _check_enough_groups(own, 2)
    labels = train.labels.numpy()
    part = deal(labels, own, [1 - fraction, fraction], seed)
    _spread(labels, np.unique(np.asarray(own), return_inverse=True)[1], part)
    return torch.from_numpy(np.flatnonzero(part == 1))


def _spread(labels: np.ndarray, group: np.ndarray, part: np.ndarray) -> None:
    """Move, in place, the smallest group that can be spared to a part (of 0 and 1) that has none of a class."""
    for here, other in ((0, 1), (1, 0)):
        for label in np.setdiff1d(labels, labels[part == here]):
            candidates = np.unique(group[labels == label])
            for chosen in candidates[np.argsort([(group == c).sum() for c in candidates], kind="stable")]:
                rest = (part == other) & (group != chosen)
                if here == 0 or np.isin(labels[group == chosen], labels[rest]).all():
                    part[group == chosen] = here
                    break


def _check_enough_groups(groups: Sequence[str], wanted: int) -> None:
    there = len(set(groups))
    if there < wanted:
        raise DataError(
            f"{there} group{' is' if there == 1 else 's are'} too few for {wanted} parts of whole groups: ask for fewer "
            "parts, or for other groups"
        )


def _check_left(dataset: Dataset, splits: Mapping[str, Split], made: Mapping[str, Sequence[str]]) -> None:
    """No class may have gone to val and test altogether."""
    if not made:
        return
    for name, count in zip(dataset.classes, splits["train"].counts(len(dataset.classes)), strict=True):
        if not count:
            why = "its images are of one group, which is held out: " if dataset.groups else ""
            raise DataError(f"no image of class '{name}' is left to train on: {why}take another split_seed or split")


def _rows_of(train: Split, held_out: HeldOut, name: str, skipped: Mapping[str, str]) -> Tensor:
    if name not in held_out.ids:
        raise DataError(f"{held_out.where} does not name the {name} split that was held out: restore it, or train anew")
    position = {image_id: row for row, image_id in enumerate(train.ids)}
    ids = [image_id for image_id in held_out.ids[name] if image_id not in skipped]
    missing = [image_id for image_id in ids if image_id not in position]
    if missing:
        raise DataError(
            f"{len(missing)} images of the run's {name} split are gone, the first is {missing[0]}: "
            "put them back, or train anew"
        )
    return torch.tensor(sorted(position[image_id] for image_id in ids), dtype=torch.int64)
