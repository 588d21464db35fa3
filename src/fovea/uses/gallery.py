"""Pictures of what a run got right and wrong, and of what the network looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fovea.data.types import Dataset, Split
from fovea.engine.evaluate import load_model, match_classes
from fovea.errors import ConfigError
from fovea.run import Run, read_predictions
from fovea.uses import explain, grid
from fovea.uses.grid import Group
from fovea.uses.inspect import draw_samples
from fovea.uses.predict import Classifier, Prediction

_FIRST_IMAGES = 24
_WORST_IMAGES = 24
_EXPLAINED = 12  # of the worst, where there are heat maps: they take three times the room
_PAIRS = 4  # of classes; each takes a row of examples
_EXAMPLES = 3

Rows = list[dict[str, str]]


def draw_pictures(run: Run, dataset: Dataset, split_name: str = "test", out: Path | None = None) -> None:
    """Draw what needs the images: samples, first predictions, the worst mistakes, the pairs that are confused most."""
    out = out or run.path
    if split_name not in dataset.splits or not (out / "predictions.csv").is_file():
        return
    split = match_classes(dataset, split_name, run.info.classes, run.info.preprocess)
    rows = read_predictions(out)
    if out == run.path:
        draw_samples(out / "plots" / "samples.png", dataset)
    first, which = list(range(min(_FIRST_IMAGES, len(rows)))), "First"
    if split.labels.diff().ge(0).all():  # class by class, as a folder is: the first would all be of one
        first, which = [i * len(rows) // len(first) for i in first], "Some"
    title = f"{which} {split_name} images: truth, then prediction with its probability"
    captions, wrong = [_caption(rows[i]) for i in first], [_is_wrong(rows[i]) for i in first]
    grid.draw_images(out / "plots" / "predictions.png", split.pick(torch.tensor(first)), captions, title, wrong)
    worst = _surest([i for i, row in enumerate(rows) if _is_wrong(row)], rows)
    for name in ("mistakes", "pairs"):  # of an earlier evaluation
        (out / "plots" / f"{name}.png").unlink(missing_ok=True)
    if worst:
        _draw_mistakes(out / "plots" / "mistakes.png", run, split, rows, worst, split_name)
        _draw_pairs(out / "plots" / "pairs.png", split, rows, split_name)


def check_explaining(path: str) -> None:
    """Can heat maps be drawn into this file? Raises ConfigError."""
    if not explain.can_explain():
        raise ConfigError(explain.HOW_TO_GET)
    if Path(path).suffix.lower() != ".png" or Path(path).is_dir():
        raise ConfigError(f"--explain {path}: name a file that ends in .png")


def draw_answers(path: Path, classifier: Classifier, answers: Sequence[Prediction]) -> None:
    """The first 24 pictures, each beside what spoke for its prediction. Raises ConfigError, DataError."""
    few = answers[:_FIRST_IMAGES]
    if not few:
        return
    images = torch.stack([classifier.preprocess.decode(Path(answer.path)) for answer in few])
    targets = [classifier.classes.index(answer.prediction) for answer in few]
    tiles = explain.beside(classifier.model, classifier.preprocess, images, targets)
    if tiles is None:
        raise ConfigError("--explain: this model has no map of features, so there is nothing to draw")
    captions = [f"{answer.prediction} ({100 * answer.probability:.0f} %)" for answer in few]
    title = "Each picture, and what spoke for the prediction"
    grid.draw_images(path, tiles, captions, title, columns=grid.COLUMNS // 2)


def _draw_mistakes(path: Path, run: Run, split: Split, rows: Rows, worst: list[int], name: str) -> None:
    title, gap, columns = f"Most confident mistakes on {name}: truth, then prediction", "\n", grid.COLUMNS
    shown = worst[:_WORST_IMAGES]
    images = split.pick(torch.tensor(shown))
    if explain.can_explain():
        number = {label: k for k, label in enumerate(run.info.classes)}
        few = shown[:_EXPLAINED]
        targets = ([number[rows[i][column]] for i in few] for column in ("prediction", "label"))
        model = load_model(run, torch.device("cpu"))
        tiles = explain.beside(model, run.info.preprocess, images[: len(few)], *targets)
        if tiles is not None:
            shown, images, gap, columns = few, tiles, " ", 3
            title += ". Beside each: what spoke for the prediction, and what for the truth"
    captions = [_caption(rows[i], gap) for i in shown]
    grid.draw_images(path, images, captions, title, [True] * len(shown), columns)


def _draw_pairs(path: Path, split: Split, rows: Rows, name: str) -> None:
    """Of the classes that are confused most, either way: examples of both as they were recognized, and of the mistakes."""
    cells: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        cells.setdefault((row["label"], row["prediction"]), []).append(i)
    sums: dict[tuple[str, str], int] = {}
    for (truth, guess), found in cells.items():
        if truth != guess:
            pair = (min(truth, guess), max(truth, guess))
            sums[pair] = sums.get(pair, 0) + len(found)

    def group(truth: str, guess: str) -> Group:
        found = _surest(cells.get((truth, guess), []), rows)
        few = found[:_EXAMPLES]
        captions = [f"{100 * float(rows[i]['probability']):.0f} %" for i in few]
        title = (
            f"{truth}, recognized {len(found):,}×" if truth == guess else f"{truth} taken for {guess}, {len(found):,}×"
        )
        return Group(title, split.pick(torch.tensor(few, dtype=torch.int64)), captions, truth != guess)

    pairs = sorted(sums, key=lambda pair: -sums[pair])[:_PAIRS]
    drawn = [[group(a, a), group(a, b), group(b, a), group(b, b)] for a, b in pairs]
    grid.draw_groups(path, drawn, f"Pairs of classes that are confused most on {name}, the surest answers of each kind")


def _surest(chosen: list[int], rows: Rows) -> list[int]:
    return sorted(chosen, key=lambda i: -float(rows[i]["probability"]))


def _is_wrong(row: dict[str, Any]) -> bool:
    return bool(row["label"] != row["prediction"])


def _caption(row: dict[str, str], gap: str = "\n") -> str:
    return f"{row['label']}{gap}→ {row['prediction']} ({100 * float(row['probability']):.0f} %)"
