"""Runs side by side: is one setting better than another, or was it luck?"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from fovea import files
from fovea.errors import RunError
from fovea.metrics import unequal, wilson_interval
from fovea.run import Run
from fovea.uses import plots

# What two runs of one group may differ in: luck, and where they ran.
_NOT_SETTINGS = ("seed", "device", "data.data_dir", "data.fold")


def compare(runs: Sequence[Run], out: Path | None = None) -> dict[str, Any]:
    """Group runs that differ in nothing but the seed, or the fold, and compare the groups with the first.

    Args:
        out: a folder for compare.json and compare.png; nothing is written without it.

    Returns:
        `groups` (name, runs, seeds, accuracies, mean, std, interval, interval_of, train_seconds, num_parameters,
        per_class, views, balanced_accuracy, unequal_classes, single_view_mean; of folds also folds and pooled: accuracy, interval and num_images of all tests
        together) and `differences` to the first group over the seeds or folds that both have (mean, interval, p_value).

    Raises:
        RunError: a run has not been evaluated, or was tested on other data than the first.
    """
    _check_same_test(runs)
    settings = [_settings(run) for run in runs]
    keys: list[str] = []
    for tree in settings:
        key = json.dumps(tree, sort_keys=True)
        keys += [key] if key not in keys else []
    trees: list[dict[str, Any]] = [json.loads(key) for key in keys]
    differing = [path for path in trees[0] if any(tree[path] != trees[0][path] for tree in trees)]
    # The same clock for all: runs older than cost.json know the seconds of their steps only.
    seconds = _train_seconds if all("train_seconds" in run.cost for run in runs) else _step_seconds
    groups = []
    for key, tree in zip(keys, trees, strict=True):
        members = [run for run, own in zip(runs, settings, strict=True) if json.dumps(own, sort_keys=True) == key]
        groups.append(_describe(_name(tree, differing), members, seconds))
    result = {"groups": groups, "differences": [_difference(groups[0], group) for group in groups[1:]]}
    if out is not None:
        plots.draw_comparison(out / "compare.png", groups)
        files.write_json(out / "compare.json", result)
    return result


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of at least two values (Student 1908)."""
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.mean(values)
    return mean - half, mean + half


def _share_interval(values: Sequence[float]) -> list[float]:
    """Of shares, which cannot leave 0 to 1."""
    low, high = student_interval(values)
    return [max(0.0, low), min(1.0, high)]


def _check_same_test(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.has("metrics.json"):
            raise RunError(f"{run.path} has not been evaluated: run `fovea evaluate {run.path}`, or finish it")
        first, own = ((r.config.data.name, r.metrics["num_images"], r.metrics["classes"]) for r in (runs[0], run))
        folds, own_folds = runs[0].config.data.folds, run.config.data.folds
        if own_folds == folds > 0 and (own[0], own[2]) == (first[0], first[2]):  # folds are of about the same size
            continue
        if own != first:
            raise RunError(
                f"{run.path} was tested on {own[1]} images of {own[0]}, {runs[0].path} on {first[1]} of {first[0]}: "
                "only figures of the same test split can be compared"
            )


def _settings(run: Run) -> dict[str, Any]:
    """Every setting by its path, but for those that make no group."""
    tree = run.config.model_dump(mode="json")
    flat = {}
    for name, value in tree.items():
        branches = {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        flat.update(branches)
    return {path: value for path, value in flat.items() if path not in _NOT_SETTINGS}


def _name(tree: dict[str, Any], differing: list[str]) -> str:
    """What sets a group apart from the others; the recipe, where nothing does."""
    if not differing:
        return str(tree["recipe"])
    shown = [f"{path}={_text(tree[path])}" for path in differing if path != "recipe"]
    if "recipe" in differing:  # it says it all: what else differs comes from it
        return " ".join([str(tree["recipe"]), *(shown if len(shown) <= 2 else [])])
    return " ".join(shown)


def _text(value: Any) -> str:
    return (",".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _describe(name: str, runs: Sequence[Run], seconds: Callable[[Run], float]) -> dict[str, Any]:
    metrics = [run.metrics for run in runs]
    accuracies = [m["accuracy"] for m in metrics]
    repeated = len(runs) > 1
    folds = [run.config.data.fold for run in runs if run.config.data.fold is not None]
    per_class = []
    for k, row in enumerate(metrics[0]["per_class"]):
        values = [m["per_class"][k]["accuracy"] for m in metrics]
        per_class.append(
            {
                "class": row["class"],
                "accuracy": statistics.mean(values),
                "std": statistics.stdev(values) if repeated else None,
                "interval": _share_interval(values) if repeated else row["interval"],
            }
        )
    return {
        "name": name,
        "runs": [str(run.path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "accuracies": accuracies,
        "mean": statistics.mean(accuracies),
        "std": statistics.stdev(accuracies) if repeated else None,
        "interval": _share_interval(accuracies) if repeated else metrics[0]["accuracy_interval"],
        "interval_of": ("folds" if folds else "seeds") if repeated else "test images",
        **({"folds": folds, "pooled": _pooled(metrics)} if folds else {}),
        "train_seconds": statistics.mean(seconds(run) for run in runs),
        "num_parameters": runs[0].info.num_parameters,
        "per_class": per_class,
        "views": metrics[0]["views"],
        "balanced_accuracy": statistics.mean(m["balanced_accuracy"] for m in metrics),
        "unequal_classes": unequal(metrics[0]),
        "single_view_mean": statistics.mean(_single_view(m) for m in metrics),
    }


def _pooled(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over the test images of all folds, each of which was tested once."""
    num_images = sum(m["num_images"] for m in metrics)
    num_correct = sum(round(m["accuracy"] * m["num_images"]) for m in metrics)
    interval = list(wilson_interval(num_correct, num_images))
    return {"accuracy": num_correct / num_images, "interval": interval, "num_images": num_images}


def _single_view(metrics: dict[str, Any]) -> float:
    """Of one view; the accuracy itself where there was no other."""
    return float(metrics["single_view"]["accuracy"] if metrics["views"] > 1 else metrics["accuracy"])


def _train_seconds(run: Run) -> float:
    return float(run.cost["train_seconds"])


def _step_seconds(run: Run) -> float:
    return sum(float(row["seconds"]) for row in run.results)


def _difference(first: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """Accuracy of `group` minus that of `first`, seed by seed; a paired t-test from two common seeds on."""
    by_seed = [dict(zip(g.get("folds", g["seeds"]), g["accuracies"], strict=True)) for g in (first, group)]
    seeds = [seed for seed in by_seed[0] if seed in by_seed[1]]
    values = [by_seed[1][seed] - by_seed[0][seed] for seed in seeds]
    spread = len(values) > 1 and max(values) > min(values)
    test = stats.ttest_rel([by_seed[1][s] for s in seeds], [by_seed[0][s] for s in seeds]) if spread else None
    return {
        "group": group["name"],
        "against": first["name"],
        "seeds": seeds,
        "mean": statistics.mean(values) if values else group["mean"] - first["mean"],
        "interval": list(student_interval(values)) if spread else None,
        "p_value": float(test.pvalue) if test is not None else None,
    }
