"""Pictures to tensors: sizes, ways to resize, bad files; batches bit for bit, from a map and in flat memory."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import fovea as package
from conftest import Fovea
from fovea.augment.types import Draw
from fovea.data import types
from fovea.data.decode import GROUND, Fit, decode_image
from fovea.data.loader import Loader, build_augmentations, num_movers
from fovea.data.preprocess import Preprocess, Standardize, to_unit
from fovea.data.sizes import choose_size
from fovea.data.types import Split
from fovea.errors import ConfigError
from fovea.run import Run

CPU = torch.device("cpu")


def photo(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def folder(root: Path, count: int = 5, size: tuple[int, int] = (60, 40)) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for number in range(count):
            photo(root / name / f"{number}.png", size, seed=label * count + number)
    return root


# -- formats and sizes ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif() -> None:
    found = decode_image(photo(Path("a.avif"), (32, 32), quality=95, subsampling="4:4:4"), Fit((32, 32)))
    wanted = decode_image(photo(Path("a.png"), (32, 32)), Fit((32, 32)))
    assert (found.int() - wanted.int()).abs().float().mean() < 4


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    for ending in ("gif", "webp"):
        options = {"lossless": True} if ending == "webp" else {}
        frames[0].save(f"a.{ending}", save_all=True, append_images=frames[1:], **options)
        assert decode_image(Path(f"a.{ending}"), Fit((9, 9)))[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(60, 40), (40, 60)], ids=["wide", "high"])
def test_resize_is_pillows(resize: str, size: tuple[int, int]) -> None:
    path = photo(Path("a.png"), size)
    image, cubic = Image.open(path), Image.Resampling.BICUBIC
    wanted = {
        "crop": ImageOps.fit(image, (20, 20), cubic), "squash": image.resize((20, 20), cubic),
        "pad": ImageOps.pad(image, (20, 20), cubic, (GROUND,) * 3),
    }[resize]  # fmt: skip
    seen = decode_image(path, Fit((20, 20), 3, resize)).permute(1, 2, 0).numpy()
    assert (seen == np.asarray(wanted)).all()
    if resize == "pad":
        edge = seen[0] if size[0] > size[1] else seen[:, 0]
        assert (edge == GROUND).all()


def test_a_model_sees_new_pictures_as_it_saw_its_own(fovea: Fovea) -> None:
    folder(Path("pets"))
    words = ("--epochs", 1, "--model", "convnet:width=4", "--device", "cpu")
    result = fovea("train", "pets", "--resize", "pad", *words, "--out", "run")
    assert result.code == 0
    assert result.stdout.startswith("image size 32: nine of ten pictures are at least 40 pixels")
    assert "32×32 pixels, 3 channels" in result.stdout
    run = Run("run")
    assert (run.config.data.image_size, run.config.data.resize) == (32, "pad")
    assert run.info.preprocess.resize == "pad"
    split = package.load_data("pets", **run.config.data.model_dump(exclude={"name"})).splits["test"]
    logits = package.load(run).logits(split.images)
    for row, image_id in enumerate(split.ids):
        (answer,) = package.load(run).predict(Path("pets") / image_id)
        assert answer.top[0]["logit"] == pytest.approx(logits[row].max().item(), abs=1e-5)
    # Larger pictures do not change what the run was trained on.
    for path in Path("pets").rglob("*.png"):
        with Image.open(path) as image:
            image.resize((200, 150)).save(path)
    assert fovea("evaluate", "run").code == 0


def test_a_run_older_than_resize_cut_the_middle(tiny_run: Path) -> None:
    info, config = tiny_run / "model.json", tiny_run / "config.yaml"
    value = json.loads(info.read_text())
    assert value["preprocess"].pop("resize") == "crop"
    info.write_text(json.dumps(value))
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "resize" not in line))
    assert Run(tiny_run).info.preprocess.resize == "crop"
    assert Run(tiny_run).config.data.resize == "crop"


@pytest.mark.parametrize(
    ("sides", "count", "size"),
    [
        ([10] * 10, 10, 32),  # never less
        ([95] * 10, 10, 64),
        ([96] * 10, 10, 96),
        ([40] + [100] * 9, 10, 96),  # one in ten may be smaller
        ([40] * 3 + [100] * 7, 10, 32),
        ([500] * 10, 10, 128),  # a CPU's limit
        ([500] * 10, 15_000, 96),
        ([500] * 10, 100_000, 64),
    ],
)
def test_the_size_follows_from_the_headers(sides: list[int], count: int, size: int) -> None:
    paths = []
    for number, side in enumerate(sides):
        paths.append(Path(f"{number}.png"))
        Image.new("1", (side + number % 2, side)).save(paths[-1])
    chosen, why = choose_size([paths[i * len(paths) // count] if count > 10 else paths[i] for i in range(count)])
    assert chosen == size
    assert why.startswith(f"image size {size}: ")
    assert ("CPU" in why) == (max(sides) == 500)


# -- bad files -----------------------------------------------------------------------------------------------------


def _bomb(path: Path) -> None:
    """A whole PNG of 30,000×30,000 black pixels, without ever holding them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + 30_000 // 8)
    data = b"".join(packer.compress(row * 100) for _ in range(300)) + packer.flush()
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    assert path.stat().st_size < 1e6


BAD = {
    "void.jpg": (Path.touch, "the file is empty"),
    "page.jpg": (lambda path: path.write_text("<!DOCTYPE html>\n<html>404</html>"), "HTML page"),
    "bomb.png": (_bomb, "900000000 pixels"),
    "cut.png": (lambda path: path.write_bytes(photo(path).read_bytes()[:-200]), "truncated"),
    "cut.jpg": (lambda path: path.write_bytes(photo(path, (300, 300)).read_bytes()[:-900]), "truncated"),
}


def test_bad_files_are_named_each_in_one_line_and_can_be_skipped(fovea: Fovea) -> None:
    folder(Path("pets"))
    for name, (make, _) in BAD.items():
        make(Path("pets/cat") / name)
    seen = fovea("inspect", "pets", "--json")
    assert seen.code == 0
    skipped = {line.partition(":")[0]: line for line in json.loads(seen.stdout)["skipped"]}
    assert set(skipped) == {f"pets/cat/{name}" for name in BAD}
    for name, (_, why) in BAD.items():
        assert why in skipped[f"pets/cat/{name}"]
        assert "\n" not in skipped[f"pets/cat/{name}"]
    refused = fovea("train", "pets")
    assert refused.code == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "(and 2 more)" in refused.stderr


# -- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "channels", "count"), [(8, 3, 5), (40, 3, 60), (300, 3, 3), (70, 1, 31)])
def test_standardize_is_the_plain_arithmetic_bit_for_bit(side: int, channels: int, count: int) -> None:
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    preprocess = Preprocess((side, side), channels, (0.4914, 0.4822, 0.1)[:channels], (0.247, 0.2435, 0.3)[:channels])
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (preprocess.mean, preprocess.std))
    assert torch.equal(Standardize(preprocess, CPU)(images), (images.float() / 255 - mean) / std)


@pytest.mark.parametrize("spec", ["mirror", "mirror:alternate=true", "shift:3", "shift:0"])
def test_what_only_moves_pixels_does_the_same_to_bytes(spec: str) -> None:
    assert num_movers([spec, "noise", spec]) == 1
    (function,) = build_augmentations([spec])
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8)
    before = images.clone()
    floats, moved = (
        function(each, Draw(torch.Generator().manual_seed(1), torch.ones(50), torch.arange(50)))
        for each in (to_unit(images), images)
    )
    assert moved.dtype == torch.uint8
    assert torch.equal(to_unit(moved), floats)
    assert torch.equal(images, before)


def test_shift_is_a_crop_of_the_padded_image() -> None:
    (function,) = build_augmentations(["shift:3"])
    images = torch.rand(20, 3, 9, 7)
    moved = function(images, Draw(torch.Generator().manual_seed(1), torch.ones(20), torch.arange(20)))
    offset = torch.randint(7, (2, 20), generator=torch.Generator().manual_seed(1)).tolist()
    for image, result, top, left in zip(images, moved, *offset, strict=True):
        padded = tv.pad(image, [3, 3, 3, 3], padding_mode="reflect")
        assert torch.equal(result, padded[:, top : top + 9, left : left + 7])


def test_crop_is_torchvisions_resized_crop() -> None:
    coarse = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (48, 36), mode="bilinear", align_corners=True)
    (function,) = build_augmentations(["crop:0.3:1.5"])
    seen = function(images, Draw(torch.Generator().manual_seed(1), torch.ones(40), torch.arange(40)))
    random = torch.Generator().manual_seed(1)
    share, log_ratio, x, y = (torch.rand(40, generator=random) for _ in range(4))
    share, ratio = 0.3 + 0.7 * share, 1.5 ** (2 * log_ratio - 1)
    wide, high = (
        (36 * (share * ratio) ** 0.5).round().clamp(max=36),
        (48 * (share / ratio) ** 0.5).round().clamp(max=48),
    )
    left, top = (x * (37 - wide)).floor(), (y * (49 - high)).floor()
    inner = (slice(None), slice(3, -3), slice(3, -3))  # at its edges, torchvision does not look beyond the part
    for image, result, *box in zip(images, seen, top, left, high, wide, strict=True):
        wanted = tv.resized_crop(image, *map(int, box), [48, 36], InterpolationMode.BILINEAR, antialias=False)
        assert torch.allclose(result[inner], wanted[inner], atol=1e-4)
    assert (wide * high / (36 * 48)).min() < 0.4
    assert (wide / 36 / (high / 48)).max() > 1.3


@pytest.mark.parametrize("spec", ["crop:0", "crop:1.1", "crop:0.5:0.9"])
def test_a_crop_of_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=spec):
        build_augmentations([spec])[0](torch.rand(2, 3, 8, 8), Draw(torch.Generator(), torch.ones(2), torch.arange(2)))


# -- memory --------------------------------------------------------------------------------------------------------


class _Largest(TorchDispatchMode):
    """The bytes of the largest `uint8` tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.uint8 and not func.is_view:
            self.seen = max(self.seen, result.numel())
        return result


def test_no_step_of_a_training_copies_the_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(types, "CHUNK_BYTES", 40_000)
    folder(Path("pets"), 60)
    data = package.load_data("pets", image_size=32)
    whole = data.train.store.numel()
    taken: list[int] = []
    take = Split.pick

    def pick(split: Split, rows: Tensor) -> Tensor:
        taken.append(len(rows) * split.store[0].numel())
        return take(split, rows)

    def some(split: Split) -> Tensor:
        return split.pick(torch.arange(len(split)))

    monkeypatch.setattr(Split, "pick", pick)
    monkeypatch.setattr(Split, "images", property(some))
    monkeypatch.setattr("fovea.engine.train._num_first", lambda image_size: 10)
    monkeypatch.setattr("fovea.uses.explain.can_explain", lambda: False)  # heat maps are enlarged, but few
    options = {"epochs": 2, "batch_size": 10, "model": "convnet:width=4", "device": "cpu", "augment": "mirror,shift:2"}
    with _Largest() as largest:
        run = package.train(data, out=tmp_path / "run", quiet=True, **options)
    assert run.has("report.html")
    (where,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/pixels")]
    assert " r--s " in where, "mapped, and read-only"
    first, end = (int(each, 16) for each in where.split()[0].split("-"))
    assert first <= data.train.store.data_ptr() < end
    assert largest.seen < whole / 4
    assert max(taken) < whole / 3, "a page of samples, a batch or a chunk"


def test_nothing_is_written_into_the_folder() -> None:
    root = folder(Path("pets"))

    def state() -> list[tuple[str, int, int]]:
        return [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in sorted([root, *root.rglob("*")])]

    os.utime(root / "cat", (1, 1))
    before = state()
    package.load_data("pets")
    package.load_data("pets")
    assert state() == before


def test_a_loader_gives_the_same_from_a_map_and_from_memory() -> None:
    folder(Path("pets"))
    split = package.load_data("pets", image_size=32).train
    copy = Split(split.images.clone(), split.labels, split.ids)
    preprocess = Preprocess((32, 32), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    batches = [
        list(Loader(each, preprocess, 3, CPU, 1, ("shift:2", "mirror", "brightness"), shuffle=True).epoch(2))
        for each in (split, copy)
    ]
    for (a, a_labels), (b, b_labels) in zip(*batches, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a_labels, b_labels)
    assert split.fingerprint() == copy.fingerprint()
