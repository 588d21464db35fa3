"""How long the health check of a data set takes, and how many of CIFAR-10's known copies it finds.

    python benchmarks/health.py duplicates_cifar10.csv

The table is that of Barz and Denzler, "Do we train on test data? Purging CIFAR of near-duplicates" (2020), from
https://github.com/cvjena/cifair/tree/master/meta: test images of CIFAR-10 with a copy in train, judged by eye. CIFAR-10 lies
where `fovea inspect cifar10` finds it. The report goes to benchmarks/health.md, and a sheet of found pairs that the table
does not name, for a look at how many of them are right, to health-pairs.png in the working directory.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from evidence import HERE, header
from PIL import Image, ImageEnhance, ImageOps

from fovea.api import load_data
from fovea.data.types import Dataset, Split
from fovea.device import peak_memory_mb
from fovea.uses.grid import draw_images
from fovea.uses.health.album import Album
from fovea.uses.health.check import check_health, short_check
from fovea.uses.health.finding import Finding
from fovea.uses.health.near import near_duplicates

ROUNDS = 3
SHEET, COPIES = 100, 300  # pairs
LOOKED = (
    "Looked at on 2026-11-23: 100 of the pairs that ciFAIR does not name, every other one by falling likeness (1.00 to 0.83). 95 show "
    "the same picture by eye; of 5 (four silhouettes of bombers on an empty sky, one bird) that cannot be said at 32×32."
)


def main(table: Path) -> None:
    cifar = load_data("cifar10")
    load = os.getloadavg()[0]
    rows = []
    for name, dataset in (("CIFAR-10, 60,000 images of 32×32", cifar), ("10,000 images of 128×128", enlarged(cifar))):
        whole, findings = timed(lambda data: check_health(Album(data)), dataset)
        short, _ = timed(short_check, dataset)
        rows.append(f"| {name} | {show(whole)} | {show(short)} |")
        if dataset is cifar:
            leak = next(finding for finding in findings if finding.kind == "leakage")
    text = "\n".join([
        "# What the health check costs and finds", "",
        header(f"python benchmarks/health.py {table.name}", torch.device("cpu")), "",
        f"Load average at the start {load:.1f} (1.0 for each core that others keep busy); peak memory of the process "
        f"{peak_memory_mb(torch.device('cpu')):,.0f} MB, of which {cifar.train.store.numel() * 1.2 / 1e6 + 492:,.0f} MB are the two sets.", "",
        "Seconds, median (all rounds): `check` is what `fovea inspect` adds to loading the images; `short` is what the first lines "
        "of a training add.", "",
        "| data | check | short |", "| --- | --- | --- |", *rows, "",
        *compared(leak, table), "", LOOKED, "",
        f"Copies of {COPIES} of the images of 128×128, made on purpose:", "", *altered(enlarged(cifar)), "",
    ])  # fmt: skip
    (HERE / "health.md").write_text(text, encoding="utf-8")
    print(text)
    sheet(cifar, leak, known(table))


def timed(function, dataset: Dataset):
    """Seconds of each round, and the last result."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        result = function(dataset)
        seconds.append(time.perf_counter() - begun)
    return seconds, result


def show(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({' '.join(f'{value:.1f}' for value in seconds)})"


def enlarged(cifar: Dataset) -> Dataset:
    """Training images of CIFAR-10, four times as large: what is timed does not depend on what they show."""
    first = cifar.train.take(torch.arange(10_000))
    store = torch.cat([
        F.interpolate(images.float(), scale_factor=4, mode="bicubic").clamp(0, 255).to(torch.uint8)
        for images in torch.split(first.images, 1000)
    ])  # fmt: skip
    return replace(cifar, splits={"train": Split(store, first.labels, first.ids)})


def known(table: Path) -> dict[tuple[str, str], int]:
    """Pairs of ids, and how they were judged: 1 the same shot, 2 very similar."""
    with table.open(newline="") as file:
        return {
            (f"test/{row['TestID']}", f"train/{row['TrainID']}"): int(row["Judgment"])
            for row in csv.DictReader(file)
            if row["TestID"]
        }


def altered(dataset: Dataset) -> list[str]:
    """Lines of the report: of images among which each stands twice, once altered, how many were recognized."""
    first = dataset.train.pick(torch.arange(0, 10_000, 10_000 // COPIES)[:COPIES])
    originals = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in first]
    lines = ["| what was done to the copy | found | other pairs |", "| --- | --- | --- |"]
    for words, change in CHANGES.items():
        copies = [torch.from_numpy(np.array(change(image))).permute(2, 0, 1) for image in originals]
        images = torch.cat([first, torch.stack(copies)])
        split = Split(images, torch.arange(2 * COPIES) % 10, tuple(map(str, range(2 * COPIES))))
        album = Album(replace(dataset, splits={"train": split}))
        measures = album.measure(lambda done, what: None)
        pairs = near_duplicates(measures.descriptors, album.labels, album.pick, lambda done: None).rows.tolist()
        right = sum(second - first == COPIES for first, second in pairs)
        lines.append(f"| {words} | {100 * right / COPIES:.0f} % | {len(pairs) - right} |")
    return lines


def _crop(share: float, aside: float = 0.0) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        side, gap = image.width, image.width * (1 - share) / 2
        left = gap + aside * side
        return image.resize(
            (side, side), Image.Resampling.BICUBIC, (left, gap, left + side * share, gap + side * share)
        )

    return change


def _jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "jpeg", quality=30)
    return Image.open(data).convert("RGB")


def _banner(image: Image.Image) -> Image.Image:
    changed = image.copy()
    changed.paste("white", (0, round(image.height * 0.85), image.width, image.height))
    return changed


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": _jpeg, "brighter by half": lambda image: ImageEnhance.Brightness(image).enhance(1.5),
    "gray": lambda image: image.convert("L").convert("RGB"), "mirrored": ImageOps.mirror,
    "mirrored, then 90 % of each side": lambda image: _crop(0.9)(ImageOps.mirror(image)),
    **{f"the middle {100 * share:.0f} % of each side": _crop(share) for share in (0.95, 0.9, 0.85, 0.8)},
    "90 % of each side, from the edge": _crop(0.9, 0.05), "turned by 3°": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "a white banner over the lowest 15 %": _banner,
}  # fmt: skip


def compared(leak: Finding, table: Path) -> list[str]:
    """Lines of the report: how many of the known pairs' test images were found."""
    pairs = known(table)
    found = {group[0].id for group in leak.groups}
    lines = [f"Test images of CIFAR-10 with a copy in train: {len(found)} found, {len(pairs)} named by ciFAIR.", ""]
    lines += ["| ciFAIR's judgement | named | found |", "| --- | --- | --- |"]
    for judgement, words in ((1, "near-duplicate: the same shot"), (2, "very similar, another shot")):
        named = {test for (test, _), judged in pairs.items() if judged == judgement}
        lines.append(
            f"| {words} | {len(named)} | {len(named & found)} ({100 * len(named & found) / len(named):.0f} %) |"
        )
    others = found - {test for test, _ in pairs}
    mirrored = sum(group[0].id in others and group[1].facts["mirrored"] for group in leak.groups)
    return [*lines, f"| not named | | {len(others)}, of them {mirrored} mirrored |"]


def sheet(cifar: Dataset, leak: Finding, pairs: dict[tuple[str, str], int]) -> None:
    """Found pairs that the table does not name, drawn evenly over their likeness."""
    album = Album(cifar)
    tests = {test for test, _ in pairs}
    others = [group for group in leak.groups if group[0].id not in tests]
    chosen = others[:: max(1, len(others) // SHEET)][:SHEET]
    rows = torch.tensor([seen.row for group in chosen for seen in group])
    captions = [text for a, b in chosen for text in (f"{a.id} {a.label}", f"{b.facts['likeness']:.2f} {b.label}")]
    draw_images(Path("health-pairs.png"), album.pick(rows), captions, "test, train; not named by ciFAIR")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
