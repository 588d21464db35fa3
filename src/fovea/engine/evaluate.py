"""Model and images to logits; the metrics merely reduce them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fovea import files, registry
from fovea.calibration import Calibration, calibrate, probabilities, read_calibration, trust_metrics, write_curves
from fovea.data.loader import Loader
from fovea.data.preprocess import Preprocess
from fovea.data.types import Dataset, Split
from fovea.device import exact_float32, memory_errors, precision_here
from fovea.engine.answers import answers
from fovea.engine.views import views_of
from fovea.errors import DataError, RunError, some
from fovea.metrics import compute_metrics, plain_metrics
from fovea.models.base import Model, build_model
from fovea.run import PREDICTIONS_COLUMNS, Run, load_weights

# Images at a time without gradients: large enough to be fast, small enough for any memory; fewer on a CPU, which is no slower
# with them, above 64×64 pixels, and where more than two cores have some each.
_BATCH_SIZE, _CPU_BATCH_SIZE, _BATCH_PIXELS = 250, 100, 500 * 64 * 64


@dataclass(frozen=True)
class Inference:
    """A model's answers for a split: `(N, K)` float32 logits on the CPU, and what they cost."""

    logits: Tensor  # averaged over the views
    single: Tensor  # of the plain view alone
    seconds: float  # from images in the machine's memory to logits there, all views
    single_seconds: float  # the same of the plain view


def infer(
    model: nn.Module, split: Split, preprocess: Preprocess, device: torch.device, views: str = "one",
    precision: str = "fp32", num_threads: int = 0,
) -> Tensor:  # fmt: skip
    """Logits `(N, K)` float32 on the CPU, in the split's order, averaged over `views`."""
    return measure(model, split, preprocess, device, views, precision, num_threads).logits


def measure(
    model: nn.Module, split: Split, preprocess: Preprocess, device: torch.device, views: str = "one",
    precision: str = "fp32", num_threads: int = 0,
) -> Inference:  # fmt: skip
    """What `infer` returns, with the plain view's own answers and the time that each took.

    `num_threads`, on a CPU: 0 for as many as PyTorch has.
    """
    was_training = model.training
    model.eval()
    begun = time.perf_counter()
    single, single_seconds = torch.empty(0), 0.0
    height, width = preprocess.image_size
    num_threads = num_threads or torch.get_num_threads() if device.type == "cpu" else 1
    most = _CPU_BATCH_SIZE if device.type == "cpu" else _BATCH_SIZE
    batch_size = max(1, min(most, _BATCH_PIXELS // (height * width)) * 2 // max(2, num_threads))
    hint = "end what else uses it, or take another --device"
    with torch.inference_mode(), exact_float32(), memory_errors(f"on {device} for {batch_size} images at a time", hint):
        loader = Loader(split, preprocess, batch_size, device)
        for number, (weight, view) in enumerate(views_of(views)):
            batches = (images for images, _ in loader.epoch())
            seen = torch.cat(list(answers(model, batches, view, precision, device, num_threads)))
            if number == 0:  # the plain view
                single, single_seconds = seen, time.perf_counter() - begun
                logits = weight * seen
            else:
                logits += weight * seen
    model.train(was_training)
    return Inference(logits, single, time.perf_counter() - begun, single_seconds)


def load_model(run: Run, device: torch.device, which: str = "best") -> Model:
    """The run's network with its `best` or `last` weights, in evaluation mode. Raises RunError."""
    model = untrained_model(run)
    state = run.weights(which)
    try:
        load_weights(model, state, str(run.path / "weights" / f"{which}.safetensors"))
    except RunError as error:
        raise RunError(f"{error}: restore it, or train anew") from None
    return model.to(device).eval()


def untrained_model(run: Run) -> Model:
    """The run's network with weights that are about to be replaced. Raises RunError where it is not known here."""
    info = run.info
    name = info.model.partition(":")[0]
    if name not in registry.model.names():
        raise RunError(f"{run.path} needs the model '{name}', which is not part of Fovea: give its file with --plugin")
    with torch.random.fork_rng([]):  # the caller's random numbers stay as they were
        return build_model(info.model, len(info.classes), info.preprocess.channels, info.preprocess.image_size)


def evaluate_split(
    run: Run, dataset: Dataset, split_name: str, device: torch.device, out: Path, views: str | None = None
) -> dict[str, Any]:
    """Evaluate the run's best weights on one split, by the run's views or others.

    Writes metrics.json, predictions.csv, reliability.csv, coverage.csv and, into cost.json, the seconds that it took: what
    repeats when it is measured again stays apart from what does not.
    """
    info = run.info
    split = match_classes(dataset, split_name, info.classes, info.preprocess)
    views = views or info.views
    precision = precision_here(info.precision, device)
    found = measure(load_model(run, device), split, info.preprocess, device, views, precision)
    calibration = read_calibration(run)
    metrics = compute_metrics(found.logits, split.labels, info.classes, split_name, len(views_of(views)))
    metrics["single_view"] = plain_metrics(found.single, split.labels)
    metrics |= trust_metrics(found.logits, split.labels, calibration)
    rows = prediction_rows(found.logits, split, info.classes, calibration.temperature)
    files.write_csv(out / "predictions.csv", PREDICTIONS_COLUMNS, rows)
    write_curves(out, found.logits, split.labels, calibration.temperature)
    files.write_json(out / "metrics.json", metrics)
    trained = run.cost if out == run.path else {}
    tested = {"test_seconds": found.seconds, "single_view_test_seconds": found.single_seconds}
    files.write_json(out / "cost.json", {**trained, **tested})
    return metrics


def calibrate_run(run: Run, dataset: Dataset, device: torch.device) -> Calibration:
    """Choose temperature and thresholds by the run's best weights on its val split; writes calibration.json.

    Without a val split nothing is calibrated, and the file says so.
    """
    info, begun = run.info, time.perf_counter()
    if "val" in dataset.splits:
        split = match_classes(dataset, "val", info.classes, info.preprocess)
        precision = precision_here(info.precision, device)
        logits = infer(load_model(run, device), split, info.preprocess, device, info.views, precision)
        found = calibrate(logits, split.labels)
    else:
        found = Calibration(
            note="no val split, so nothing to calibrate on: --val-fraction 0.1 keeps a tenth of train apart"
        )
    found.save(run.path)
    run.save_cost({**run.cost, "calibrate_seconds": time.perf_counter() - begun})
    return found


def match_classes(dataset: Dataset, split_name: str, classes: tuple[str, ...], preprocess: Preprocess) -> Split:
    """The split with its labels in the model's class order, matched by name; the data may lack some. Raises DataError."""
    if split_name not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split_name} split: there are {', '.join(dataset.splits)}")
    if strange := sorted(set(dataset.classes) - set(classes)):
        raise DataError(
            f"the classes of {dataset.name} are not the model's: it does not know {some(strange)}; "
            f"its classes are {some(classes)}"
        )
    if (dataset.channels, dataset.image_size) != (preprocess.channels, preprocess.image_size):
        raise DataError(
            f"{dataset.name} has {dataset.channels} channels of {_size(dataset.image_size)} pixels, "
            f"the model takes {preprocess.channels} of {_size(preprocess.image_size)}"
        )
    split = dataset.splits[split_name]
    if not len(split):
        raise DataError(f"the {split_name} split of {dataset.name} holds no images")
    position = torch.tensor([classes.index(name) for name in dataset.classes])
    return replace(split, labels=position[split.labels])


def prediction_rows(
    logits: Tensor, split: Split, classes: tuple[str, ...], temperature: float
) -> list[tuple[str, str, str, str, str]]:
    """Rows of predictions.csv."""
    shares = probabilities(logits, temperature)
    best = shares.max(dim=1)
    truth = shares.gather(1, split.labels[:, None]).flatten()
    return [
        (path, classes[label], classes[prediction], f"{probability:.6f}", f"{label_probability:.6f}")
        for path, label, prediction, probability, label_probability in zip(
            split.ids, split.labels.tolist(), best.indices.tolist(), best.values.tolist(), truth.tolist(), strict=True
        )
    ]


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"
