"""Which network makes the most of the same arithmetic? Each is trained on CIFAR-10 for an equal budget of FLOPs.

    FOVEA_DATA=... python benchmarks/models.py                                  # the list below
    FOVEA_DATA=... python benchmarks/models.py resnet:20 vgg:11 --tflop 1000 --seeds 5
    python benchmarks/models.py resnet:8 --data digits --tflop 0.02             # any data that Fovea knows

A network gets as many epochs as the budget pays: an epoch costs 3 × (forward FLOPs of an image) × (images). The epochs
are at least 1 and at most --max-epochs, so that a tiny network does not go over the images a thousand times; the report
says what each has spent. The learning rate is chosen for each network on a val split, without sight of the test images,
in runs of a quarter of the epochs; all else is the same for all. Then every seed trains on all training images and is
tested once.

Every finished run is kept in --raw: the same command again goes on where it was stopped, and writes the report.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence import HERE, commit, header, machine

import fovea
from fovea.data.types import Dataset
from fovea.device import pick_device
from fovea.errors import Diverged
from fovea.models.cost import flops_text, spec_cost
from fovea.uses.compare import student_interval

MODELS = ["tutorial", "convnet", "alexnet", "vgg:11", "resnet:20", "wide-resnet:16:2"]
LRS = (0.01, 0.03, 0.1)
CHOICE_SEED = 1000  # of the runs that choose the lr: none of those that are reported
COMMON: dict[str, Any] = {"batch_size": 128, "augment": "mirror,shift:4", "weight_decay": 5e-4}  # of recipe `simple`
BACKWARD = 3  # a step costs about three forward passes (fovea/models/cost.py)


class Ledger:
    """The finished runs, in a file; a run that is in it is not run again."""

    def __init__(self, path: Path, words: argparse.Namespace) -> None:
        self.path, self.words = path, words
        self.device = pick_device(words.device)
        self.runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def run(self, phase: str, data: Dataset, model: str, lr: float, seed: int, epochs: int) -> dict[str, Any]:
        """Train, or look it up."""
        key = {"phase": phase, "data": self.words.data, "model": model, "lr": lr, "seed": seed, "epochs": epochs}
        key |= COMMON
        for known in self.runs:
            if key.items() <= known.items():
                return known
        print(f"{phase}: {model}, lr {lr}, seed {seed}, {epochs} epochs", file=sys.stderr, flush=True)
        result = key | self._train(data, model, lr, seed, epochs) | {"commit": commit(), "on": machine(self.device)}
        self.runs.append(result)
        self.path.write_text(json.dumps(self.runs, indent=1) + "\n", encoding="utf-8")
        return result

    def _train(self, data: Dataset, model: str, lr: float, seed: int, epochs: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            options = {**COMMON, "model": model, "lr": lr, "seed": seed, "epochs": epochs, "val_fraction": 0.0}
            try:
                run = fovea.train(data, "simple", Path(folder) / "run", quiet=True, device=self.words.device, **options)
            except Diverged:
                return {"diverged": True}
            last = run.results[-1]
            seconds = sum(float(row["seconds"]) for row in run.results)
            if "test" in data.splits:
                measured = {name: run.metrics[name] for name in ("accuracy", "accuracy_interval", "num_images")}
            else:
                measured = {"val_accuracy": float(last["val_accuracy"])}
            return {"diverged": False, "seconds": seconds, "train_loss": float(last["train_loss"]), **measured}


def measure(ledger: Ledger, model: str, words: argparse.Namespace, data: Dataset, choosing: Dataset) -> dict[str, Any]:
    """Choose the lr, train every seed."""
    parameters, flops = spec_cost(model, len(data.classes), data.channels, data.image_size)
    per_epoch = BACKWARD * flops * len(data.train) / 1e12
    epochs = min(max(1, round(words.tflop / per_epoch)), words.max_epochs)
    tried = [ledger.run("lr", choosing, model, lr, CHOICE_SEED, max(1, round(epochs / 4))) for lr in words.lrs]
    good = [run for run in tried if not run["diverged"]]
    if not good:
        raise SystemExit(f"{model} diverged with every lr: give smaller --lrs")
    best = max(good, key=lambda run: run["val_accuracy"])
    runs = [ledger.run("test", data, model, best["lr"], seed, epochs) for seed in range(words.seeds)]
    finished = [run for run in runs if not run["diverged"]]
    return {
        "model": model, "parameters": parameters, "flops": flops, "epochs": epochs, "tflop": per_epoch * epochs,
        "lr": best["lr"], "tried": tried, "runs": runs, "accuracies": [run["accuracy"] for run in finished],
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> list[str]:
    """A row a model, best mean first."""
    rows = []
    for one in sorted(results, key=lambda r: -statistics.mean(r["accuracies"] or [0])):
        values = one["accuracies"]
        mean = f"{100 * statistics.mean(values):.2f}" if values else "diverged"
        spread = "-"
        if len(values) > 1:
            low, high = student_interval(values)
            spread = f"{100 * low:.2f} to {100 * high:.2f}"
        seconds = f"{statistics.mean(r['seconds'] for r in one['runs'] if not r['diverged']):.0f}" if values else "-"
        rows.append(
            f"| `{one['model']}` | {one['parameters']:,} | {flops_text(one['flops'])} | {one['epochs']} | "
            f"{one['tflop']:,.4g} | {one['lr']} | {mean} | {spread} | {seconds} |"
        )
    return [
        "| model | parameters | forward, an image | epochs | TFLOP spent | lr | test accuracy %, mean | "
        "95 % interval | training s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]


def report(results: list[dict[str, Any]], words: argparse.Namespace, command: str) -> str:
    """The evidence: the table, and every run."""
    tests, choices = [], []
    for one in results:
        tests += [f"| `{one['model']}` | {run['seed']} | {_measured(run)} |" for run in one["runs"]]
        for run in one["tried"]:
            outcome = "diverged" if run["diverged"] else f"{100 * run['val_accuracy']:.2f} %"
            choices.append(f"| `{one['model']}` | {run['lr']} | {run['epochs']} | {outcome} |")
    commits = sorted({run["commit"] for one in results for run in one["tried"] + one["runs"]})
    machines = sorted({run["on"] for one in results for run in one["tried"] + one["runs"]})
    return "\n".join([
        f"# Networks on {words.data} for the same arithmetic", "", header(command, pick_device(words.device)),
        f"The runs are of commit {', '.join(commits)}, on {'; '.join(machines)}.", "",
        f"Budget: {words.tflop:,.4g} TFLOP of training a network, counted as {BACKWARD} × forward FLOPs × images; "
        f"at least 1 epoch, at most {words.max_epochs}. Recipe `simple` (SGD, Nesterov momentum 0.9, cosine schedule) "
        f"with {', '.join(f'{name} {value}' for name, value in COMMON.items())}. Each network's lr was chosen among "
        f"{', '.join(map(str, words.lrs))} on a tenth of the training images, with a quarter of the epochs. Then "
        f"{words.seeds} seeds on all training images, each tested once, one view each. Intervals: Student's, of seeds. "
        "The clock holds the training steps, without starting up, validating and testing.", "",
        *table(results), "", "## Every run", "",
        "| model | seed | test accuracy | 95 % interval (Wilson) | last train loss | training s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |", *tests, "", "## Choosing the lr", "",
        "| model | lr | epochs | val accuracy |", "| --- | ---: | ---: | ---: |", *choices, "",
    ])  # fmt: skip


def _measured(run: dict[str, Any]) -> str:
    if run["diverged"]:
        return "diverged | - | - | -"
    low, high = (100 * end for end in run["accuracy_interval"])
    return f"{100 * run['accuracy']:.2f} % | {low:.2f} to {high:.2f} | {run['train_loss']:.3f} | {run['seconds']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"as --model takes them [{' '.join(MODELS)}]")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--tflop", type=float, default=600.0, help="of training, for each network")
    parser.add_argument("--max-epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lrs", type=lambda text: tuple(map(float, text.split(","))), default=LRS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--raw", type=Path, default=HERE / "models.json", help="the finished runs")
    parser.add_argument("--out", type=Path, default=HERE / "models.md")
    words = parser.parse_args()
    data = fovea.load_data(words.data)
    held_out = fovea.load_data(words.data, val_fraction=0.1)
    choosing = replace(held_out, splits={name: held_out.splits[name] for name in ("train", "val")})  # no test in sight
    ledger = Ledger(words.raw, words)
    results = [measure(ledger, model, words, data, choosing) for model in words.models or MODELS]
    command = shlex.join(["python", "benchmarks/models.py", *sys.argv[1:]])
    text = report(results, words, command)
    words.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
