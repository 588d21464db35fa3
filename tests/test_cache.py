"""The cache of decoded pictures: found again, never damaged, and never in the way."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fovea as package
from conftest import Fovea
from fovea.config import cache_dir
from fovea.data import cache as module
from fovea.data.cache import entries, load_pictures
from fovea.data.decode import Fit, decode_image
from fovea.errors import DataError


@pytest.fixture
def pets() -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(f"pets/{name}/{number}.png")
    return Path("pets")


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry, the number of pictures, each time that pictures are decoded."""
    counts: list[int] = []
    decode = module.decode_each

    def counting(pictures: list[Path], fit: Fit) -> Iterator[object]:
        counts.append(len(pictures))
        return decode(pictures, fit)

    monkeypatch.setattr(module, "decode_each", counting)
    return counts


def load(path: str | Path = "pets", **options: object) -> dict[str, torch.Tensor]:
    """Each picture by its id."""
    data = package.load_data(str(path), **{"image_size": 16, **options})
    return {i: image for split in data.splits.values() for i, image in zip(split.ids, split.images, strict=True)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)


def test_decoded_once_and_found_by_content_and_settings(pets: Path, num_decoded: list[int], tmp_path: Path) -> None:
    first = load()
    assert torch.equal(first["cat/3.png"], decode_image(pets / "cat/3.png", Fit((16, 16))))
    facts = package.load_data("pets", image_size=16).facts
    assert facts.files["dog/0.png"].width == 30
    assert facts.sizes == {(30, 20): 12}
    assert same(load(), first)
    assert same(load(val_fraction=0.3, split_seed=5), first), "however it is split"
    assert same(load(tmp_path / "pets"), first)
    shutil.copytree(pets, "copied")
    pets.rename("moved")
    assert same(load("moved"), first)
    assert same(load("copied"), first)
    assert num_decoded == [12]
    load("moved", resize="pad")
    load("moved", image_size=8)
    assert num_decoded == [12] * 3


def test_a_changed_picture_is_decoded_again(pets: Path, num_decoded: list[int]) -> None:
    first = load()
    path = pets / "cat" / "0.png"
    content, times = path.read_bytes(), path.stat()
    shutil.copy(pets / "dog" / "0.png", path)
    changed = load()
    assert torch.equal(changed["cat/0.png"], first["dog/0.png"])
    assert len(num_decoded) == 2
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert same(load(), first)
    assert len(num_decoded) == 2


def test_a_bad_picture_stays_bad_and_is_named_by_its_new_place(pets: Path, num_decoded: list[int]) -> None:
    (pets / "cat" / "bad.png").write_text("no picture")
    for name in ("pets", "moved"):
        data = package.load_data(name, image_size=16, skip_bad=True)
        assert data.facts.skipped == {"cat/bad.png": f"{name}/cat/bad.png: no image that Pillow can read"}
        assert sum(len(split) for split in data.splits.values()) == 12
        if name == "pets":
            pets.rename("moved")
    assert num_decoded == [13]


def test_list_and_clear(pets: Path, fovea: Fovea, tmp_path: Path) -> None:
    assert json.loads(fovea("cache", "list", "--json").stdout)["entries"] == []
    load()
    before = time.time()
    (found,) = json.loads(fovea("cache", "list", "--json").stdout)["entries"]
    assert found["name"] == str(tmp_path / "pets")
    assert (found["num_pictures"], found["image_size"], found["resize"]) == (12, [16, 16], "crop")
    assert found["num_bytes"] > 12 * 3 * 16 * 16
    assert abs(found["last_used"] - before) < 60
    shown = fovea("cache", "list").stdout
    assert "12 at 16×16, crop" in shown
    assert str(tmp_path / "pets") in shown
    assert json.loads(fovea("cache", "clear", "--json").stdout) == {"freed_bytes": found["num_bytes"]}
    assert entries() == []
    assert not list(Path(cache_dir()).rglob("*.part"))
    wrong = fovea("cache", "claer")
    assert wrong.code == 2
    assert "did you mean 'clear'" in wrong.stderr


@pytest.mark.parametrize("name", ["pixels", "entry.json", "facts.json"])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])], ids=["gone", "cut"]
)
def test_a_damaged_entry_is_made_anew(pets: Path, num_decoded: list[int], name: str, damage: object) -> None:
    first = load()
    (path,) = Path(cache_dir()).glob(f"decoded/*/{name}")
    damage(path)  # type: ignore[operator]
    assert same(load(), first)
    assert len(num_decoded) == 2
    assert same(load(), first)
    assert len(num_decoded) == 2


def test_a_kill_in_the_middle_leaves_no_half_entry(pets: Path, num_decoded: list[int]) -> None:
    """A real process, killed while it writes."""
    script = (
        "import sys, time, fovea\n"
        "from fovea.data import cache\n"
        "decode = cache.decode_each\n"
        "def slow(pictures, fit):\n"
        "    for number, one in enumerate(decode(pictures, fit)):\n"
        "        yield one\n"
        "        if number == 5:\n"
        "            print('half', flush=True)\n"
        "            time.sleep(60)\n"
        "cache.decode_each = slow\n"
        "fovea.load_data('pets', image_size=16)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    (left,) = Path(cache_dir()).glob("decoded/.*.part")
    assert entries() == []
    first = load()
    assert torch.equal(first["dog/5.png"], decode_image(pets / "dog/5.png", Fit((16, 16))))
    assert left.exists(), "another process might still write it"
    for path in (left, *left.iterdir()):
        os.utime(path, (1, 1))
    load(image_size=8)
    assert not left.exists()
    assert same(load(), first)
    assert num_decoded == [12, 12]


def test_two_at_once(pets: Path) -> None:
    """Both decode, both get it, one entry stays."""
    pictures = sorted(pets.rglob("*.png"))
    together, stores = threading.Barrier(2), []

    def work() -> None:
        once = iter([together.wait])
        stored = load_pictures(pictures, Fit((16, 16)), "pets", lambda: next(once, int)(), print)
        stores.append(stored.store)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*stores)
    assert len(entries()) == 1
    assert not list(Path(cache_dir()).glob("decoded/.*"))


@contextlib.contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size: what a full disk does to each write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("num_bytes", [5000, 0])
def test_a_full_disk_is_one_line(pets: Path, fovea: Fovea, num_bytes: int) -> None:
    with room_for(num_bytes):
        result = fovea("inspect", "pets", "--image-size", 16)
    assert result.code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "has no room for the decoded pictures" in result.stderr
    assert "fovea cache clear" in result.stderr
    assert not list(Path(cache_dir()).glob("decoded/*"))


def test_a_disk_that_is_too_small_says_so_before_anything_is_decoded(
    pets: Path, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="no room .*0.0 MB needed, 0.0 MB free"):
        load()
    assert num_decoded == []


def test_a_cache_that_cannot_be_written_is_said_once(pets: Path, monkeypatch: pytest.MonkeyPatch, fovea: Fovea) -> None:
    cached = load()
    Path("file").touch()
    monkeypatch.setenv("FOVEA_CACHE", "file")
    result = fovea("inspect", "pets", "--image-size", 16)
    assert result.code == 0
    assert result.stdout.count("cannot be written") == 1
    assert same(load(), cached)


def test_what_was_not_used_for_longest_goes_first(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (8, 9, 10):
        load(image_size=size)
    folder = Path(cache_dir()) / "decoded"
    for entry in entries():  # 8 was used last, 9 long ago
        os.utime(folder / entry.key / "entry.json", (1, {8: 3e9, 9: 1e9, 10: 2e9}[entry.image_size[0]]))
    room = sum(entry.num_bytes for entry in entries())
    usage = shutil.disk_usage(".")
    share = module._SHARE_OF_DISK
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=room / share))
    load(image_size=7)
    assert sorted(entry.image_size[0] for entry in entries()) == [7, 8, 10]


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FOVEA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_dir() == str(tmp_path / "x" / "fovea")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == str(tmp_path / ".cache" / "fovea")
