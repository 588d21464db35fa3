"""`fovea train`: the command with the most options."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fovea.errors import ConfigError
from fovea.options import Augment, DataDir, ImageSize, Json, Plugin, Precision, SkipBad, ValFraction, Views
from fovea.program import display_for, load_plugins, print_json, show_comparison


def train(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="A name that `fovea list` shows, or a folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="One that `fovea list recipes` shows [simple].")] = None,
    model: Annotated[str | None, typer.Option(help="A network other than the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="One that `fovea list optimizers` shows [the recipe's].")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (its highest, under a schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum, for instance 0.9.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    schedule: Annotated[str | None, typer.Option(help="One that `fovea list schedules` shows [the recipe's].")] = None,
    augment: Augment = None,
    seed: Annotated[int | None, typer.Option(help="Of first weights, order and augmentation.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train this many times, from --seed on, and compare.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder [runs/<data>-<recipe>].")] = None,
    weights: Annotated[str | None, typer.Option(help="A .pth or .safetensors file to start from.")] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_fraction: ValFraction = None,
    views: Views = None,
    precision: Precision = None,
    skip_bad: SkipBad = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="path.to.field=value, for any field of config.yaml; repeatable.")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Train nothing: try rising learning rates, draw the curve, propose one.")
    ] = False,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, test it once, write the report."""
    load_plugins(plugin)
    everyday: dict[str, Any] = {
        "model": model, "epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "lr": lr,
        "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule, "augment": augment, "seed": seed,
        "device": device, "weights": weights, "data_dir": data_dir, "image_size": image_size, "val_fraction": val_fraction,
        "views": views, "precision": precision, "skip_bad": skip_bad or None,
    }  # fmt: skip
    if resume is not None:
        if (
            data
            or recipe
            or out
            or settings
            or seeds
            or find_lr
            or any(value is not None for value in everyday.values())
        ):
            raise ConfigError("--resume goes on with the settings of its run: give it no DATA and no other setting")
    elif data is None:
        raise ConfigError("train what? Give DATA: a name that `fovea list data` shows, or a folder of class folders")

    from fovea import api, repeat
    from fovea.config import parse_settings
    from fovea.uses.tables import accuracy_line, cost_line, trust_lines

    display = display_for(as_json)
    chosen, overrides = recipe or api.DEFAULT_RECIPE, parse_settings(settings or [])
    if find_lr:
        _find_lr(str(data), chosen, overrides, display, as_json, everyday)
        return
    if seeds is not None or (resume is not None and repeat.is_group(resume)):
        if resume is not None:
            group = repeat.resume_seeds(resume, display=display)
        else:
            group = repeat.train_seeds(str(data), seeds or 0, chosen, out, overrides, display=display, **everyday)
        show_comparison(repeat.members(group), group, as_json)
        return
    if resume is not None:
        run = api.resume(resume, display=display)
    else:
        run = api.train(str(data), chosen, out, overrides, display=display, **everyday)
    metrics = run.metrics if run.has("metrics.json") else None
    if as_json:
        print_json({"run": str(run.path), "metrics": metrics, "cost": run.cost})
        return
    if metrics is not None:
        print(accuracy_line(metrics))
        print("\n".join(trust_lines(metrics)))
    print(cost_line(run.cost))
    print(f"run: {run.path}")
    print(f"report: {run.path / 'report.html'}")


def _find_lr(
    data: str, recipe: str, overrides: dict[str, str], display: Any, as_json: bool, everyday: dict[str, Any]
) -> None:
    from fovea.api import folder_name
    from fovea.uses.lr_finder import find_lr

    picture = Path("find-lr") / f"{folder_name(data)}-{recipe}.png"
    found = find_lr(data, recipe, overrides, picture, display=display, **everyday)
    words = [word for word in sys.argv[1:] if word not in ("--find-lr", "--json")]
    command = shlex.join(["fovea", *words, "--lr", f"{found.lr:g}"])
    if as_json:
        print_json({**dataclasses.asdict(found), "picture": str(picture), "command": command})
        return
    print(f"lr: {found.lr:g} ({found.rule})")
    print(f"picture: {picture}")
    print(f"train with it: {command}")
