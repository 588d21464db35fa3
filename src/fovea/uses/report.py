"""The pictures of a run, and one self-contained page that tells its story."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from fovea import files
from fovea.engine.progress import clock
from fovea.metrics import most_confused
from fovea.run import Run
from fovea.uses import plots

_CSS_PIXELS = 0.58  # per pixel of a plot: its type comes out as large as the page's
_MANY_CLASSES = 20  # from here on, tables of a row a class are folded


def draw_charts(folder: Path, metrics: dict[str, Any]) -> None:
    """Draw what needs only metrics.json."""
    plots.draw_per_class(folder / "plots" / "per_class.png", metrics)
    plots.draw_confusion(folder / "plots" / "confusion.png", metrics)
    plots.draw_confused_pairs(folder / "plots" / "confused_pairs.png", metrics)


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fovea"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    page = environment.get_template("report.html").render(
        run=run, config=config, info=info, metrics=metrics, results=results, environment=made,
        loss_table=_loss_table(steps), pictures=_pictures(run),
        summary=_summary(metrics), settings=_settings(run), many_classes=len(info.classes) > _MANY_CLASSES,
        train_time=_train_time(run.cost, results), costs=_costs(run.cost), now=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip
    path = run.path / "report.html"
    files.write_text(path, page)
    return path


def _pictures(run: Run) -> dict[str, dict[str, Any]]:
    """Every plot as a data URI, so that the page needs no other file, with its width in CSS pixels."""
    pictures = {}
    for path in sorted((run.path / "plots").glob("*.png")):
        data = path.read_bytes()
        width = int.from_bytes(data[16:20], "big")  # of the PNG's header
        uri = "data:image/png;base64," + base64.b64encode(data).decode()
        pictures[path.stem] = {"uri": uri, "width": round(width * _CSS_PIXELS)}
    return pictures


def _loss_table(steps: list[dict[str, str]]) -> dict[str, Any]:
    """The note's table: a row an epoch, a column a logged step."""
    columns = sorted({int(row["step"]) for row in steps})
    cells = {(int(row["epoch"]), int(row["step"])): f"{float(row['loss']):.3f}" for row in steps}
    epochs = sorted({epoch for epoch, _ in cells})
    return {"columns": columns, "rows": [(epoch, [cells.get((epoch, c), "") for c in columns]) for epoch in epochs]}


def _summary(metrics: dict[str, Any] | None) -> list[str]:
    """What the figures say, in sentences."""
    if metrics is None:
        return ["No test figures: the run was stopped before its end, or its data has no test split."]
    low, high = metrics["accuracy_interval"]
    ranked = sorted(metrics["per_class"], key=lambda row: row["accuracy"])
    worst, best = ranked[0], ranked[-1]
    lines = [
        f"Of {metrics['num_images']:,} {metrics['split']} images, {100 * metrics['accuracy']:.1f} % were recognized. "
        f"The test images are a sample: with 95 % confidence the share among all such images lies between "
        f"{100 * low:.1f} % and {100 * high:.1f} %. The interval knows nothing of luck in training: this is one run "
        "with one seed.",
        *_views_line(metrics),
        f"Best recognized is {best['class']} ({100 * best['accuracy']:.1f} %), worst {worst['class']} "
        f"({100 * worst['accuracy']:.1f} %).",
    ]
    pairs = most_confused(metrics, 1)
    if pairs:
        truth, guess, number = pairs[0]
        share = number / max(1, next(row["support"] for row in metrics["per_class"] if row["class"] == truth))
        lines.append(
            f"Most frequent mistake: {truth} taken for {guess}, {number} times ({100 * share:.1f} % of {truth})."
        )
    return lines


def _views_line(metrics: dict[str, Any]) -> list[str]:
    if metrics["views"] == 1:
        return []
    single = metrics["single_view"]["accuracy"]
    return [
        f"The network saw each image in {metrics['views']} views (mirrored, shifted) and its answers were averaged; "
        f"by a single view, as the image is, it recognized {100 * single:.1f} %. Predictions average in the same way."
    ]


def _train_time(cost: dict[str, Any], results: list[dict[str, str]]) -> str:
    return clock(cost.get("train_seconds") or sum(float(row["seconds"]) for row in results))


def _costs(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """Seconds and memory, for a table."""
    rows = {
        "train_seconds": "training, from before the network was built to its last step",
        "setup_seconds": "set-up", "step_seconds": "training steps", "val_seconds": "validation after each epoch",
        "save_seconds": "saving after each epoch", "test_seconds": "test", "single_view_test_seconds": "test, a single view",
    }  # fmt: skip
    shown = [(name, f"{cost[key]:.2f} s") for key, name in rows.items() if key in cost]
    return shown + ([("peak memory", f"{cost['peak_memory_mb']:,.0f} MB")] if cost.get("peak_memory_mb") else [])


def _settings(run: Run) -> list[tuple[str, str]]:
    """The settings that matter to a reader, named as --set names them."""
    config = run.config
    return [
        ("recipe", config.recipe), ("model", config.model), ("epochs", str(config.epochs)),
        ("batch_size", str(config.batch_size)), ("optim.name", config.optim.name), ("optim.lr", f"{config.optim.lr:g}"),
        ("optim.momentum", f"{config.optim.momentum:g}"), ("optim.weight_decay", f"{config.optim.weight_decay:g}"),
        ("schedule.name", config.schedule.name), ("ema.span", f"{config.ema.span:g}" if config.ema.span else "none"), ("augment", ", ".join(config.augment) or "none"),
        ("standardize", "by train mean and std" if config.standardize else "no: only rescaled to [-1, 1]"),
        ("views", config.views), ("precision", run.info.precision), ("data.val_fraction", f"{config.data.val_fraction:g}"), ("seed", str(config.seed)),
    ]  # fmt: skip
