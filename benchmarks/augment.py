"""What each augmentation costs on a batch of 500 images of 32×32 pixels.

    python benchmarks/augment.py

All in turn, several rounds; the report, with every round, goes to benchmarks/augment.md.
"""

from __future__ import annotations

import statistics
import time

import torch
from evidence import HERE, header

from fovea import registry
from fovea.augment.types import Draw
from fovea.data.loader import build_augmentations

BATCH, SIDE, ROUNDS, REPEATS = 500, 32, 7, 5


def main() -> None:
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    draw = Draw(torch.Generator().manual_seed(0), torch.ones(BATCH), torch.arange(BATCH))
    names = registry.augmentation.names()
    functions = {name: build_augmentations([name])[0] for name in names}  # each alone: those that mix must be last
    times: dict[str, list[float]] = {name: [] for name in ["copy", *names]}
    for _ in range(ROUNDS):
        for name in times:
            function = functions.get(name, lambda images, draw: images.clone())
            begun = time.perf_counter()
            for _ in range(REPEATS):
                function(images, draw)
            times[name].append((time.perf_counter() - begun) / REPEATS * 1000)
    rows = [
        f"| {name} | {statistics.median(values):.2f} | {' '.join(f'{value:.2f}' for value in values)} |"
        for name, values in sorted(times.items(), key=lambda item: statistics.median(item[1]))
    ]
    text = "\n".join([
        "# What augmentations cost", "",
        header("python benchmarks/augment.py", torch.device("cpu")), "",
        f"Milliseconds for {BATCH} images of {SIDE}×{SIDE} pixels, float32, with the default options; `copy` is "
        "`images.clone()`: reading and writing the batch once.", "",
        "| augmentation | median ms | rounds |", "| --- | --- | --- |", *rows, "",
    ])  # fmt: skip
    (HERE / "augment.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
