"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A name that `fovea list` shows; a folder, zip or tar of class folders; a CSV or Parquet manifest; or hf:owner/name.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, as `fovea train` leaves it.")]
DataDir = Annotated[str | None, typer.Option(help="Where named data sets are looked for first.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Plugin = Annotated[
    list[str] | None,
    typer.Option(help="A Python file with models, augmentations, sources or recipes of your own; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Go on without files that cannot be decoded and rows that are wrong, and list them."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Which column of a manifest is what, for instance path=file,label=kind [path,label,split,group]."
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(help="Side in pixels that a folder's pictures are resized to [chosen from them].")
]
Resize = Annotated[
    str | None,
    typer.Option(help="How: crop (the middle, the default), pad (the whole picture, on grey), squash (to a square)."),
]
ValFraction = Annotated[float | None, typer.Option(help="Share of train kept apart for val.")]
Augment = Annotated[str | None, typer.Option(help="For instance mirror,shift:2,cutout:8; none for none.")]
Views = Annotated[
    str | None,
    typer.Option(
        help="Average the test's answers over: one (as the image is), mirror, mirror-shift (as speed records do)."
    ),
]
Precision = Annotated[
    str | None, typer.Option(help="Of the arithmetic: auto (bf16 where that is quicker), fp32, bf16 or fp16 (GPUs).")
]
