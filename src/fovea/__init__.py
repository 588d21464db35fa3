"""Fovea trains image classifiers, tells how good they are and why they fail, and hands over a model that can be used.

The names below are the public Python API. They are imported when first used, so that `import fovea` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.api import evaluate, load, load_data, report, resume, train
    from fovea.data.types import Dataset
    from fovea.errors import FoveaError
    from fovea.registry import augmentation, load_plugin, model, optimizer, recipe, schedule, source
    from fovea.repeat import resume_seeds, train_folds, train_seeds
    from fovea.run import Run
    from fovea.uses.compare import compare
    from fovea.uses.export import export
    from fovea.uses.lr_finder import find_lr
    from fovea.uses.predict import Classifier, Prediction

__version__ = "0.1.0"

_HOMES = {
    "fovea.api": ("evaluate", "load", "load_data", "report", "resume", "train"),
    "fovea.data.types": ("Dataset",),
    "fovea.errors": ("FoveaError",),
    "fovea.uses.compare": ("compare",),
    "fovea.uses.export": ("export",),
    "fovea.uses.lr_finder": ("find_lr",),
    "fovea.uses.predict": ("Classifier", "Prediction"),
    "fovea.repeat": ("resume_seeds", "train_folds", "train_seeds"),
    "fovea.registry": ("augmentation", "load_plugin", "model", "optimizer", "recipe", "schedule", "source"),
    "fovea.run": ("Run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Classifier",
    "Dataset",
    "FoveaError",
    "Prediction",
    "Run",
    "augmentation",
    "compare",
    "evaluate",
    "export",
    "find_lr",
    "load",
    "load_data",
    "load_plugin",
    "model",
    "optimizer",
    "recipe",
    "report",
    "resume",
    "resume_seeds",
    "schedule",
    "source",
    "train",
    "train_folds",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'fovea' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
