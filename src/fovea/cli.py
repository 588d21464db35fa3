"""The command line: parse, call, print. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fovea import __version__, program, registry
from fovea.errors import ConfigError
from fovea.options import (
    Augment,
    DataArgument,
    DataDir,
    Device,
    ImageSize,
    Json,
    Plugin,
    RunArgument,
    SkipBad,
    ValFraction,
)

app = typer.Typer(
    name="fovea", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fovea {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Train an image classifier, see what it learned, and take away a model that can be used."""


@app.command("list")
def list_parts(
    kind: Annotated[str | None, typer.Argument(help="recipes, models, data or augmentations; all without it.")] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Show the recipes, models, data sets and augmentations; of `models`, also parameters and FLOPs."""
    _load_plugins(plugin)
    from fovea.uses import listing

    listed = listing.list_parts(kind)
    _print_json(listed) if as_json else listing.print_parts(listed)


@app.command()
def inspect(
    data: DataArgument,
    out: Annotated[str | None, typer.Option(help="Folder for the pictures [inspect/<name>].")] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_fraction: ValFraction = None,
    augment: Augment = None,
    skip_bad: SkipBad = False,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Show what is in a data set, in figures and pictures."""
    _load_plugins(plugin)
    from fovea.api import folder_name, load_data
    from fovea.config import split_list
    from fovea.uses.inspect import draw_inspection, inspect_data
    from fovea.uses.tables import print_inspection

    options = {"data_dir": data_dir, "image_size": image_size, "val_fraction": val_fraction}
    given = {name: value for name, value in options.items() if value is not None}
    dataset = load_data(data, _display(as_json), skip_bad=skip_bad, **given)
    facts = inspect_data(dataset)
    augmentations = split_list(augment or "")
    written = draw_inspection(dataset, facts, Path(out or Path("inspect") / folder_name(data)), augmentations)
    if as_json:
        _print_json(facts)
        return
    print_inspection(facts)
    print("pictures: " + ", ".join(str(path) for path in written))


@app.command()
def train(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="A name that `fovea list` shows, or a folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="One that `fovea list recipes` shows [simple].")] = None,
    model: Annotated[str | None, typer.Option(help="A network other than the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (its highest, under a schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of SGD.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    augment: Augment = None,
    seed: Annotated[int | None, typer.Option(help="Of first weights, order and augmentation.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train this many times, from --seed on, and compare.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder [runs/<data>-<recipe>].")] = None,
    weights: Annotated[str | None, typer.Option(help="A .pth or .safetensors file to start from.")] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_fraction: ValFraction = None,
    skip_bad: SkipBad = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="path.to.field=value, for any field of config.yaml; repeatable.")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, test it once, write the report."""
    _load_plugins(plugin)
    everyday: dict[str, Any] = {
        "model": model, "epochs": epochs, "batch_size": batch_size, "lr": lr, "momentum": momentum,
        "weight_decay": weight_decay, "augment": augment, "seed": seed, "device": device,
        "weights": weights, "data_dir": data_dir, "image_size": image_size, "val_fraction": val_fraction,
        "skip_bad": skip_bad or None,
    }  # fmt: skip
    if resume is not None:
        if data or recipe or out or settings or seeds or any(value is not None for value in everyday.values()):
            raise ConfigError("--resume goes on with the settings of its run: give it no DATA and no other setting")
    elif data is None:
        raise ConfigError("train what? Give DATA: a name that `fovea list data` shows, or a folder of class folders")

    from fovea import api, repeat
    from fovea.config import parse_settings
    from fovea.uses.tables import accuracy_line

    display = _display(as_json)
    chosen, overrides = recipe or api.DEFAULT_RECIPE, parse_settings(settings or [])
    if seeds is not None or (resume is not None and repeat.is_group(resume)):
        if resume is not None:
            group = repeat.resume_seeds(resume, display=display)
        else:
            group = repeat.train_seeds(str(data), seeds or 0, chosen, out, overrides, display=display, **everyday)
        _show_comparison(repeat.members(group), group, as_json)
        return
    if resume is not None:
        run = api.resume(resume, display=display)
    else:
        run = api.train(str(data), chosen, out, overrides, display=display, **everyday)
    metrics = run.metrics if run.has("metrics.json") else None
    if as_json:
        _print_json({"run": str(run.path), "metrics": metrics})
        return
    if metrics is not None:
        print(accuracy_line(metrics))
    print(f"run: {run.path}")
    print(f"report: {run.path / 'report.html'}")


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[str | None, typer.Option(help="Other data than the run's.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    device: Device = "auto",
    data_dir: DataDir = None,
    out: Annotated[str | None, typer.Option(help="Where the results go [the run folder].")] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Measure a trained model on a test split or other data."""
    _load_plugins(plugin)
    from fovea import api
    from fovea.run import Run, read_predictions
    from fovea.uses.tables import print_metrics

    opened = Run(run)
    target = api.evaluation_folder(opened, data, split, out)
    metrics = api.evaluate(opened, data, split, device, data_dir, out, _display(as_json))
    if as_json:
        _print_json(metrics)
        return
    print_metrics(metrics, read_predictions(target)[:4])
    print(f"pictures: {target / 'plots'}")


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Picture files, folders or globs.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture.")] = 3,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    plugin: Plugin = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Say what is in pictures."""
    _load_plugins(plugin)
    from fovea import api
    from fovea.files import csv_text
    from fovea.uses.tables import print_predictions

    on_bad = (lambda why: print(f"skipped {why}", file=sys.stderr)) if skip_bad else None
    answers = api.load(run, device).predict(images, top, on_bad)
    if as_json:
        _print_json([answer.to_json() for answer in answers])
    elif as_csv:
        rows = [
            [a.path, rank, t["class"], f"{t['probability']:.6f}", f"{t['logit']:.6f}"]
            for a in answers for rank, t in enumerate(a.top, start=1)
        ]  # fmt: skip
        sys.stdout.write(csv_text(["path", "rank", "class", "probability", "logit"], rows))
    else:
        print_predictions(answers)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, or groups; runs that differ by seed form a group."),
    ],
    out: Annotated[str, typer.Option(help="Folder for compare.png and compare.json.")] = "compare",
    as_json: Json = False,
) -> None:
    """Put runs side by side: better, or just luck?"""
    from fovea import repeat
    from fovea.run import Run

    opened = [run for path in runs for run in (repeat.members(path) if repeat.is_group(path) else [Run(path)])]
    _show_comparison(opened, Path(out), as_json)


@app.command()
def report(run: RunArgument) -> None:
    """Write report.html anew from the run folder alone."""
    from fovea import api

    print(f"report: {api.report(run)}")


@app.command()
def export(
    run: RunArgument,
    format: Annotated[str | None, typer.Option(help="pth or safetensors [from --out, else pth].")] = None,
    out: Annotated[str | None, typer.Option(help="The file [RUN/export/model.<format>].")] = None,
) -> None:
    """Write the weights as a plain state dict, or safetensors."""
    from fovea.run import Run
    from fovea.uses.export import export as export_run

    print(f"weights: {export_run(Run(run), out, format)}")


def main() -> None:
    """The `fovea` program."""
    program.run(app)


def _load_plugins(paths: list[str] | None) -> None:
    for path in paths or []:
        registry.load_plugin(path)


def _display(as_json: bool) -> Any:
    """Progress lines make way for JSON on standard output."""
    from fovea.engine.progress import Display

    return Display(lines=sys.stderr if as_json else sys.stdout)


def _show_comparison(runs: list[Any], out: Path, as_json: bool) -> None:
    from fovea.uses.compare import compare as compare_runs
    from fovea.uses.tables import print_comparison

    result = compare_runs(runs, out)
    if as_json:
        _print_json(result)
    else:
        print_comparison(result)
        print(f"pictures: {out / 'compare.png'}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
