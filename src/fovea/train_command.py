"""`fovea train`: the command with the most options."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fovea.errors import ConfigError
from fovea.options import (
    Augment,
    Columns,
    DataDir,
    ImageSize,
    Json,
    Plugin,
    Precision,
    Resize,
    SkipBad,
    ValFraction,
    Views,
)
from fovea.program import display_for, load_plugins, print_json, show_comparison

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A name that `fovea list` shows; a folder, zip or tar of class folders; a CSV or Parquet manifest; or hf:owner/name.",
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="auto, or one that `fovea list recipes` shows [auto].")] = None,
    model: Annotated[str | None, typer.Option(help="A network other than the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Instead of --epochs: time for all of it.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better one on val [never].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="One that `fovea list optimizers` shows [the recipe's].")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (its highest, under a schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum, for instance 0.9.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    schedule: Annotated[str | None, typer.Option(help="One that `fovea list schedules` shows [the recipe's].")] = None,
    augment: Augment = None,
    balance: Annotated[
        str | None,
        typer.Option(
            help="Small classes count as much as large ones: none, loss (weights), sample (drawn more often)."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of first weights, order and augmentation.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train this many times, from --seed on, and compare.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate: train this many times, each image being tested once, and compare."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder [runs/<data>-<recipe>].")] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help="Start from timm's weights, of the hub's cache or of this file, for --model timm:NAME.",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from this run, or from a .pth or .safetensors file of the same network.")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Keep as it was: backbone (train the head alone), a number of stages, or none.")
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    val_fraction: ValFraction = None,
    columns: Columns = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Keep what belongs together on one side of a split: a manifest's column; of a folder `parent` (the "
            "folders below the classes) or a regular expression on file names."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="RUN", help="Hold out for test and val what that run, or its split.json, did.")
    ] = None,
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
        "device": device, "pretrained": pretrained, "weights": weights, "freeze": freeze, "data_dir": data_dir, "image_size": image_size, "val_fraction": val_fraction,
        "views": views, "precision": precision, "skip_bad": skip_bad or None,
        "columns": columns, "group": group, "split": split, "resize": resize, "minutes": minutes, "patience": patience, "balance": balance,
    }  # fmt: skip
    if resume is not None:
        if (
            data
            or recipe
            or out
            or settings
            or seeds
            or folds
            or find_lr
            or any(value is not None for value in everyday.values())
        ):
            raise ConfigError("--resume goes on with the settings of its run: give it no DATA and no other setting")
    elif data is None:
        raise ConfigError("train what? Give DATA: a name that `fovea list data` shows, or a folder of class folders")
    if seeds is not None and folds is not None:
        raise ConfigError("--seeds and --folds each train a group: give one of them")

    from fovea import api, repeat
    from fovea.config import parse_settings
    from fovea.uses.tables import accuracy_line, cost_line, trust_lines

    display = display_for(as_json)
    overrides = parse_settings(settings or [])
    if find_lr:
        _find_lr(str(data), recipe, overrides, display, as_json, everyday)
        return
    if seeds is not None or folds is not None or (resume is not None and repeat.is_group(resume)):
        if resume is not None:
            path = repeat.resume_seeds(resume, display=display)
        elif folds is not None:
            path = repeat.train_folds(str(data), folds, recipe, out, overrides, display=display, **everyday)
        else:
            path = repeat.train_seeds(str(data), seeds or 0, recipe, out, overrides, display=display, **everyday)
        show_comparison(repeat.members(path), path, as_json)
        return
    if resume is not None:
        run = api.resume(resume, display=display)
    else:
        run = api.train(str(data), recipe, out, overrides, display=display, **everyday)
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


class TrainCommand(TyperCommand):
    """`train`, whose --pretrained may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give it one, unless a weights file follows."""
        words = []
        for word, following in zip(args, [*args[1:], ""], strict=False):
            alone = word == "--pretrained" and Path(following).suffix not in WEIGHTS_SUFFIXES
            words.append("--pretrained=hub" if alone else word)
        return super().parse_args(ctx, words)


def _find_lr(
    data: str, recipe: str | None, overrides: dict[str, str], display: Any, as_json: bool, everyday: dict[str, Any]
) -> None:
    from fovea.data.find import folder_name
    from fovea.uses.lr_finder import find_lr

    picture = Path("find-lr") / f"{folder_name(data)}-{recipe or 'auto'}.png"
    found = find_lr(data, recipe, overrides, picture, display=display, **everyday)
    words = [word for word in sys.argv[1:] if word not in ("--find-lr", "--json")]
    command = shlex.join(["fovea", *words, "--lr", f"{found.lr:g}"])
    if as_json:
        print_json({**dataclasses.asdict(found), "picture": str(picture), "command": command})
        return
    print(f"lr: {found.lr:g} ({found.rule})")
    print(f"picture: {picture}")
    print(f"train with it: {command}")
