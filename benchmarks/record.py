"""Accuracy against seconds: the note's own script and Fovea's recipes, in turn, on one machine.

    FOVEA_DATA=... python benchmarks/record.py                                    # `make bench`: one round
    FOVEA_DATA=... python benchmarks/record.py --rounds 5                         # `make bench-full`, and then
    FOVEA_DATA=... python benchmarks/record.py --more --without-note --recipes best --rounds 3

A round is the note's script for 5 epochs and each recipe with the round's seed, every one a process of its own. Writes
every raw run to benchmarks/record.json as soon as it is there (--more goes on with that file), then
benchmarks/record.md and docs/images/record.png.

Clocks. The note: from making its network to its last step; tests between its epochs stand still. Recipes: `train_seconds` of
cost.json, from before the network is built (statistics, whitening, first-step choices included) to the final weights in memory;
tests apart. Process: from the command to the saved run with its report.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RAW, TABLE, PICTURE = HERE / "record.json", HERE / "record.md", HERE.parent / "docs" / "images" / "record.png"
NOTE_EPOCHS = 5
AIMS = {"quick": (0.61, 1 / 70), "fast": (0.94, 1.0), "best": (0.96, 12.0)}


def measure_note(seed: int) -> dict[str, Any]:
    """The note's script: batch 4, DataLoader with 2 workers, torchvision transforms, SGD; tested after each epoch."""
    import torch
    import torchvision
    from torch import nn, optim

    sys.path.insert(0, str(HERE.parent / "tests"))
    from note import TRANSFORM, Net

    torch.manual_seed(seed)
    sets = [torchvision.datasets.CIFAR10(os.environ["FOVEA_DATA"], train=t, transform=TRANSFORM) for t in (True, False)]
    begun, curve, stood_still = time.perf_counter(), [], 0.0
    loader = torch.utils.data.DataLoader(sets[0], batch_size=4, shuffle=True, num_workers=2)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for _ in range(NOTE_EPOCHS):
        running_loss = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        now = time.perf_counter()
        with torch.no_grad():
            test = torch.utils.data.DataLoader(sets[1], batch_size=500)
            right = sum((net(inputs).argmax(1) == labels).sum().item() for inputs, labels in test)
        curve.append([now - begun - stood_still, right / len(sets[1])])
        stood_still += time.perf_counter() - now
    return {"seconds": curve[-1][0], "accuracy": curve[-1][1], "curve": curve}


def measure_recipe(recipe: str, seed: int) -> dict[str, Any]:
    """`fovea train cifar10 --recipe ...`, as a user calls it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fovea.cli", "train", "cifar10", "--recipe", recipe, "--seed", str(seed)]
        begun = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run", "--json"], stdout=subprocess.PIPE, check=True)
        process_seconds = time.perf_counter() - begun
        cost, metrics = (json.loads(Path(folder, "run", name).read_text()) for name in ("cost.json", "metrics.json"))
    single = metrics.get("single_view") or metrics
    return {
        "seconds": cost["train_seconds"],
        "accuracy": metrics["accuracy"],
        "views": metrics["views"],
        "single_view": single["accuracy"],
        "test_seconds": cost["test_seconds"],
        "process_seconds": process_seconds,
        "peak_memory_mb": cost["peak_memory_mb"],
    }


def in_a_process(what: str, seed: int) -> dict[str, Any]:
    """One run, in a fresh interpreter, with when and by which code."""
    from evidence import commit

    before = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, "--seed", str(seed)], stdout=subprocess.PIPE, text=True, check=True
    )
    result = {"what": what, "seed": seed, "commit": commit(), "ended": time.strftime("%Y-%m-%d %H:%M"), "load": before}
    result |= json.loads(done.stdout.splitlines()[-1])
    print({k: v for k, v in result.items() if k != "curve"}, flush=True)
    return result


def report(runs: list[dict[str, Any]]) -> str:
    """The tables of record.md."""
    import torch
    from evidence import header

    note = statistics.mean(run["seconds"] for run in runs if run["what"] == "note")
    lines = [
        "# Accuracy against seconds: the note's script and the recipes", "",
        header("python benchmarks/record.py", torch.device("cpu")), "", __doc__.partition("Clocks. ")[2].strip(), "",
        "| what | n | test accuracy | 95 % interval | one view | seconds | of the note's | process s | test s | peak MB | aim |",
        "| --- " * 11 + "|",
    ]  # fmt: skip
    kinds = dict.fromkeys(run["what"] for run in runs)
    lines += [_row(what, [run for run in runs if run["what"] == what], note) for what in kinds]
    lines += ["", "## Every run", "", "| what | seed | accuracy | seconds | ended | load before | commit |"]
    lines += ["| --- " * 7 + "|"]
    lines += [
        f"| {r['what']} | {r['seed']} | {100 * r['accuracy']:.2f} % | {r['seconds']:.1f} | {r['ended']} | {r['load']:.1f} | {r['commit']} |"
        for r in runs
    ]
    return "\n".join([*lines, ""])


def _row(what: str, runs: list[dict[str, Any]], note_seconds: float) -> str:
    from scipy.stats import t

    # Of each seed once: the same seed gives the same accuracy, and only its seconds are new.
    accuracies = list({run["seed"]: 100 * run["accuracy"] for run in runs}.values())
    mean, seconds = statistics.mean(accuracies), statistics.mean(run["seconds"] for run in runs)
    interval = "one run"
    if len(accuracies) > 1:
        half = t.ppf(0.975, len(accuracies) - 1) * statistics.stdev(accuracies) / len(accuracies) ** 0.5
        interval = f"{mean - half:.2f} to {mean + half:.2f}"
    share = f"{seconds / note_seconds:.2f}" if seconds > note_seconds / 10 else f"1/{note_seconds / seconds:.0f}"
    more = ["", "", "", "", ""]
    if what in AIMS:
        accuracy, most = AIMS[what]
        kept = [mean >= 100 * accuracy, seconds <= most * note_seconds]
        words = ["reached" if kept[i] else "**not reached**" for i in (0, 1)]
        named = ("single_view", "process_seconds", "test_seconds", "peak_memory_mb")
        one, process, test, peak = (statistics.mean(run[name] for run in runs) for name in named)
        limit = f"1/{1 / most:.0f}" if most < 1 else f"{most:.1f}"
        promise = f"{100 * accuracy:.0f} %: {words[0]}; {limit}: {words[1]}"
        more = [f"{100 * one:.2f} %", f"{process:.0f}", f"{test:.1f}", f"{peak:,.0f}", promise]
    seeds = f", {len(accuracies)} seeds" if len(accuracies) < len(runs) else ""
    cells = [what, f"{len(runs)}{seeds}", f"{mean:.2f} %", interval, more[0], f"{seconds:.1f}", share, *more[1:]]
    return "| " + " | ".join(cells) + " |"


def draw(runs: list[dict[str, Any]]) -> None:
    """The picture: the note's curve, and a point for each run of a recipe."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from fovea.uses import figure as house

    with mpl.rc_context(house.style()):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, run in enumerate(r for r in runs if r["what"] == "note"):
            seconds, accuracies = zip(*run["curve"], strict=True)
            label = f"the tutorial author's script, after each of {NOTE_EPOCHS} epochs" if number == 0 else None
            axes.plot(seconds, [100 * a for a in accuracies], "o-", color=house.GREY, markersize=4, label=label)
        for what, colour in (("quick", house.GREEN), ("fast", house.BLUE), ("best", house.ORANGE)):
            chosen = [r for r in runs if r["what"] == what]
            if chosen:
                x, y = [r["seconds"] for r in chosen], [100 * r["accuracy"] for r in chosen]
                axes.scatter(x, y, color=colour, s=45, label=f"fovea train cifar10 --recipe {what}", zorder=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlabel="seconds of training (logarithmic)", ylabel="test accuracy, %")
        axes.set_title(f"CIFAR-10 on {os.cpu_count()} CPU cores")
        axes.legend(loc="center", frameon=True, fancybox=False, borderpad=0.8)
        house.save(figure, PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--recipes", default="quick,fast")
    parser.add_argument("--without-note", action="store_true", help="with --more: recipes only")
    parser.add_argument("--more", action="store_true", help="add to the runs of record.json")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        measured = measure_note(words.seed) if words.one == "note" else measure_recipe(words.one, words.seed)
        print(json.dumps(measured))
        return
    runs: list[dict[str, Any]] = json.loads(RAW.read_text()) if words.more else []
    names = ([] if words.without_note else ["note"]) + [name for name in words.recipes.split(",") if name]
    for seed in range(words.seed, words.seed + words.rounds):
        for what in names:
            runs.append(in_a_process(what, seed))
            RAW.write_text(json.dumps(runs, indent=1) + "\n")
    text = report(runs)
    TABLE.write_text(text, encoding="utf-8")
    draw(runs)
    print(text)


if __name__ == "__main__":
    main()
