"""The command line: parse, call, print. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fovea import __version__, program
from fovea.cache_command import cache
from fovea.options import (
    Augment,
    Columns,
    DataArgument,
    DataDir,
    Device,
    ImageSize,
    Json,
    Plugin,
    Resize,
    RunArgument,
    SkipBad,
    ValFraction,
    Views,
)
from fovea.program import display_for, load_plugins, print_json, show_comparison
from fovea.train_command import TrainCommand, train

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
    kind: Annotated[
        str | None,
        typer.Argument(help="recipes, models, data, augmentations, optimizers or schedules; all without it."),
    ] = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Show the recipes, models, data sets, augmentations, optimizers and schedules; of `models`, also parameters and FLOPs."""
    load_plugins(plugin)
    from fovea.uses import listing

    listed = listing.list_parts(kind)
    print_json(listed) if as_json else listing.print_parts(listed)


@app.command()
def inspect(
    data: DataArgument,
    out: Annotated[str | None, typer.Option(help="Folder for the pictures [inspect/<name>].")] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    val_fraction: ValFraction = None,
    augment: Augment = None,
    columns: Columns = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Also rank the labels that this run, or group of runs, doubts.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 3 where something serious is found.")] = False,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Show what is in a data set, in figures and pictures, and what is wrong with it."""
    load_plugins(plugin)
    from fovea.api import load_data
    from fovea.config import split_list
    from fovea.data.find import folder_name
    from fovea.uses.health.album import Album
    from fovea.uses.health.check import check_health
    from fovea.uses.health.page import write_page
    from fovea.uses.health.runs import judged_by
    from fovea.uses.inspect import draw_inspection, inspect_data
    from fovea.uses.tables import print_findings, print_inspection

    options = {"data_dir": data_dir, "image_size": image_size, "val_fraction": val_fraction, "resize": resize}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    given |= {"skip_bad": True, "columns": split_list(columns or "")}
    display, judged = display_for(as_json), None
    if run is not None:
        album, judged = judged_by(run, data, given, display)
    else:
        album = Album(load_data(data, display, **given))
    findings = check_health(album, display, judged)
    facts = {**inspect_data(album.dataset), "findings": [finding.to_json() for finding in findings]}
    out_folder = Path(out or Path("inspect") / folder_name(data))
    written = draw_inspection(album.dataset, facts, out_folder, split_list(augment or ""))
    write_page(out_folder / "inspect.html", album, facts, findings, written)
    if as_json:
        print_json(facts)
    else:
        print_inspection(facts)
        print_findings(findings)
        print("pictures: " + ", ".join(str(path) for path in written))
        print(f"page: {out_folder / 'inspect.html'}")
    if strict and any(finding.severity == "serious" for finding in findings):
        raise typer.Exit(3)


app.command(cls=TrainCommand)(train)


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[str | None, typer.Option(help="Other data than the run's.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    views: Views = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    out: Annotated[str | None, typer.Option(help="Where the results go [the run folder].")] = None,
    columns: Columns = None,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Measure a trained model on a test split or other data."""
    load_plugins(plugin)
    from fovea import api
    from fovea.config import split_list
    from fovea.run import Run, read_predictions
    from fovea.uses.tables import print_metrics

    opened = Run(run)
    target = api.evaluation_folder(opened, data, split, out, views)
    metrics = api.evaluate(
        opened, data, split, device, data_dir, out, display_for(as_json), views, split_list(columns or "")
    )
    if as_json:
        print_json(metrics)
        return
    print_metrics(metrics, read_predictions(target)[:4])
    print(f"pictures: {target / 'plots'}")


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Picture files, folders or globs.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture.")] = 3,
    min_confidence: Annotated[
        str | None,
        typer.Option(help="Say \"I don't know\" below this probability; auto: the run's threshold from val."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw what the network looked at into this file (up to 24 pictures)."),
    ] = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    plugin: Plugin = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Say what is in pictures."""
    load_plugins(plugin)
    from fovea import api
    from fovea.calibration import read_calibration
    from fovea.files import csv_text
    from fovea.run import Run
    from fovea.uses.gallery import check_explaining, draw_answers
    from fovea.uses.predict import least_confidence
    from fovea.uses.tables import print_predictions

    opened = Run(run)
    least = least_confidence(min_confidence, read_calibration(opened))
    if explain is not None:
        check_explaining(explain)
    on_bad = (lambda why: print(f"skipped {why}", file=sys.stderr)) if skip_bad else None
    classifier = api.load(opened, device)
    answers = classifier.predict(images, top, on_bad, least)
    if explain is not None:
        draw_answers(Path(explain), classifier, answers)
    if as_json:
        print_json([answer.to_json() for answer in answers])
    elif as_csv:
        rows = [
            [a.path, rank, t["class"], f"{t['probability']:.6f}", f"{t['logit']:.6f}", a.answer]
            for a in answers for rank, t in enumerate(a.top, start=1)
        ]  # fmt: skip
        sys.stdout.write(csv_text(["path", "rank", "class", "probability", "logit", "answer"], rows))
    else:
        print_predictions(answers)
        if explain is not None:
            print(f"picture: {explain}")


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
    show_comparison(opened, Path(out), as_json)


app.command()(cache)


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


if __name__ == "__main__":
    main()
