"""The tutorial recipe beside the note's own script: how fast, and how good.

    FOVEA_DATA=... python benchmarks/tutorial.py speed       # images per second of both, in turn; prints the ratio
    FOVEA_DATA=... python benchmarks/tutorial.py accuracy    # seeds 0, 1, 2: accuracy, running losses, memory

Each writes its report, with every raw run, to benchmarks/tutorial_<what>.md. Every measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STEPS, WARM_UP, ROUNDS = 4000, 200, 5
SEEDS = (0, 1, 2)
# The note's table: a row an epoch, a column for each 2,000 mini-batches.
NOTE_LOSSES = [
    [2.219, 1.978, 1.754, 1.600, 1.517, 1.469],
    [1.405, 1.363, 1.356, 1.323, 1.293, 1.280],
    [1.234, 1.228, 1.204, 1.186, 1.179, 1.183],
    [1.111, 1.095, 1.135, 1.119, 1.119, 1.105],
    [0.995, 1.043, 1.048, 1.060, 1.064, 1.042],
]


def measure_note() -> dict[str, Any]:
    """The note's loop on its own terms: DataLoader with 2 workers, torchvision transforms, loss.item() at every step.

    The clock starts after some steps, so that starting the workers does not count against it.
    """
    import torch
    import torchvision
    from torch import nn, optim

    sys.path.insert(0, str(HERE.parent / "tests"))
    from note import TRANSFORM, Net

    train_set = torchvision.datasets.CIFAR10(os.environ["FOVEA_DATA"], train=True, transform=TRANSFORM)
    loader = torch.utils.data.DataLoader(train_set, batch_size=4, shuffle=True, num_workers=2)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    running_loss, begun = 0.0, 0.0
    for step, (inputs, labels) in enumerate(loader):
        if step == WARM_UP:
            begun = time.perf_counter()
        if step == WARM_UP + STEPS:
            break
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return {"images_per_second": 4 * STEPS / (time.perf_counter() - begun)}


def measure_fovea() -> dict[str, Any]:
    """The product's own loop over as many images, with everything that an epoch of it includes."""
    import torch

    import fovea

    data = fovea.load_data("cifar10")
    part = data.train.take(torch.arange(4 * STEPS))
    small = type(data)(data.config, data.classes, {"train": part}, data.facts, {})
    with tempfile.TemporaryDirectory() as folder:
        run = fovea.train(small, "tutorial", Path(folder) / "run", quiet=True, epochs=1, device="cpu")
        return {"images_per_second": float(run.results[0]["images_per_second"])}


def measure_seed(seed: int) -> dict[str, Any]:
    """A whole run: accuracy, running losses, seconds, peak memory."""
    import fovea

    with tempfile.TemporaryDirectory() as folder:
        run = fovea.train("cifar10", "tutorial", Path(folder) / "run", seed=seed, device="cpu")
        return {
            "seed": seed,
            "accuracy": run.metrics["accuracy"],
            "interval": run.metrics["accuracy_interval"],
            "losses": [float(row["loss"]) for row in run.steps],
            "seconds": sum(float(row["seconds"]) for row in run.results),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def in_a_process(*words: str) -> dict[str, Any]:
    """One measurement, in a fresh interpreter."""
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(*words, {k: v for k, v in result.items() if k != "losses"}, flush=True)
    return result


def report_speed() -> str:
    """Both sides in turn."""
    runs = [(in_a_process("--one", "note"), in_a_process("--one", "fovea")) for _ in range(ROUNDS)]
    note, ours = ([run[side]["images_per_second"] for run in runs] for side in (0, 1))
    ratios = [b / a for a, b in zip(note, ours, strict=True)]
    rows = [f"| {i} | {a:,.0f} | {b:,.0f} | {b / a:.2f} |" for i, (a, b) in enumerate(zip(note, ours, strict=True), 1)]
    return "\n".join([
        "# Speed of the tutorial recipe beside the note's script", "", this_header("speed"), "",
        f"{STEPS:,} steps of batch 4 on CIFAR-10 a run, each in a process of its own, in turn. Note: DataLoader with 2 "
        f"workers and torchvision transforms, without its first {WARM_UP} steps. Fovea: a whole epoch of its loop.", "",
        "| round | note, images/s | Fovea, images/s | ratio |", "| --- | --- | --- | --- |", *rows, "",
        f"Median ratio **{statistics.median(ratios):.2f}** (lowest {min(ratios):.2f}, highest {max(ratios):.2f}); "
        f"medians {statistics.median(note):,.0f} and {statistics.median(ours):,.0f} images/s.", "",
    ])  # fmt: skip


def report_accuracy() -> str:
    """Seeds 0, 1, 2."""
    runs = [in_a_process("--one", f"seed{seed}") for seed in SEEDS]
    rows, losses = [], []
    for run in runs:
        table = [run["losses"][6 * epoch : 6 * epoch + 6] for epoch in range(5)]
        gap = max(abs(a - b) for e in range(1, 5) for a, b in zip(table[e], NOTE_LOSSES[e], strict=True))
        low, high = (100 * end for end in run["interval"])
        rows.append(
            f"| {run['seed']} | {100 * run['accuracy']:.2f} % | {low:.2f} to {high:.2f} | {gap:.3f} | "
            f"{run['seconds']:.0f} | {run['peak_mb']:,.0f} |"
        )
        losses += [
            f"Seed {run['seed']}:",
            "",
            "| epoch | 2000 | 4000 | 6000 | 8000 | 10000 | 12000 |",
            "| --- " * 7 + "|",
        ]
        losses += [f"| {e} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for e, row in enumerate(table, 1)] + [""]
    values = [100 * run["accuracy"] for run in runs]
    return "\n".join([
        "# Accuracy of the tutorial recipe", "", this_header("accuracy"), "",
        "`fovea train cifar10 --recipe tutorial`, 5 epochs on all 50,000 training images, tested once on the "
        "10,000 test images (one view each). The note reports 61 %. Largest gap: the largest difference of a running loss to the "
        "note's table from epoch 2 on.", "",
        "| seed | test accuracy | 95 % interval (Wilson) | largest gap | training s | peak memory MB |",
        "| --- | --- | --- | --- | --- | --- |", *rows, "",
        f"Mean {statistics.mean(values):.2f} %, standard deviation {statistics.stdev(values):.2f} "
        f"over {len(values)} seeds.",
        "", "## Running losses", "", *losses,
    ])  # fmt: skip


def this_header(what: str) -> str:
    """What a figure depends on."""
    import torch
    from evidence import header

    return header(f"python benchmarks/tutorial.py {what}", torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["speed", "accuracy"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        measure = {"note": measure_note, "fovea": measure_fovea}
        measure |= {f"seed{seed}": functools.partial(measure_seed, seed) for seed in SEEDS}
        print(json.dumps(measure[words.one]()))
    elif words.what:
        text = report_speed() if words.what == "speed" else report_accuracy()
        (HERE / f"tutorial_{words.what}.md").write_text(text, encoding="utf-8")
        print(text)
    else:
        parser.error("say what to measure: speed or accuracy")


if __name__ == "__main__":
    main()
