"""The run folder: everything that a run leaves behind, readable without Fovea.

config.yaml  environment.json       what was run, and on what
results.csv  steps.csv              a row per epoch; a row per logged running loss
metrics.json  predictions.csv       the test split
calibration.json                    temperature and thresholds, chosen on val
reliability.csv  coverage.csv       what probabilities were worth on the test split
cost.json                           seconds and memory of the training, seconds of the test
split.json                          ids that Fovea held out as val or test, where the data came without
weights/{best,last}.safetensors     tensors only
model.json                          architecture, classes, preprocessing: all that predicting needs
resume.pt                           the state after the last whole epoch; removed by no one, read weights_only
plots/*.png  report.html            pictures of the above
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from torch import Tensor

from fovea import files
from fovea.config import Precision, RunConfig, Views
from fovea.data.preprocess import Preprocess
from fovea.errors import RunError
from fovea.metrics import METRICS_KEYS, completed

FORMAT = 1  # of the run folder; raised when an older Fovea could not read a newer folder
RESULTS_COLUMNS = ("epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second")
STEPS_COLUMNS = ("epoch", "step", "loss")
ENVIRONMENT_KEYS = ("versions", "device", "hardware", "seed", "git_commit", "command", "started")
PREDICTIONS_COLUMNS = ("path", "label", "prediction", "probability", "label_probability")
_TEXT_COLUMNS = ("path", "label", "prediction")


@dataclass(frozen=True)
class ModelInfo:
    """What model.json holds."""

    model: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    num_parameters: int
    views: str = "one"  # that predictions average over; an earlier run, which does not name them, had one
    precision: str = "fp32"  # of the arithmetic
    flops: int | None = None  # of one forward pass of one image; None in folders of a Fovea that did not count them


class Run:
    """A run folder that exists. Its attributes read the files; `config` and `info`, which never change, only once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunError(f"no run folder {path}: a run is what `fovea train` leaves, for instance in runs/")
        if not (self.path / "model.json").is_file() and not (self.path / "config.yaml").is_file():
            raise RunError(f"{path} is no run folder: it has neither config.yaml nor model.json")

    def __repr__(self) -> str:
        return f"Run('{self.path}')"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> RunConfig:
        """What was run."""
        return RunConfig.from_yaml(self._text("config.yaml"), str(self.path / "config.yaml"))

    @cached_property
    def info(self) -> ModelInfo:
        """What the model is. Raises RunError where model.json is missing, damaged or of another version."""
        value = self._json("model.json")
        try:
            if value["format"] != FORMAT:
                raise RunError(
                    f"{self.path / 'model.json'} has format {value['format']}, this Fovea reads format {FORMAT}: "
                    "use the Fovea that wrote it (environment.json names it), or train anew"
                )
            views, precision = value.get("views", "one"), value.get("precision", "fp32")
            if views not in get_args(Views) or precision not in get_args(Precision):
                raise ValueError(f"views {views}, precision {precision}")
            preprocess, num_parameters = Preprocess.from_json(value["preprocess"]), value["num_parameters"]
            classes = tuple(value["classes"])
            return ModelInfo(value["model"], classes, preprocess, num_parameters, views, precision, value.get("flops"))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path / "model.json", f"{type(error).__name__}: {error}") from None

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, command line."""
        return self._table("environment.json", ENVIRONMENT_KEYS)

    @property
    def metrics(self) -> dict[str, Any]:
        """The test split's figures."""
        return completed(self._table("metrics.json", METRICS_KEYS))

    @property
    def cost(self) -> dict[str, Any]:
        """Seconds and memory of the training, seconds of the test; empty for a run older than cost.json."""
        return self._table("cost.json", ()) if self.has("cost.json") else {}

    @property
    def held_out(self) -> dict[str, list[str]]:
        """The ids that were held out when the data was split; empty where the data came split."""
        return self._table("split.json", ()) if self.has("split.json") else {}

    @property
    def results(self) -> list[dict[str, str]]:
        """The rows of results.csv."""
        return read_rows(self.path / "results.csv", RESULTS_COLUMNS)

    @property
    def steps(self) -> list[dict[str, str]]:
        """The rows of steps.csv."""
        return read_rows(self.path / "steps.csv", STEPS_COLUMNS)

    def has(self, name: str) -> bool:
        """Is the file there?"""
        return (self.path / name).is_file()

    def weights(self, which: str = "best") -> dict[str, Tensor]:
        """The tensors of `best` or `last`, on the CPU."""
        try:
            return read_weights(self.path / "weights" / f"{which}.safetensors")
        except RunError as error:
            raise RunError(f"{error}: restore it, or train anew") from None

    def save_weights(self, which: str, state: dict[str, Tensor]) -> None:
        """Write weights/`which`.safetensors."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        path = self.path / "weights" / f"{which}.safetensors"
        files.write_bytes(path, safetensors.torch.save(tensors))

    def save_info(self, info: ModelInfo) -> None:
        """Write model.json."""
        files.write_json(self.path / "model.json", {"format": FORMAT, **asdict(info)})

    def save_history(self, results: list[list[Any]], steps: list[list[Any]]) -> None:
        """Write results.csv and steps.csv."""
        files.write_csv(self.path / "results.csv", RESULTS_COLUMNS, results)
        files.write_csv(self.path / "steps.csv", STEPS_COLUMNS, steps)

    def save_cost(self, cost: dict[str, float | None]) -> None:
        """Write cost.json."""
        files.write_json(self.path / "cost.json", cost)

    def save_resume(self, state: dict[str, Any]) -> None:
        """Write resume.pt: tensors, numbers and texts only."""
        with files.replacing(self.path / "resume.pt") as file:  # in memory it would be as much again
            torch.save(state, file)

    def load_resume(self) -> dict[str, Any]:
        """Read resume.pt, never unpickling code. Raises RunError."""
        path = self.path / "resume.pt"
        if not path.is_file():
            raise RunError(f"{path} is missing: this run cannot be resumed; train anew")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state
        except Exception as error:  # torch raises many kinds for a file that was cut short or is no such file
            kind = type(error).__name__
            raise RunError(f"{path} is damaged or cut short ({kind}): restore it, or train anew") from None

    def _text(self, name: str) -> str:
        return read_text(self.path / name)

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._text(name))
        except json.JSONDecodeError as error:
            raise _damaged(self.path / name, str(error)) from None

    def _table(self, name: str, keys: Sequence[str]) -> dict[str, Any]:
        """A JSON object that has at least these keys."""
        value = self._json(name)
        lacking = [key for key in keys if not isinstance(value, dict) or key not in value]
        if lacking or not isinstance(value, dict):
            raise _damaged(self.path / name, f"lacks {lacking[0]}" if lacking else "is no object")
        return value


def read_predictions(folder: Path) -> list[dict[str, str]]:
    """The rows of predictions.csv in a run folder, or in the folder of another evaluation. Raises RunError."""
    return read_rows(folder / "predictions.csv", PREDICTIONS_COLUMNS)


def create_run(out: str | None, name: str) -> Path:
    """Make an empty run folder: `out` itself, or runs/`name`, `name`-2, ... Raises RunError where `out` is in use."""
    if out is not None:
        path = Path(out)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"--out {out} is there already and is never overwritten: name another, or go on with --resume {out}"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--out {out} cannot be made: {error.strerror}; name another") from None
        return path
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a .pth state dict, which is never unpickled as code. Raises RunError."""
    path = Path(path)
    if not path.is_file():
        raise RunError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise RunError(
                f"{path} holds more than tensors, and Fovea never runs code from a file: save a state_dict"
            ) from None
        raise RunError(f"{path} is damaged, cut short, or no weights file") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise RunError(f"{path} holds no plain state_dict: save one with torch.save(net.state_dict(), ...)")
    return state


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Put tensors into a model. Raises RunError naming the first that does not fit."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, shape in wanted.items():
        if name not in found:
            raise RunError(f"{where} does not fit the model: it lacks {name}, which the model has")
        if found[name] != shape:
            raise RunError(
                f"{where} does not fit the model: {name} is {list(found[name])} there and {list(shape)} in the model"
            )
    extra = [name for name in found if name not in wanted]
    if extra:
        raise RunError(f"{where} does not fit the model: it has {extra[0]}, which the model lacks")
    model.load_state_dict(state)


def read_text(path: Path) -> str:
    """The text of a file in a run folder. Raises RunError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"{path} is missing from the run folder: restore it, or train anew") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least these columns. Raises RunError."""
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ())[: len(columns)] != columns:
        raise _damaged(path, f"its columns are not {', '.join(columns)}")
    rows = list(reader)
    if not text.endswith("\n") or any(None in row or None in row.values() for row in rows):
        raise _damaged(path, "a row is cut short")
    for row in rows:
        for column in columns:
            if column not in _TEXT_COLUMNS and not _is_number(row[column]):
                raise _damaged(path, f"'{row[column]}' in column {column} is no number")
    return rows


def _is_number(text: str) -> bool:
    """Empty counts: no val split, no val_loss."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged ({why}): restore it, or train anew")
