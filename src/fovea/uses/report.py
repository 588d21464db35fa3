"""The pictures of a run, and one self-contained page that tells its story."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from fovea import files
from fovea.calibration import COVERAGE_COLUMNS, RELIABILITY_COLUMNS, read_calibration
from fovea.config import RunConfig
from fovea.engine.progress import clock
from fovea.run import Run, read_rows
from fovea.uses import explain, plots, trust_plots
from fovea.uses.page import embedded, render
from fovea.uses.summary import probability_lines, splits, summary

_MANY_CLASSES = 20  # from here on, tables of a row a class are folded


def draw_charts(folder: Path, metrics: dict[str, Any]) -> None:
    """Draw what needs only metrics.json and the curves beside it."""
    plots.draw_per_class(folder / "plots" / "per_class.png", metrics)
    plots.draw_confusion(folder / "plots" / "confusion.png", metrics)
    plots.draw_confused_pairs(folder / "plots" / "confused_pairs.png", metrics)
    if "calibration" in metrics:
        bins = read_rows(folder / "reliability.csv", RELIABILITY_COLUMNS)
        picture = folder / "plots" / "reliability.png"
        trust_plots.draw_reliability(picture, bins, metrics["calibration"], metrics["split"])
        curve = read_rows(folder / "coverage.csv", COVERAGE_COLUMNS)
        trust_plots.draw_coverage(folder / "plots" / "coverage.png", curve, metrics)


def write_report(run: Run) -> Path:
    """Draw the charts anew and write report.html, from the run folder alone; returns the page's path."""
    metrics = run.metrics if run.has("metrics.json") else None
    results, steps, info, config, made = run.results, run.steps, run.info, run.config, run.environment
    if steps:
        plots.draw_loss(run.path / "plots" / "loss.png", steps)
    if results:
        plots.draw_curves(run.path / "plots" / "curves.png", results, metrics)
    if metrics is not None:
        draw_charts(run.path, metrics)
    page = render(
        "report.html",
        run=run, config=config, info=info, metrics=metrics, results=results, environment=made,
        loss_table=_loss_table(steps), pictures=embedded((run.path / "plots").glob("*.png")),
        summary=summary(run, metrics), splits=splits(run, read_calibration(run)),
        probability_lines=probability_lines(metrics) if metrics else [], how_to_explain=None if explain.can_explain() else explain.HOW_TO_GET,
        settings=_settings(run), many_classes=len(info.classes) > _MANY_CLASSES,
        train_time=_train_time(run.cost, results), costs=_costs(run.cost), now=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip
    path = run.path / "report.html"
    files.write_text(path, page)
    return path


def _loss_table(steps: list[dict[str, str]]) -> dict[str, Any]:
    """The note's table: a row an epoch, a column a logged step."""
    columns = sorted({int(row["step"]) for row in steps})
    cells = {(int(row["epoch"]), int(row["step"])): f"{float(row['loss']):.3f}" for row in steps}
    epochs = sorted({epoch for epoch, _ in cells})
    return {"columns": columns, "rows": [(epoch, [cells.get((epoch, c), "") for c in columns]) for epoch in epochs]}


def _train_time(cost: dict[str, Any], results: list[dict[str, str]]) -> str:
    return clock(cost.get("train_seconds") or sum(float(row["seconds"]) for row in results))


def _costs(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """Seconds and memory, for a table."""
    rows = {
        "train_seconds": "training, from before the network was built to its last step",
        "setup_seconds": "set-up", "step_seconds": "training steps", "val_seconds": "validation after each epoch",
        "save_seconds": "saving after each epoch", "calibrate_seconds": "temperature and thresholds on val", "test_seconds": "test", "single_view_test_seconds": "test, a single view",
    }  # fmt: skip
    shown = [(name, f"{cost[key]:.2f} s") for key, name in rows.items() if key in cost]
    return shown + ([("peak memory", f"{cost['peak_memory_mb']:,.0f} MB")] if cost.get("peak_memory_mb") else [])


def _start(config: RunConfig) -> list[tuple[str, str]]:
    """What a training that did not begin anew began with."""
    weights = config.pretrained or config.weights
    if weights is None:
        return []
    until = f", for the first {100 * config.freeze.until:.0f} % of the steps" if config.freeze.until < 1 else ""
    frozen = [("freeze", f"{config.freeze.what}{until}")] if config.freeze.what != "none" else []
    return [("pretrained" if config.pretrained else "weights", weights), *frozen, ("lr_decay", f"{config.lr_decay:g}")]


def _settings(run: Run) -> list[tuple[str, str]]:
    """The settings that matter to a reader, named as --set names them."""
    config = run.config
    return [
        ("recipe", config.recipe), ("model", config.model), *_start(config),
        ("epochs", str(config.epochs)) if config.minutes is None else ("minutes", f"{config.minutes:g}"),
        ("batch_size", str(config.batch_size)), ("optim.name", config.optim.name), ("optim.lr", f"{config.optim.lr:g}"),
        ("optim.momentum", f"{config.optim.momentum:g}"), ("optim.weight_decay", f"{config.optim.weight_decay:g}"),
        ("schedule.name", config.schedule.name), ("ema.span", f"{config.ema.span:g}" if config.ema.span else "none"), ("augment", ", ".join(config.augment) or "none"),
        ("balance", config.balance), ("patience", f"{config.patience or 'none'}"),
        ("standardize", "by train mean and std" if config.standardize else "no: only rescaled to [-1, 1]"),
        ("views", config.views), ("precision", run.info.precision), ("data.val_fraction", f"{config.data.val_fraction:g}"), ("seed", str(config.seed)),
    ]  # fmt: skip
