"""Batches from a folder of photographs: Fovea's data path beside torchvision's ImageFolder and DataLoader.

    FOVEA_DATA=... python benchmarks/folder.py [--pictures 600] [--rounds 3] [--sizes 64,128,224] [--train-sizes 64,128,224]

Makes photographs of 500×375 pixels from CIFAR-10's images, enlarged, with texture and noise, as JPEG files of 60 to
100 kB. Then, at each size, both in turn over several rounds, each in a process of its own, which counts the seconds of
each epoch from the first file to the last batch, ready for a network. Both do the same: resize the shorter side, cut the
middle, shift by up to a sixteenth (a random crop of the padded image), mirror, to float, standardize; batches of 64.
The report, with every round, goes to benchmarks/folder.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from evidence import HERE, header
from PIL import Image
from torch import Tensor

BATCH, EPOCHS, WORKERS = 64, 4, 2
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
Epoch = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="64,128,224")
    parser.add_argument(
        "--train-sizes", default="64,128,224", help="at which whole trainings are measured, too; '' for none"
    )
    parser.add_argument("--one", nargs=3, metavar=("WHO", "FOLDER", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        who, folder, size = asked.one
        print(json.dumps(measure(who, folder, int(size), asked.train)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        mean_bytes = make_photographs(folder, asked.pictures)
        write_report(asked, folder, mean_bytes)


# -- the photographs -----------------------------------------------------------------------------------------------


def make_photographs(folder: Path, count: int) -> float:
    """Write them into class folders; returns the mean bytes of a file."""
    from fovea import load_data

    train = load_data("cifar10").train
    random = np.random.default_rng(0)
    total = 0
    for row in range(count):
        small = Image.fromarray(train.images[row].permute(1, 2, 0).numpy())
        pixels = np.asarray(small.resize((500, 500), Image.Resampling.BICUBIC).crop((0, 62, 500, 437)), np.float32)
        for scale, strength in ((4, 14), (2, 12), (1, 9)):  # texture at several scales, as foliage and skin have it
            noise = random.normal(0, 1, (-(-375 // scale), -(-500 // scale), 3)).astype(np.float32)
            noise = noise.repeat(scale, 0).repeat(scale, 1)[:375, :500]
            pixels = pixels + strength * noise
        data = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=85)
        path = folder / f"{int(train.labels[row]):02}" / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.getvalue())
        total += len(data.getvalue())
    return total / count


# -- the two data paths --------------------------------------------------------------------------------------------


def torchvision_start(folder: str, size: int) -> Callable[[], Epoch]:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([
        v2.Resize(size), v2.CenterCrop(size), v2.RandomCrop(size, padding=size // 16, padding_mode="reflect"),
        v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip

    def start() -> Epoch:
        data = ImageFolder(folder, transform)
        loader = DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
        return lambda epoch: iter(loader)

    return start


def fovea_start(folder: str, size: int) -> Callable[[], Epoch]:
    from fovea import load_data
    from fovea.data.loader import Loader
    from fovea.data.preprocess import Preprocess
    from fovea.device import keep_freed_memory

    def start() -> Epoch:
        keep_freed_memory()  # as in every training
        data = load_data(folder, image_size=size, test_fraction=0.0)
        preprocess, augment = Preprocess((size, size), 3, MEAN, STD), (f"shift:{size // 16}", "mirror")
        return Loader(data.train, preprocess, BATCH, torch.device("cpu"), 0, augment, shuffle=True).epoch

    return start


def measure(who: str, folder: str, size: int, train: bool) -> list[float]:
    """Seconds of each epoch; the first includes finding the files and, of Fovea's, decoding and the cache."""
    step = _trainer(size) if train else None
    start = (fovea_start if who == "fovea" else torchvision_start)(folder, size)  # imports what it needs
    begun = time.perf_counter()
    epochs = start()
    seconds = []
    for epoch in range(1, EPOCHS + 1):
        for images, labels in epochs(epoch):
            assert images.shape[1:] == (3, size, size)
            if step is not None:
                step(images, labels)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return seconds


def _trainer(size: int) -> Callable[[Tensor, Tensor], None]:
    """Steps of SGD with the network that Fovea takes by default."""
    from fovea.models.base import build_model

    model = build_model("convnet", 10, 3, (size, size))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def run_one(who: str, folder: Path, size: int, train: bool) -> list[float]:
    """In a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--one", who, str(folder), str(size), *(["--train"] if train else [])]
        environment = {**os.environ, "FOVEA_CACHE": cache}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


# -- the report ----------------------------------------------------------------------------------------------------


def write_report(asked: argparse.Namespace, folder: Path, mean_bytes: float) -> None:
    lines = []
    for train, sizes in ((False, asked.sizes), (True, asked.train_sizes)):
        if not sizes:
            continue
        lines += ["## Training, the same network and precision" if train else "## The data path alone", ""]
        lines += [
            "| pixels | who | first epoch, images/s | later epochs, images/s | times torchvision: first, later | rounds: first / later |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for size in map(int, sizes.split(",")):
            runs: dict[str, list[list[float]]] = {"torchvision": [], "fovea": []}
            for _ in range(1 if train else asked.rounds):
                for who, found in runs.items():
                    found.append(run_one(who, folder, size, train))
                    print(size, who, "train" if train else "data", *(f"{s:.2f}" for s in found[-1]), file=sys.stderr)
            lines += rows_of(size, runs, asked.pictures)
        lines.append("")
    load = f"Load of the machine at the end: {', '.join(f'{value:.1f}' for value in os.getloadavg())}."
    text = "\n".join([
        "# Batches from a folder of photographs", "",
        header(shlex.join(["python", "benchmarks/folder.py", *sys.argv[1:]]), torch.device("cpu")),
        load, "",
        f"{asked.pictures} JPEG files of 500×375 pixels, {mean_bytes / 1000:.0f} kB in the mean, in the page cache; "
        f"batches of {BATCH}, {WORKERS} workers; in turn, each run in a process of its own, Fovea's with an empty cache. "
        f"Later epochs: the median of {EPOCHS - 1}. Figures are medians over the rounds. Imports and making the network "
        "are not counted; of the first epoch, finding the files, starting workers, decoding and writing the cache are.",
        "",
        "Floor of a later epoch: of an image of 224 pixels, 151 kB of `uint8` are read and 602 kB of `float32` written "
        "(and read before, into the processor's cache): 1.4 MB, or 7,000 images a second at 10 GB/s.", "", *lines,
    ])  # fmt: skip
    (HERE / "folder.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text)


def rows_of(size: int, runs: dict[str, list[list[float]]], count: int) -> list[str]:
    rates = {
        who: [(count / seconds[0], count / statistics.median(seconds[1:])) for seconds in found]
        for who, found in runs.items()
    }
    middle = {who: [statistics.median(pair[i] for pair in pairs) for i in (0, 1)] for who, pairs in rates.items()}
    rows = []
    for who, (first, later) in middle.items():
        times = f"{first / middle['torchvision'][0]:.2f}, {later / middle['torchvision'][1]:.2f}"
        rounds = ", ".join(f"{a:.0f} / {b:.0f}" for a, b in rates[who])
        rows.append(f"| {size} | {who} | {first:,.0f} | {later:,.0f} | {times} | {rounds} |")
    return rows


if __name__ == "__main__":
    main()
