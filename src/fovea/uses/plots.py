"""Charts. Each function draws one PNG from plain data, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fovea.engine.range_test import LrRange
from fovea.metrics import most_confused
from fovea.uses.figure import BLUE, GREEN, GREY, ORANGE, RED, save, style

_MAX_LEGEND_EPOCHS = 10
_MAX_NAMED_CLASSES = 30


def draw_loss(path: Path, steps: Sequence[dict[str, str]]) -> None:
    """The note's picture: running loss over mini-batches, one line an epoch."""
    epochs = sorted({int(row["epoch"]) for row in steps})
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, max(1, len(epochs))))
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for epoch, color in zip(epochs, colors, strict=True):
            rows = [row for row in steps if int(row["epoch"]) == epoch]
            axes.plot(
                [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows],
                "o-", markersize=4, color=color, label=f"epoch {epoch}",
            )  # fmt: skip
        axes.set(
            xlabel="mini-batches of the epoch",
            ylabel="running loss (cross-entropy)",
            title="Running loss, a line an epoch",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs) <= _MAX_LEGEND_EPOCHS:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        else:
            norm = mpl.colors.Normalize(epochs[0], epochs[-1])
            figure.colorbar(mpl.cm.ScalarMappable(norm, mpl.colormaps["viridis"]), ax=axes, label="epoch")
        save(figure, path)


def draw_curves(path: Path, results: Sequence[dict[str, str]], metrics: dict[str, Any] | None) -> None:
    """Loss and accuracy over the epochs; the test split's accuracy, measured once, as a point at the end."""
    epochs = [int(row["epoch"]) for row in results]
    has_val = bool(results and results[0]["val_loss"])
    with mpl.rc_context(style()):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [float(row["train_loss"]) for row in results], "o-", color=BLUE, markersize=4, label="train")
        if has_val:
            left.plot(
                epochs, [float(row["val_loss"]) for row in results], "o-", color=ORANGE, markersize=4, label="val"
            )
            right.plot(
                epochs, [float(row["val_accuracy"]) for row in results], "o-", color=ORANGE, markersize=4, label="val"
            )  # fmt: skip
        if metrics is not None and epochs:
            low, high = metrics["accuracy_interval"]
            error = [[metrics["accuracy"] - low], [high - metrics["accuracy"]]]
            right.errorbar(
                [epochs[-1]], [metrics["accuracy"]], yerr=error, fmt="s", color=GREEN, capsize=4,
                label=f"{metrics['split']}, once, at the end: {100 * metrics['accuracy']:.1f} %",
            )  # fmt: skip
        if not has_val:
            note = "no val split in this run:\n--val-fraction 0.1 draws its curve here"
            right.text(0.03, 0.95, note, transform=right.transAxes, color=GREY, va="top")
        left.set(xlabel="epoch", ylabel="loss (cross-entropy)", title="Loss")
        right.set(xlabel="epoch", ylabel="accuracy", title="Accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        right.set_ylim(*_accuracy_range(results, metrics))
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlim(0.5, max([1, *epochs]) + 0.5)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right" if axes is left else "lower right")
        save(figure, path)


def draw_per_class(path: Path, metrics: dict[str, Any]) -> None:
    """Accuracy of each class with its interval, best first; of many classes, the 30 worst."""
    rows = sorted(metrics["per_class"], key=lambda row: row["accuracy"])[:_MAX_NAMED_CLASSES]
    left_out = len(metrics["per_class"]) - len(rows)
    title = (
        f"Accuracy per class ({metrics['split']})"
        if not left_out
        else f"The {len(rows)} worst of {left_out + len(rows)} classes ({metrics['split']})"
    )
    values = np.array([row["accuracy"] for row in rows])
    low, high = (np.array([row["interval"][end] for row in rows]) for end in (0, 1))
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 1.2 + _row_height(len(rows)) * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.barh([row["class"] for row in rows], values, color=BLUE, height=0.7)
        axes.errorbar(
            values, np.arange(len(rows)), xerr=[(values - low).clip(0), (high - values).clip(0)],
            fmt="none", ecolor="#111827", capsize=2, linewidth=1,
        )  # fmt: skip
        axes.axvline(metrics["accuracy"], color=ORANGE, linestyle="--", label=f"all: {100 * metrics['accuracy']:.1f} %")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="accuracy, with 95 % interval")
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
        save(figure, path)


def draw_confusion(path: Path, metrics: dict[str, Any]) -> None:
    """The confusion matrix: rows are the truth, each row's shares as colour, counts as numbers."""
    counts = np.array(metrics["confusion"])
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    classes = metrics["classes"]
    named = len(classes) <= _MAX_NAMED_CLASSES
    names = 0.06 * max(map(len, classes))  # inches: a letter is about so wide
    side = min(11.0, 2.6 + names + 0.52 * len(classes)) if named else 9.0
    with mpl.rc_context(style()):
        figure = Figure(figsize=(side, side * 0.92), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        if named:
            ticks = np.arange(len(classes))
            axes.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(ticks, classes)
            size = 9 if len(classes) <= 15 else 6
            for row, column in zip(*counts.nonzero(), strict=True):
                color = "white" if shares[row, column] > 0.5 else "#1f2937"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=size)
        axes.set(xlabel="prediction", ylabel="truth", title=f"Confusion matrix ({metrics['split']})")
        figure.colorbar(
            image, ax=axes, shrink=0.75, format=PercentFormatter(1, decimals=0), label="share of the true class"
        )
        save(figure, path)


def draw_confused_pairs(path: Path, metrics: dict[str, Any]) -> None:
    """The most frequent mistakes."""
    pairs = most_confused(metrics)[::-1]
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 1.1 + 0.3 * max(1, len(pairs))), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(
            [f"{truth} taken for {guess}" for truth, guess, _ in pairs], [n for _, _, n in pairs], color=RED
        )
        axes.bar_label(bars, padding=3, color="#374151")
        axes.set(xlabel="images", title=f"Most confused pairs ({metrics['split']})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        save(figure, path)


def draw_balance(path: Path, classes: Sequence[str], counts: dict[str, list[int]]) -> None:
    """Images per class, a colour a split."""
    colors = {"train": BLUE, "val": ORANGE, "test": GREEN}
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 1.2 + _row_height(len(classes)) * len(classes)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(classes))
        for split, values in counts.items():
            bars = axes.barh(
                list(classes), values, left=left, color=colors[split], height=0.7, label=f"{split}: {sum(values):,}"
            )
            if len(classes) <= _MAX_NAMED_CLASSES:
                axes.bar_label(
                    bars, labels=[f"{v:,}" if v else "" for v in values], label_type="center", color="white", fontsize=8
                )
            left += values
        axes.invert_yaxis()
        axes.set(xlabel="images", title="Images per class", ylim=(len(classes) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(counts), borderaxespad=0.2)
        save(figure, path)


def draw_comparison(path: Path, groups: Sequence[dict[str, Any]]) -> None:
    """A line a group: its runs as points, their mean with its 95 % interval."""
    with mpl.rc_context(style()):
        figure = Figure(figsize=(8, 1.3 + 0.5 * len(groups)), layout="constrained")
        axes = figure.subplots()
        for line, group in enumerate(groups):
            low, high = group["interval"]
            mean = group["mean"]
            axes.errorbar(
                [mean], [line], xerr=[[mean - low], [high - mean]], fmt="s", color=BLUE, capsize=4, zorder=2,
                label="mean, 95 % interval" if line == 0 else None,
            )  # fmt: skip
            axes.plot(
                group["accuracies"], [line + 0.18] * len(group["runs"]), "o", color=ORANGE, markersize=5, alpha=0.8,
                label="runs" if line == 0 else None,
            )  # fmt: skip
        axes.set_yticks(range(len(groups)), [f"{group['name']} ({len(group['runs'])})" for group in groups])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.set(
            ylim=(len(groups) - 0.4, -0.6), xlabel="test accuracy", title="Runs side by side (in brackets: how many)"
        )
        axes.grid(axis="y", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        save(figure, path)


def draw_lr_range(path: Path, found: LrRange, title: str) -> None:
    """Loss over a growing lr: each step's, smoothed, and the lr that is proposed."""
    with mpl.rc_context(style()):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(found.lrs, found.losses, ".", color=GREY, markersize=3, alpha=0.5, label="each step")
        axes.plot(found.lrs, found.smoothed, color=BLUE, linewidth=2, label="smoothed")
        if abs(found.lr / found.valley - 1) > 0.1:
            axes.axvline(found.valley, color=GREY, linestyle=":", label=f"stops falling: {found.valley:.1e}")
        axes.axvline(found.lr, color=ORANGE, linestyle="--", label=f"proposed: {found.lr:g}")
        # What diverged would press the rest of the curve flat.
        low, high = min(found.smoothed), max(found.smoothed[0], *found.smoothed[: len(found.smoothed) // 2])
        axes.set_ylim(low - 0.15 * (high - low), high + 0.5 * (high - low))
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (cross-entropy)", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        save(figure, path)


def _accuracy_range(results: Sequence[dict[str, str]], metrics: dict[str, Any] | None) -> tuple[float, float]:
    values = [float(row["val_accuracy"]) for row in results if row["val_accuracy"]]
    values += metrics["accuracy_interval"] if metrics else []
    low = min(values, default=0.0)
    return max(0.0, low - 0.1 - 0.2 * (1 - low)), min(1.005, max(values, default=1.0) + 0.05)


def _row_height(num_rows: int) -> float:
    return 0.32 if num_rows <= _MAX_NAMED_CLASSES else 0.17
