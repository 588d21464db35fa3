"""Charts of what probabilities are worth: reliability, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fovea.calibration import NUM_BINS
from fovea.uses.figure import BLUE, GREEN, GREY, ORANGE, save, style

Row = dict[str, str]
_WHOLE = PercentFormatter(1, decimals=0)


def draw_reliability(path: Path, rows: Sequence[Row], found: dict[str, Any], split: str) -> None:
    """How often the classifier was right, by how sure it was; before and after the temperature where there is one."""
    panels = [("Probabilities as the network gives them", 1.0, found["before"], GREY)]
    if found["temperature"] != 1:
        panels.append((f"After temperature {found['temperature']:.2f}", found["temperature"], found, BLUE))
    with mpl.rc_context(style()):
        figure = Figure(figsize=(4.6 * len(panels), 4.8), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(3, 1))
        for column, (title, temperature, errors, color) in enumerate(panels):
            own = [{name: float(text) for name, text in row.items()} for row in rows]
            own = [row for row in own if row["temperature"] == temperature]
            _draw_bins(grid[0, column], own, color)
            grid[0, column].set_title(f"{title}\ncalibration error {100 * errors['ece']:.1f} %")
            total = sum(row["num_images"] for row in own)
            shares = [row["num_images"] / total for row in own]
            middles = [(row["low"] + row["high"]) / 2 for row in own]
            grid[1, column].bar(middles, shares, width=0.9 / NUM_BINS, color=color)
            grid[1, column].yaxis.set_major_formatter(_WHOLE)
            grid[1, column].set_xlabel("probability of the prediction")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        grid[0, 0].set_ylabel(f"share that was right ({split})")
        grid[1, 0].set_ylabel("images")
        save(figure, path)


def draw_coverage(path: Path, rows: Sequence[Row], metrics: dict[str, Any]) -> None:
    """Accuracy among the images that the classifier is surest of, from a few of them to all, with the thresholds."""
    share, accuracy, low, high = (
        np.array([float(row[name]) for row in rows])
        for name in ("coverage", "accuracy", "accuracy_low", "accuracy_high")
    )
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(share, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval")
        axes.plot(share, accuracy, color=BLUE, linewidth=2, label="accuracy among those answered")
        marks = [row for row in metrics["thresholds"] if row["threshold"] and row["accuracy"] is not None]
        for row, color in zip(marks, (GREEN, ORANGE, "#7c3aed"), strict=False):
            axes.axhline(row["target"], color=color, linestyle=":", linewidth=1)
            label = f"from {row['threshold']:.3f} on: chosen on val for {100 * row['target']:g} %"
            axes.plot([row["coverage"]], [row["accuracy"]], "o", color=color, markersize=8, label=label)
        # Of the first few images the interval covers nearly everything, and would press the rest of the curve flat.
        axes.set_ylim(max(0.0, min(accuracy.min(), metrics["accuracy"]) - 0.3 * (1.02 - accuracy.min()) - 0.02), 1.005)
        axes.set(xlim=(0, 1.005), xlabel="coverage: share of images answered, surest first")
        axes.set_ylabel(f"share that was right ({metrics['split']})")
        axes.set_title("Accuracy against coverage")
        axes.xaxis.set_major_formatter(_WHOLE)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if axes.get_ylim()[0] < 0.95 else 1))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        save(figure, path)


def _draw_bins(axes: Axes, rows: Sequence[dict[str, float]], color: str) -> None:
    confidence = np.array([row["confidence"] for row in rows])
    accuracy, low, high = (
        np.array([row[name] for row in rows]) for name in ("accuracy", "accuracy_low", "accuracy_high")
    )
    axes.plot([0, 1], [0, 1], color=GREEN, linestyle="--", label="as sure as right")
    axes.errorbar(
        confidence, accuracy, yerr=[(accuracy - low).clip(0), (high - accuracy).clip(0)], fmt="o", color=color,
        markersize=5, capsize=2, linewidth=1, label="a bin of images, 95 % interval",
    )  # fmt: skip
    axes.set(xlim=(0, 1.01), ylim=(-0.01, 1.01))
    axes.yaxis.set_major_formatter(_WHOLE)
    axes.xaxis.set_major_formatter(_WHOLE)
