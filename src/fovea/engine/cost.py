"""What a training costs: its time by what it went into, and its memory."""

from __future__ import annotations

import time
from typing import Any

import torch

from fovea.device import peak_memory_mb

PARTS = ("setup", "step", "val", "save")


class Cost:
    """A clock that runs from its making on; each lap goes to one part. A resumed run adds to what it had spent.

    It knows nothing of starting Python, importing libraries and reading the images.

    setup   data statistics, first weights (from data, too), moving the images to the device, optimizer
    step    the training steps; what is compiled or chosen at the first of them is in here
    val     validation after each epoch; without a val split, the check that the weights are still finite
    save    weights, history and resume.pt after each epoch
    """

    def __init__(self, device: torch.device) -> None:
        # torch.optim loads it at its first use: seconds of reading code, in every process, whatever is trained.
        import torch._dynamo

        self._last = time.perf_counter()
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._laps = dict.fromkeys(PARTS, 0)
        self._here = dict.fromkeys(PARTS, 0.0)
        self._train_seconds = 0.0
        self._peak: float | None = None

    def lap(self, part: str) -> None:
        """All time since the last lap went into `part`; whoever calls has waited for the device."""
        now = time.perf_counter()
        self._parts[part] += now - self._last
        self._here[part] += now - self._last
        self._laps[part] += 1
        self._last = now
        if part in ("setup", "step"):
            self._train_seconds = sum(self._parts.values())

    def elapsed(self) -> float:
        """Seconds until now, those of earlier processes included."""
        return sum(self._parts.values()) + time.perf_counter() - self._last

    def mean(self, part: str) -> float | None:
        """Seconds of a lap of `part` in this process; None where there was none yet."""
        return self._here[part] / self._laps[part] if self._laps[part] else None

    def summary(self) -> dict[str, float | None]:
        """What cost.json holds.

        `train_seconds` is the whole clock from before the model was built to the final weights in memory: set-up, steps,
        and what stood between the epochs; not what came after the last step. Seconds of a process that was stopped within
        an epoch are lost, as the epoch is.
        """
        here = peak_memory_mb(self._device)
        if here is not None:
            self._peak = max(here, self._peak or 0.0)
        parts = {f"{part}_seconds": seconds for part, seconds in self._parts.items()}
        return {"train_seconds": self._train_seconds, **parts, "peak_memory_mb": self._peak}

    def restore(self, saved: dict[str, Any]) -> None:
        """Add to what `summary` said when the run was saved."""
        for part in PARTS:
            self._parts[part] += float(saved[f"{part}_seconds"])
        self._train_seconds += float(saved["train_seconds"])
        self._peak = saved["peak_memory_mb"]
