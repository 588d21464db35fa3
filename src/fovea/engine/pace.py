"""How far a run has come: by its steps, or by the clock where it has a budget of minutes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import torch

from fovea.config import RunConfig
from fovea.data.types import Dataset
from fovea.engine.cost import Cost
from fovea.engine.evaluate import infer
from fovea.engine.small_first import stages
from fovea.engine.views import views_of
from fovea.models.base import Model
from fovea.run import Run

REPORT_SECONDS = 5.5  # of one core, for charts, pictures and report.html after the test (EXPERIMENTS.md)
_MOST_BUSY = 8.0  # times as long as that, on a machine that others use, too
# Images of train that are inferred after an epoch without a val split, to see that weights are finite; so few that Winograd's way,
# whose weights at the points are 280 MB of `best`, is not taken (EXPERIMENTS.md).
NUM_CHECKED = 16
# The side of small first images to the power of this: 16×16 pixels take 0.34 to 0.38 of the time of 32×32, 24×24 0.62 to 0.66 (EXPERIMENTS.md).
_SMALL_POWER = 1.5


class ByEpochs:
    """A run of a fixed number of epochs: it has come as far as its steps. Steps count from 1 over the whole run."""

    def __init__(self, config: RunConfig, steps_per_epoch: int, first_epoch: int) -> None:
        self._epochs = config.epochs or 0
        self.num_steps: float = steps_per_epoch * self._epochs
        self._stages = [(end * self.num_steps, scale**_SMALL_POWER) for end, scale in stages(config.small_first)]
        self._begun, self._first = time.perf_counter(), self._work((first_epoch - 1) * steps_per_epoch)

    def epochs(self, first: int) -> Iterable[int]:
        """The numbers of those that are left."""
        return range(first, self._epochs + 1)

    def name(self, epoch: int) -> str:
        """`epoch 3/10`."""
        return f"epoch {epoch}/{self._epochs}"

    def position(self, step: int) -> float:
        """Where the schedule stands at `step`, from 0 to below `num_steps`."""
        return step - 1

    def over(self, step: int) -> str:
        """Why the run must end after `step`, within an epoch; empty, as it ends with its last epoch."""
        return ""

    def share(self, step: int) -> float:
        """How much of the run's work is behind after `step`, 0 to 1."""
        return self._work(step) / (self._work(self.num_steps) or 1.0)

    def seconds_left(self, step: int) -> float:
        """From now to the last step, as fast as until now."""
        done = self._work(step) - self._first
        return (time.perf_counter() - self._begun) / max(done, 1e-9) * (self._work(self.num_steps) - self._work(step))

    def _work(self, steps: float) -> float:
        done = work = 0.0
        for end, cost in self._stages:
            work += max(0.0, min(steps, end) - done) * cost
            done = end
        return work


class ByClock:
    """A run of a budget of minutes: it has come as far as the clock, so that lr has come down when the time is up.

    On a busy machine it takes fewer steps, and every part of the schedule has its share of the time all the same. Kept
    free for what follows the last step: a validation and a saving, as long as those before, the test, and the report.
    """

    num_steps = 1000.0  # any number: what the clock's share of the budget is multiplied by

    def __init__(
        self, minutes: float, steps_per_epoch: int, cost: Cost, num_val: int, num_test: int, seconds_per_image: float
    ) -> None:
        self._minutes, self._steps_per_epoch, self._cost = minutes, steps_per_epoch, cost
        self._num_val, self._num_test, self._seconds_per_image = num_val, num_test, seconds_per_image
        self._progress, self._step, self._begun, self._step_seconds = 0.0, 0, time.perf_counter(), 0.0
        self._first, self._first_cpu = time.perf_counter(), time.process_time()

    def epochs(self, first: int) -> Iterable[int]:
        """Numbers without end."""
        return itertools.count(first)

    def name(self, epoch: int) -> str:
        """`epoch 3`: how many there will be is not known."""
        return f"epoch {epoch}"

    def position(self, step: int) -> float:
        """Where the schedule stands at `step`, from 0 to below `num_steps`; it never goes back."""
        self._step, self._begun = step, time.perf_counter()
        self._progress = max(self._progress, self._cost.elapsed() / self._training_seconds())
        return min(self._progress, 0.999) * self.num_steps

    def over(self, step: int) -> str:
        """Why the run must end after `step`: there is no time for another like it. Empty: there is."""
        if step == self._step:  # once, before what comes after an epoch
            self._step, self._step_seconds = 0, time.perf_counter() - self._begun
        if self._cost.elapsed() + self._step_seconds <= self._training_seconds():
            return ""
        epochs, rest = divmod(step, self._steps_per_epoch)
        share = f"{100 * rest / self._steps_per_epoch:.0f} %"
        if not epochs:
            return (
                f"the time is up after {share} of the first pass over the images, the others were never seen: "
                "give more --minutes, or a smaller --model"
            )
        whole = f"{epochs} epoch{'' if epochs == 1 else 's'}"
        return f"the time is up after {whole}" + (f" and {share} of another" if rest else "")

    def share(self, step: int) -> float:
        """How much of the time is over, 0 to 1."""
        return min(1.0, self._cost.elapsed() / (60 * self._minutes))

    def seconds_left(self, step: int) -> float:
        """To the end of the budget."""
        return max(0.0, 60 * self._minutes - self._cost.elapsed())

    def _training_seconds(self) -> float:
        """Until the last step. At least half of the budget: a report on a network that has seen nothing helps nobody."""
        validation, saving = self._cost.mean("val"), self._cost.mean("save")
        per_image = self._seconds_per_image if validation is None else validation / self._num_val
        # How much of a core this process gets. Waiting for a GPU looks like sharing one, and costs some seconds at most.
        used = (time.process_time() - self._first_cpu + 0.1) / (time.perf_counter() - self._first + 0.1)
        report = REPORT_SECONDS * min(max(1.0, 1 / used), _MOST_BUSY)
        after = (self._num_val + self._num_test) * per_image + (saving or 0.0) + report
        return max(60 * self._minutes - after, 30 * self._minutes)


Pace = ByEpochs | ByClock


def build_pace(
    run: Run, dataset: Dataset, model: Model, steps_per_epoch: int, first_epoch: int, device: torch.device, cost: Cost
) -> Pace:
    """How this run's way is measured; for the clock, a few images are inferred, to know what the test will take."""
    config, info = run.config, run.info
    if config.minutes is None:
        return ByEpochs(config, steps_per_epoch, first_epoch)
    few = dataset.train.take(torch.arange(min(250, len(dataset.train))))
    for _ in range(2):  # the first time, what is needed is loaded
        begun = time.perf_counter()
        infer(model, few, info.preprocess, device, precision=info.precision)
        seconds_per_image = (time.perf_counter() - begun) / len(few)
    cost.lap("setup")
    num_seen = {name: len(split) for name, split in dataset.splits.items()}
    num_test = num_seen.get("test", 0) * len(views_of(info.views))
    num_val = num_seen.get("val", NUM_CHECKED)
    return ByClock(config.minutes, steps_per_epoch, cost, num_val, num_test, seconds_per_image)
