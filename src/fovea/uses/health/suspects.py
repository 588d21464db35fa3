"""Labels that a trained network doubts: confident learning (Northcutt, Jiang and Chuang 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.data.types import Dataset
from fovea.device import pick_device, precision_here
from fovea.engine.evaluate import load_model, match_classes, measure
from fovea.run import Run
from fovea.uses.health.album import Album
from fovea.uses.health.finding import Finding


@dataclass(frozen=True)
class Judged:
    """What networks that did not learn from them say of some images of an album."""

    rows: Tensor  # (N,) int64
    labels: Tensor  # (N,) int64
    probabilities: Tensor  # (N, K), the mean over the networks

    def suspects(self) -> tuple[Tensor, Tensor]:
        """Which of the images look mislabeled, `(S,)`, the likeliest first, and which class each shows, `(S,)`.

        A class's threshold is the mean probability that its own images get. An image counts to the likeliest class whose
        threshold it reaches; where that is not its label, it stands off the diagonal of the confident joint (eq. 1, 2).
        Ranked by the normalized margin.
        """
        of_label = F.one_hot(self.labels, self.probabilities.shape[1]).to(self.probabilities.dtype)
        thresholds = (self.probabilities * of_label).sum(0) / of_label.sum(0)  # NaN, which nothing reaches: no images
        confident = torch.where(self.probabilities >= thresholds, self.probabilities, -1.0)
        best = confident.max(1)
        off = ((best.values >= 0) & (best.indices != self.labels)).nonzero().flatten()
        own = self.probabilities[off].gather(1, self.labels[off, None]).flatten()
        order = (own - best.values[off]).argsort(stable=True)
        return off[order], best.indices[off][order]


def judge(album: Album, runs: Sequence[tuple[Run, Dataset, Sequence[str]]], device: str = "auto") -> Judged:
    """Ask each run about some splits, which it did not learn from.

    Args:
        runs: each with the data, split as it was for that run, and the names of the splits. Raises DataError where
            classes or sizes are others.
    """
    classes = album.dataset.classes
    total, times = torch.zeros(len(album), len(classes)), torch.zeros(len(album), dtype=torch.int64)
    place = pick_device(device)
    for run, dataset, names in runs:
        info = run.info
        model = load_model(run, place)
        for name in names:
            split = match_classes(dataset, name, info.classes, info.preprocess)
            precision = precision_here(info.precision, place)
            logits = measure(model, split, info.preprocess, place, info.views, precision).logits
            rows = torch.tensor([album.rows[image_id] for image_id in split.ids])
            total[rows] += F.softmax(logits, dim=1)[:, [info.classes.index(name) for name in classes]]
            times[rows] += 1
    rows = times.nonzero().flatten()
    return Judged(rows, album.labels[rows], total[rows] / times[rows, None])


def check_labels(album: Album, judged: Judged) -> list[Finding]:
    """One finding: the suspects, ranked, and which part of the data was judged."""
    classes = album.dataset.classes
    found, shown = judged.suspects()
    number, total = len(found), len(judged.rows)
    part = (
        f"all {total:,} images"
        if total == len(album)
        else f"{total:,} of {len(album):,} images, those that the network did not learn from (--folds 5 judges all)"
    )
    if not number:
        return [Finding("labels", "note", f"no label is doubted among {part}")]
    text = (
        f"{number:,} label{'' if number == 1 else 's'} ({100 * number / total:.1f} %) {'is' if number == 1 else 'are'} "
        f"doubted among {part}: look at {'it' if number == 1 else 'them'}, the likeliest first; a doubt is no proof, "
        "it may be a hard picture, or the network's own mistake"
    )
    groups = []
    for at, suggested in zip(found.tolist(), shown.tolist(), strict=True):
        probability = float(judged.probabilities[at, suggested])
        own = float(judged.probabilities[at, judged.labels[at]])
        note = f"{classes[suggested]}? {100 * probability:.0f} % (label {100 * own:.0f} %)"
        facts = {
            "suggested": classes[suggested],
            "probability": round(probability, 6),
            "label_probability": round(own, 6),
        }
        groups.append((album.seen(int(judged.rows[at]), note, **facts),))
    return [Finding("labels", "warning", text, groups)]
