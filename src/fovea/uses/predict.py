"""What a trained classifier says about pictures it has never seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.calibration import Calibration, probabilities, read_calibration
from fovea.data.preprocess import Preprocess, find_images
from fovea.data.types import Split
from fovea.device import pick_device, precision_here
from fovea.engine.evaluate import infer, load_model
from fovea.errors import ConfigError, DataError
from fovea.models.base import Model
from fovea.run import Run

UNKNOWN = "I don't know"
_CHUNK_BYTES = 64 << 20  # of decoded pictures before the network sees them: bounds memory for any number of files


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture."""

    path: str
    prediction: str
    probability: float  # 0 to 1
    top: tuple[dict[str, Any], ...]  # class, probability, logit (the note's "energy"); best first
    confident: bool = True  # False: the probability is below what was asked for

    @property
    def answer(self) -> str:
        """The prediction; "I don't know" where it is not confident."""
        return self.prediction if self.confident else UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """What `fovea predict --json` prints of it."""
        return {
            "path": self.path,
            "prediction": self.prediction,
            "probability": self.probability,
            "top": list(self.top),
            "confident": self.confident,
            "answer": self.answer,
        }


class Classifier:
    """A trained network together with its classes, its preprocessing and what its probabilities are worth."""

    def __init__(
        self, model: Model, classes: Sequence[str], preprocess: Preprocess, device: torch.device, views: str = "one",
        precision: str = "fp32", calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.classes = tuple(classes)
        self.preprocess = preprocess
        self.device = device
        self.views = views
        self.precision = precision
        self.calibration = calibration or Calibration()

    @staticmethod
    def load(run: Run | str | Path, device: str = "auto") -> Classifier:
        """Build the classifier that a run folder holds; it looks at pictures as the run's test did. Raises RunError."""
        run = run if isinstance(run, Run) else Run(run)
        chosen = pick_device(device)
        info, precision = run.info, precision_here(run.info.precision, chosen)
        calibration = read_calibration(run)
        model = load_model(run, chosen)
        return Classifier(model, info.classes, info.preprocess, chosen, info.views, precision, calibration)

    def logits(self, images: Tensor) -> Tensor:
        """`(N, C, H, W) uint8` of the model's own size to `(N, K)` float32 logits on the CPU, averaged over the views.

        Raises DataError.
        """
        wanted = (self.preprocess.channels, *self.preprocess.image_size)
        if images.ndim != 4 or images.dtype != torch.uint8 or tuple(images.shape[1:]) != wanted:
            raise DataError(
                f"images must be (N, {', '.join(map(str, wanted))}) uint8, not {tuple(images.shape)} {images.dtype}"
            )
        split = Split(images, torch.zeros(len(images), dtype=torch.int64), ())
        return infer(self.model, split, self.preprocess, self.device, self.views, self.precision)

    def predict(
        self,
        images: str | Path | Sequence[str | Path] | Tensor,
        top: int = 5,
        on_bad: Callable[[str], object] | None = None,
        min_confidence: float | str | None = None,
    ) -> list[Prediction]:
        """Classify files, folders and globs, or an `(N, C, H, W) uint8` tensor. Raises ConfigError, DataError.

        Args:
            top: how many classes to name for each picture.
            on_bad: told of each file that cannot be decoded, which is then left out. Without it, DataError is raised.
            min_confidence: below this probability the answer is "I don't know"; `auto`: the run's threshold from val.
        """
        least = least_confidence(min_confidence, self.calibration)
        if isinstance(images, Tensor):
            return self._answers([str(row) for row in range(len(images))], self.logits(images), top, least)
        patterns = [images] if isinstance(images, (str, Path)) else list(images)
        paths = find_images([str(pattern) for pattern in patterns])
        chunk = max(1, _CHUNK_BYTES // (self.preprocess.channels * math.prod(self.preprocess.image_size)))
        answers = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), chunk):
                decoded = list(pool.map(self._decode, paths[start : start + chunk]))
                bad = [found for found in decoded if isinstance(found, DataError)]
                for error in bad:
                    if on_bad is None:
                        raise error
                    on_bad(str(error))
                good = [found for found in decoded if not isinstance(found, DataError)]
                if good:
                    logits = self.logits(torch.stack([pixels for _, pixels in good]))
                    answers += self._answers([name for name, _ in good], logits, top, least)
        return answers

    def _decode(self, path: Path) -> tuple[str, Tensor] | DataError:
        try:
            return str(path), self.preprocess.decode(path)
        except DataError as error:
            return error

    def _answers(self, names: list[str], logits: Tensor, top: int, least: float) -> list[Prediction]:
        best = probabilities(logits, self.calibration.temperature).topk(min(top, len(self.classes)), dim=1)
        answers = []
        for row, name in enumerate(names):
            ranked = tuple(
                {"class": self.classes[k], "probability": probability, "logit": logits[row, k].item()}
                for probability, k in zip(best.values[row].tolist(), best.indices[row].tolist(), strict=True)
            )
            first = ranked[0]
            answers.append(
                Prediction(name, first["class"], first["probability"], ranked, first["probability"] >= least)
            )
        return answers


def least_confidence(wanted: float | str | None, calibration: Calibration) -> float:
    """From a probability, its text, `auto` or None to a probability. Raises ConfigError."""
    if wanted is None:
        return 0.0
    if wanted == "auto":
        if calibration.auto is None or calibration.auto.threshold is None:
            measured = calibration.accuracy is not None
            why = "no threshold reaches the accuracy sought on val" if measured else calibration.note
            raise ConfigError(f"--min-confidence auto: {why}; or give a probability, such as 0.9")
        return calibration.auto.threshold
    try:
        least = float(wanted)
    except ValueError:
        least = math.nan
    if not 0 <= least <= 1:
        raise ConfigError(f"--min-confidence {wanted}: a probability from 0 to 1, or auto for the run's own threshold")
    return least
