"""Accuracy against seconds of networks from small to large: which is the best for the time that one has?

    FOVEA_DATA=... python benchmarks/pareto.py

Each network trains on nine tenths of CIFAR-10's training images, one seed, and is measured on the rest, by a single view:
what is chosen here is chosen without the test images. Every finished run is kept in benchmarks/pareto.json, and the same
command goes on with it; then benchmarks/pareto.md and docs/images/pareto.png are written.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from evidence import HERE, commit, header

import fovea
from fovea.recipes.fast import muon
from fovea.uses import figure as house

RAW, TABLE, PICTURE = HERE / "pareto.json", HERE / "pareto.md", HERE.parent / "docs" / "images" / "pareto.png"
STRIDE = "record:stem=stride:filters=32:widths=32/64/64:depths=1/2/2"
# Of so few epochs none leaves images out: `fast` as it was for small batches, when all of these were measured.
OPTIM = muon(lr=0.24, other_lr=6).model_dump()
PLAIN = {"hardest": 1.0, "small_first.until": 0.2, "small_first.sizes": 1}
PLAIN |= {f"optim.{name}": value for name, value in OPTIM.items()}
NARROW, WIDE = "record:widths=32/128/128", "record:widths=64/256/256"
# A family is one network for several lengths: recipe, its network, batch size, epochs.
FAMILIES: dict[str, list[tuple[str, str, int, int]]] = {
    "8×8 patches": [
        ("quick", "record:stem=patch:filters=20:widths=16/24:depths=1/2", 400, 1),
        ("quick", "record:stem=patch:filters=32:widths=16/32:depths=1/2", 400, 1),
        ("quick", "record:stem=patch:filters=48:widths=32/64:depths=1/2", 400, 2),
    ],
    "4×4 patches, 32-64-64": [("fast", STRIDE, 250, epochs) for epochs in (1, 2, 4)],
    "2×2 patches, 32-128-128": [("fast", NARROW, 250, epochs) for epochs in (1, 2)],
    "2×2 patches, 64-256-256": [("fast", WIDE, 250, epochs) for epochs in (1, 2)],
}


def measure(recipe: str, model: str, batch_size: int, epochs: int) -> dict[str, Any]:
    """Train, and return val accuracy and seconds."""
    data = fovea.load_data("cifar10", val_fraction=0.1)
    data = replace(data, splits={name: data.splits[name] for name in ("train", "val")})  # no test in sight
    settings = {"part_size": batch_size // 2, **(PLAIN if recipe == "fast" else {})}
    options: dict[str, Any] = {"batch_size": batch_size, "model": model, "epochs": epochs, "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        run = fovea.train(data, recipe, Path(folder) / "run", settings, quiet=True, **options)
        accuracy, seconds = float(run.results[-1]["val_accuracy"]), run.cost["train_seconds"]
    return {"val_accuracy": accuracy, "seconds": seconds, "commit": commit()}


def front(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that no other run beats in both, quickest first."""
    best: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda r: r["seconds"]):
        if not best or run["val_accuracy"] > best[-1]["val_accuracy"]:
            best.append(run)
    return best


def draw(runs: list[dict[str, Any]]) -> None:
    """A line a family, and the front behind them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    with mpl.rc_context(house.style()):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        best = front(runs)
        x, y = [r["seconds"] for r in best], [100 * r["val_accuracy"] for r in best]
        axes.plot(x, y, color=house.GREY, linewidth=6, alpha=0.3, label="the front: none is better and quicker")
        for family, marker in zip(FAMILIES, "os^D", strict=True):
            own = [r for r in runs if r["family"] == family]
            axes.plot([r["seconds"] for r in own], [100 * r["val_accuracy"] for r in own], marker + "-", label=family)
            for run in own:
                axes.annotate(
                    str(run["epochs"]), (run["seconds"], 100 * run["val_accuracy"]), (0, 6),
                    textcoords="offset points", ha="center", fontsize=8,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlabel="seconds of training (logarithmic)", ylabel="val accuracy, single view, %")
        axes.set_title(f"CIFAR-10 on {os.cpu_count()} CPU cores; beside each point its epochs")
        axes.legend(loc="lower right")
        house.save(figure, PICTURE)


def main() -> None:
    runs: list[dict[str, Any]] = json.loads(RAW.read_text()) if RAW.exists() else []
    for family, members in FAMILIES.items():
        for recipe, model, batch_size, epochs in members:
            key = {"family": family, "recipe": recipe, "model": model, "batch_size": batch_size, "epochs": epochs}
            if any(key.items() <= run.items() for run in runs):
                continue
            runs.append(key | measure(recipe, model, batch_size, epochs))
            RAW.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
            print(runs[-1], flush=True)
    best = front(runs)
    rows = [
        f"| {run['family']} | `{run['model']}` | {run['recipe']} | {run['epochs']} | {run['seconds']:.1f} | "
        f"{100 * run['val_accuracy']:.2f} | {'yes' if run in best else ''} | {run['commit']} |"
        for run in sorted(runs, key=lambda r: r["seconds"])
    ]
    text = "\n".join([
        "# Accuracy against seconds, by network and length", "",
        header("python benchmarks/pareto.py", torch.device("cpu")), "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "), "Seconds are of building and training, without validation.", "",
        "| family | network | recipe | epochs | s | val accuracy % | on the front | commit |", "| --- " * 8 + "|", *rows, "",
    ])  # fmt: skip
    TABLE.write_text(text, encoding="utf-8")
    draw(runs)
    print(text)


if __name__ == "__main__":
    main()
