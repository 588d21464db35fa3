"""A run's weights in formats that other programs take."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from fovea import files
from fovea.errors import ConfigError, nearest
from fovea.run import Run

FORMATS = ("pth", "safetensors")


def export(run: Run, out: str | Path | None = None, format: str | None = None, which: str = "best") -> Path:
    """Write the plain state dict of the run's weights and return the file's path.

    Args:
        out: the file; by default `export/model.<format>` in the run folder.
        format: `pth` (what `torch.load` takes) or `safetensors`; by default from the ending of `out`.
    """
    format = format or (Path(out).suffix.lstrip(".") if out is not None else "pth")
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'{nearest(format, FORMATS)}")
    if out is not None and Path(out).suffix.lstrip(".") in FORMATS and Path(out).suffix != f".{format}":
        raise ConfigError(f"--out {out} and --format {format} contradict each other")
    path = Path(out) if out is not None else run.path / "export" / f"model.{format}"
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder: name a file")
    state = run.weights(which)
    with files.replacing(path) as file:
        if format == "pth":
            torch.save(state, file)
        else:
            file.write(safetensors.torch.save(state))
    return path
