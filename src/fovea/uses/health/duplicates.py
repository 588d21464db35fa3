"""The same picture twice: in train and test, in two classes, or just twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fovea.uses.health.album import Album
from fovea.uses.health.finding import Finding, Seen, Severity
from fovea.uses.health.near import Pairs

_SERIOUS_SHARE = 0.005  # of a held-out split: as much as many a comparison of networks is about


def exact_duplicates(digests: list[bytes], one_colour: Tensor | None = None) -> Pairs:
    """Pairs of equal images, each with the first of its kind; those of a single colour do not count."""
    first: dict[bytes, int] = {}
    pairs = [
        (first[digest], row)
        for row, digest in enumerate(digests)
        if first.setdefault(digest, row) != row and not (one_colour is not None and one_colour[row])
    ]
    rows = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Pairs(rows, torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.bool))


def check_duplicates(album: Album, exact: Pairs, near: Pairs) -> list[Finding]:
    """Leakage, contradictions, duplicates and near duplicates."""
    near = _without(near, exact, len(album))
    pairs = _joined(exact, near)
    equal = torch.arange(len(pairs.rows)) < len(exact.rows)
    found = [
        *_leakage(album, pairs, equal),
        *_contradictions(album, pairs, equal),
        *_within(album, exact, "duplicates", "warning"),
    ]
    return found + _within(album, near, "near duplicates", "note")


def _leakage(album: Album, pairs: Pairs, equal: Tensor) -> list[Finding]:
    """Images of val and test that train holds, too: each with the most alike."""
    found = []
    train = album.names.index("train") if "train" in album.names else -1
    for number, name in enumerate(album.names):
        if number == train:
            continue
        across = _across(album, pairs, number, train)
        best: dict[int, tuple[int, int]] = {}  # row held out: its pair, row in train; the most alike pairs come first
        for pair, kept, learned in across:
            best.setdefault(kept, (pair, learned))
        if not best:
            continue
        total = int((album.split == number).sum())
        num_equal = sum(bool(equal[pair]) for pair, _ in best.values())
        share = len(best) / total
        remedy = (
            "keep what belongs together on one side with --group, or remove the copies"
            if name in album.dataset.held_out
            else f"remove them from train, or do not trust {name}"
        )
        harm = (
            "val then chooses what was learned by heart"
            if name == "val"
            else f"the network knows them by heart, and accuracy may come out up to {100 * share:.1f} points too high"
        )
        text = (
            f"{len(best):,} of {total:,} {name} images ({_percent(share)}) stand in train, too ({num_equal:,} the same, "
            f"{len(best) - num_equal:,} nearly): {harm}; {remedy}"
        )
        groups = [
            (album.seen(kept, _how(pairs, pair, equal)), _with(album.seen(learned), pairs, pair, equal))
            for kept, (pair, learned) in best.items()
        ]
        serious = num_equal or share >= _SERIOUS_SHARE
        found.append(Finding("leakage", "serious" if serious else "warning", text, groups))
    return found


def _across(album: Album, pairs: Pairs, kept: int, train: int) -> list[tuple[int, int, int]]:
    sides = album.split[pairs.rows]
    first = (sides[:, 0] == kept) & (sides[:, 1] == train)
    second = (sides[:, 1] == kept) & (sides[:, 0] == train)
    rows = torch.where(second[:, None], pairs.rows.flip(1), pairs.rows)
    return [(pair, *rows[pair].tolist()) for pair in (first | second).nonzero().flatten().tolist()]


def _contradictions(album: Album, pairs: Pairs, equal: Tensor) -> list[Finding]:
    labels = album.labels[pairs.rows]
    differ = (labels[:, 0] != labels[:, 1]).nonzero().flatten().tolist()
    if not differ:
        return []
    num_equal = int(equal[differ].sum())
    text = (
        f"{len(differ):,} picture{'' if len(differ) == 1 else 's'} stand{'s' if len(differ) == 1 else ''} in two classes "
        f"({num_equal:,} the same, {len(differ) - num_equal:,} nearly): no network can be right about both; "
        "give each the class that it shows, or remove it"
    )
    groups = [
        (album.seen(first, _how(pairs, pair, equal)), _with(album.seen(second), pairs, pair, equal))
        for pair, (first, second) in zip(differ, pairs.rows[differ].tolist(), strict=True)
    ]
    return [Finding("contradiction", "serious" if num_equal else "warning", text, groups)]


def _within(album: Album, pairs: Pairs, kind: str, severity: Severity) -> list[Finding]:
    """Groups of copies within one split: largest first."""
    inside = album.split[pairs.rows[:, 0]] == album.split[pairs.rows[:, 1]]
    rows = pairs.rows[inside].numpy()
    if not len(rows):
        return []
    graph = coo_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(len(album), len(album)))
    _, names = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for row in np.unique(rows).tolist():
        members.setdefault(int(names[row]), []).append(row)
    ordered = sorted(members.values(), key=lambda group: (-len(group), group[0]))
    extra = sum(len(group) - 1 for group in ordered)
    exactly = "exactly" if kind == "duplicates" else "nearly"
    what = "1 image shows" if extra == 1 else f"{extra:,} images show"
    groups_of = "1 group" if len(ordered) == 1 else f"{len(ordered):,} groups"
    text = (
        f"{what} {exactly} what another of the same split shows ({groups_of}): such a picture counts more than once, "
        "and there is less to learn from than it seems; keep one of each group"
    )
    groups = [tuple(album.seen(row) for row in group) for group in ordered]
    return [Finding(kind, severity, text, groups)]


def _joined(exact: Pairs, near: Pairs) -> Pairs:
    return Pairs(
        torch.cat([exact.rows, near.rows]),
        torch.cat([exact.likeness, near.likeness]),
        torch.cat([exact.mirrored, near.mirrored]),
    )


def _without(near: Pairs, exact: Pairs, num_images: int) -> Pairs:
    """Near pairs that are not equal ones."""
    known = exact.rows[:, 0] * num_images + exact.rows[:, 1]
    kept = ~torch.isin(near.rows[:, 0] * num_images + near.rows[:, 1], known)
    return Pairs(near.rows[kept], near.likeness[kept], near.mirrored[kept])


def _with(seen: Seen, pairs: Pairs, pair: int, equal: Tensor) -> Seen:
    facts = {"likeness": round(float(pairs.likeness[pair]), 3), "same": bool(equal[pair])}
    return replace(seen, facts={**facts, "mirrored": bool(pairs.mirrored[pair])})


def _how(pairs: Pairs, pair: int, equal: Tensor) -> str:
    if equal[pair]:
        return "the same"
    return f"{min(99, round(100 * float(pairs.likeness[pair])))} % alike{', mirrored' if pairs.mirrored[pair] else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"
