"""What is saved after each epoch, so that a run can go on as if it had never stopped."""

from __future__ import annotations

from typing import Any

import torch

from fovea.data.hardest import Hardest
from fovea.device import rng_state, set_rng_state
from fovea.engine.cost import Cost
from fovea.errors import RunError
from fovea.models.base import Model
from fovea.optim.average import WeightAverage
from fovea.run import Run, load_weights


class State:
    """Weights, optimizer, history, and why the run ended if it ended before its last epoch."""

    def __init__(
        self, run: Run, model: Model, optimizer: torch.optim.Optimizer, average: WeightAverage,
        scaler: torch.amp.GradScaler, hardest: Hardest, fingerprint: int, cost: Cost,
    ) -> None:  # fmt: skip
        self.run, self.model, self.optimizer, self.average = run, model, optimizer, average
        self.scaler, self.hardest, self.fingerprint, self.cost = scaler, hardest, fingerprint, cost
        self.results: list[list[Any]] = []
        self.steps: list[list[Any]] = []
        self.best: list[float] = []  # val accuracy and minus val loss, of the best epoch so far
        self.best_epoch = 0
        self.ended = ""  # why; empty: it goes on, or its epochs are done

    def restore(self, device: torch.device) -> int:
        """Go back to the last whole epoch and return its number; 0, and a first save, in a new run."""
        if not self.run.has("resume.pt"):
            self.cost.lap("setup")
            self._save(0, device)
            return 0
        saved = self.run.load_resume()
        try:
            if saved["fingerprint"] != self.fingerprint:
                raise RunError(f"the training images are no longer those that {self.run.path} began with: train anew")
            load_weights(self.model, saved["model"], str(self.run.path / "resume.pt"))
            self.optimizer.load_state_dict(saved["optimizer"])
            self.average.load_state_dict(saved.get("average", {}))
            self.scaler.load_state_dict(saved.get("scaler", {}))
            self.hardest.losses = saved.get("hardest", self.hardest.losses)  # a run older than it took all images
            self.hardest.times = saved.get("times_shown", self.hardest.times)
            if "cost" in saved:  # not of a run older than the clock
                self.cost.restore(saved["cost"])
            set_rng_state(saved["rng"], device)
            self.results, self.steps, self.best = saved["results"], saved["steps"], saved["best"]
            self.best_epoch, self.ended = saved.get("best_epoch", 0), saved.get("ended", "")
            self.run.save_history(self.results, self.steps)
            epoch: int = saved["epoch"]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.run.path / 'resume.pt'} does not belong to this run: {error}") from None
        self.cost.lap("setup")
        return epoch

    def end_epoch(self, record: dict[str, Any], score: list[float], ended: str, device: torch.device) -> None:
        """Note the epoch and save.

        Args:
            score: the higher, the better, compared from the left; empty without a val split: the latest counts as the best.
            ended: why the run ends with this epoch, if it does. It may end for want of a better one, too.
        """
        values = record.values()
        self.results.append(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values])
        epoch, patience = record["epoch"], self.run.config.patience
        if not score or score > self.best:
            self.best, self.best_epoch = score, epoch
            self.run.save_weights("best", self.average.model.state_dict())
        if patience and epoch - self.best_epoch >= patience:
            ended = f"no epoch since epoch {self.best_epoch} was better on val, and patience is {patience}"
        self.ended = ended
        self._save(epoch, device)

    def _save(self, epoch: int, device: torch.device) -> None:
        self.run.save_weights("last", self.average.model.state_dict())
        if epoch == 0:
            self.run.save_weights("best", self.average.model.state_dict())
        self.run.save_history(self.results, self.steps)
        cost = self.cost.summary()
        self.run.save_cost(cost)
        # The last file written: until it stands, the epoch before it counts.
        self.run.save_resume({
            "epoch": epoch, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(), "rng": rng_state(device), "fingerprint": self.fingerprint,
            "results": self.results, "steps": self.steps, "best": self.best,
            "best_epoch": self.best_epoch, "ended": self.ended,
            "scaler": self.scaler.state_dict(), "hardest": self.hardest.losses,
            "times_shown": self.hardest.times, "cost": cost,
        })  # fmt: skip
        self.cost.lap("save")
