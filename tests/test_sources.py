"""Where images come from and how they are decoded: real files, a real server, the real CIFAR-10."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import CIFAR10_FOLDER, FAKE_BATCH, Fovea
from fovea import Dataset, FoveaError, load_data
from fovea.data.preprocess import Preprocess, statistics

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def plain(path: Path, colour: tuple[int, ...] = RED, size: tuple[int, int] = (8, 8)) -> Path:
    return save(Image.new("RGB", size, colour), path)


def class_folder(root: Path, **counts: int) -> Path:
    """A flat folder of small pictures, each of a colour of its own."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            plain(root / name / f"{number:03}.png", (label, number % 256, number // 256))
    return root


def decoded(image: Image.Image, name: str = "a.png", size: int = 8, **options: object) -> np.ndarray:
    """What training sees of one picture: `(H, W, C) uint8`."""
    for path in (Path("pictures/train/one", name), Path("pictures/train/one", f"copy-{name}")):
        save(image, path, **options)
    for number in range(2):
        plain(Path(f"pictures/train/two/{number}.png"))
    data = load_data("pictures", image_size=size, test_fraction=0.0)
    assert data.train.images.dtype == torch.uint8
    return data.train.images[data.train.ids.index(f"train/one/{name}")].permute(1, 2, 0).numpy()


def counts(data: Dataset) -> dict[str, list[int]]:
    return {name: split.counts(len(data.classes)) for name, split in data.splits.items()}


# -- decoding ------------------------------------------------------------------------------------------------------


def test_a_png_of_the_right_size_keeps_its_pixels() -> None:
    pixels = random_pixels(8, 8, 3)
    assert (decoded(Image.fromarray(pixels)) == pixels).all()


# How a camera stored an upright picture, by the value of its EXIF orientation (EXIF 2.3, table 6).
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_respected(orientation: int) -> None:
    upright = random_pixels(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert (decoded(stored, exif=exif) == upright).all()


def test_a_large_turned_jpeg_is_upright() -> None:
    """Large, so that the decoder may take its short cut through a smaller scale."""
    upright = np.zeros((400, 400, 3), np.uint8)
    upright[:200, :200] = RED
    upright[:200, 200:] = GREEN
    upright[200:, :200] = BLUE
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = decoded(Image.fromarray(np.rot90(upright).copy()), "a.jpg", exif=exif, quality=95)
    for row, column, colour in ((1, 1, RED), (1, 6, GREEN), (6, 1, BLUE), (6, 6, BLACK)):
        assert np.abs(seen[row, column].astype(int) - colour).max() < 12


def test_a_large_jpeg_is_reduced_without_aliasing() -> None:
    """A fine chequer is grey from afar."""
    chequer = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    seen = decoded(Image.fromarray(chequer).convert("RGB"), "a.jpg", quality=100)
    assert np.abs(seen.astype(int) - 128).max() <= 3


def test_transparency_lies_on_white() -> None:
    pixels = np.full((8, 8, 4), (*BLACK, 0), np.uint8)
    pixels[:4] = (*RED, 255)
    pixels[4] = (*RED, 51)  # a fifth: 0.2 of red on 0.8 of white
    seen = decoded(Image.fromarray(pixels))
    assert (seen[:4] == RED).all()
    assert np.abs(seen[4].astype(int) - (255, 204, 204)).max() <= 1
    assert (seen[5:] == WHITE).all()


def test_grey_with_transparency_lies_on_white() -> None:
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[:4] = (60, 255)
    seen = decoded(Image.fromarray(pixels, "LA"))
    assert (seen[:4] == 60).all()
    assert (seen[4:] == 255).all()


def test_grey_pictures_have_three_equal_channels() -> None:
    pixels = random_pixels(8, 8)
    assert (decoded(Image.fromarray(pixels)) == pixels[:, :, None]).all()


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_looked_up(name: str, transparent: bool) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*BLACK, *RED, *GREEN, *BLUE])
    image.paste(1, (0, 0, 8, 4))
    image.paste(2, (0, 4, 8, 6))
    seen = decoded(image, name, **({"transparency": 0} if transparent else {}))
    assert (seen[:4] == RED).all()
    assert (seen[4:6] == GREEN).all()
    assert (seen[6:] == (WHITE if transparent else BLACK)).all()


def test_black_and_white_pictures() -> None:
    pixels = random_pixels(8, 8) > 127
    assert (decoded(Image.fromarray(pixels)) == pixels[:, :, None] * 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("top", [255, 3, 1, 0], ids=["full range", "dark", "nearly black", "black"])
def test_sixteen_bits_become_eight(name: str, top: int) -> None:
    """A level of 257 v is v: 65535 is white whatever else is in the picture."""
    levels = np.linspace(0, top, 64).round().astype(np.uint16).reshape(8, 8)
    assert (decoded(Image.fromarray(levels * 257), name) == levels[:, :, None]).all()


def test_sixteen_bits_below_the_first_of_eight_are_black() -> None:
    """A 16-bit file stays one where no level exceeds 255: 100 of 65535 is black, not grey."""
    levels = np.full((8, 8), 100, np.uint16)
    assert (decoded(Image.fromarray(levels)) == 0).all()


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, BLACK, (200, 120, 40)])
def test_cmyk_jpeg(colour: tuple[int, int, int]) -> None:
    seen = decoded(Image.new("RGB", (8, 8), colour).convert("CMYK"), "a.jpg", quality=100)
    assert np.abs(seen.astype(int) - colour).max() <= 3


def test_the_middle_is_cut_out_and_nothing_is_squeezed() -> None:
    for width, height in ((60, 20), (20, 60), (240, 80)):
        stripes = Image.new("RGB", (width, height), RED)
        across = width > height
        third = max(width, height) // 3
        stripes.paste(GREEN, (third, 0, 2 * third, height) if across else (0, third, width, 2 * third))
        # The edges of a reduced picture mix with their neighbours, so only the inner pixels are exact.
        inner = decoded(stripes, f"{width}.png", size=20)[2:-2, 2:-2]
        assert (inner == GREEN).all()


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (500, 3)])
def test_small_and_odd_pictures_are_enlarged(size: tuple[int, int]) -> None:
    seen = decoded(Image.new("RGB", size, (10, 200, 30)), size=16)
    assert seen.shape == (16, 16, 3)
    assert (seen == (10, 200, 30)).all()


@pytest.mark.parametrize("ending", ["bmp", "tif", "webp", "ppm"])
def test_other_formats(ending: str) -> None:
    pixels = random_pixels(8, 8, 3)
    options = {"lossless": True} if ending == "webp" else {}
    assert (decoded(Image.fromarray(pixels), f"a.{ending}", **options) == pixels).all()


def test_a_model_of_one_channel_sees_luma_on_white() -> None:
    """As `fovea predict` decodes for a model that learned grey images (ITU-R 601 luma)."""
    grey = Preprocess((8, 8), 1, (0.5,), (0.5,))
    for colour, luma in ((RED, 76), (GREEN, 150), (BLUE, 29), (WHITE, 255)):
        seen = grey.decode(plain(Path("a.png"), colour))
        assert seen.shape == (1, 8, 8)
        assert (seen.int() - luma).abs().max() <= 1
    clear = save(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Path("clear.png"))
    assert (grey.decode(clear) == 255).all()


# -- folders -------------------------------------------------------------------------------------------------------


def test_a_flat_folder(tmp_path: Path) -> None:
    class_folder(Path("pets"), dog=10, cat=5, cow=20)
    plain(Path("pets/cow/deep/er/x.png"))
    data = load_data("pets", image_size=8)
    assert data.name == "pets"
    assert data.classes == ("cat", "cow", "dog")
    assert counts(data) == {"train": [4, 17, 8], "test": [1, 4, 2]}
    ids = {i for split in data.splits.values() for i in split.ids}
    assert len(ids) == 36
    assert {"cat/000.png", "cow/deep/er/x.png"} <= ids
    # Each id still belongs to its picture and its label after the split.
    for split in data.splits.values():
        for image, label, name in zip(split.images, split.labels.tolist(), split.ids, strict=True):
            assert name.startswith(f"{data.classes[label]}/")
            assert (image == _pixels(Path("pets") / name)).all()
    assert counts(load_data(str(tmp_path / "pets"), image_size=8)) == counts(data)


def _pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("train", "valid", "test"), ("train", "validation", "test"), ("Train", "Val", "Test")],
    ids=" ".join,
)
def test_a_folder_that_is_split_already(names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (4, 3, 2), strict=True):
        class_folder(Path("pets") / name, cat=count, dog=count)
    data = load_data("pets", image_size=8, val_fraction=0.5)
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": [4, 4], "val": [3, 3], "test": [2, 2]}
    assert data.held_out == {}
    assert data.splits["test"].ids[0] == f"{names[2]}/cat/000.png"


def test_splits_that_are_missing_are_made_of_train() -> None:
    class_folder(Path("pets/train"), cat=10, dog=10)
    class_folder(Path("pets/test"), cat=2, dog=1)
    data = load_data("pets", image_size=8, val_fraction=0.3)
    assert counts(data) == {"train": [7, 7], "val": [3, 3], "test": [2, 1]}
    assert set(data.held_out) == {"val"}


def test_a_test_split_may_lack_a_class() -> None:
    class_folder(Path("pets/train"), cat=3, cow=3, dog=3)
    class_folder(Path("pets/test"), dog=2)
    assert counts(load_data("pets", image_size=8))["test"] == [0, 0, 2]


def test_a_class_may_be_called_train() -> None:
    class_folder(Path("vehicles"), bus=5, car=5, train=5)
    assert load_data("vehicles", image_size=8).classes == ("bus", "car", "train")


def test_hidden_files_and_those_of_file_managers_are_ignored() -> None:
    class_folder(Path("pets"), cat=5, dog=5)
    for name in (".DS_Store", "cat/.DS_Store", "cat/._000.png", "dog/Thumbs.db", "dog/desktop.ini", "notes.txt"):
        Path("pets", name).write_bytes(b"no picture")
    plain(Path("pets/.trash/x.png"))
    plain(Path("pets/cat/.thumbnails/x.png"))
    data = load_data("pets", image_size=8)
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": [4, 4], "test": [1, 1]}
    assert not data.facts.skipped


def test_links_are_followed() -> None:
    class_folder(Path("elsewhere"), dog=5, spare=1)
    class_folder(Path("pets"), cat=5)
    Path("pets/dog").symlink_to(Path("elsewhere/dog").resolve())
    Path("pets/cat/link.png").symlink_to(Path("elsewhere/spare/000.png").resolve())
    data = load_data("pets", image_size=8)
    assert counts(data) == {"train": [5, 4], "test": [1, 1]}
    assert "cat/link.png" in {*data.train.ids, *data.splits["test"].ids}


def test_names_in_any_script() -> None:
    class_folder(Path("写真"), **{"猫": 5, "Käfer und Öl": 5, "собака": 5, "🐟": 5})
    data = load_data("写真", image_size=8)
    assert set(data.classes) == {"猫", "Käfer und Öl", "собака", "🐟"}
    assert "猫/000.png" in {*data.train.ids, *data.splits["test"].ids}


# -- splitting -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(class_folder(tmp_path_factory.mktemp("pets"), cat=100, cow=41, dog=13, eel=4, fly=2))


def test_every_class_is_in_the_splits_in_about_its_share(pets: str) -> None:
    data = load_data(pets, image_size=8, test_fraction=0.2, val_fraction=0.25)
    # A fifth for test; of the rest a quarter for val; never all of a class.
    assert counts(data) == {"train": [60, 25, 8, 2, 1], "val": [20, 8, 2, 1, 0], "test": [20, 8, 3, 1, 1]}
    ids = [i for split in data.splits.values() for i in split.ids]
    assert len(ids) == len(set(ids)) == 160
    assert data.held_out == {"test": list(data.splits["test"].ids), "val": list(data.splits["val"].ids)}


def test_a_split_repeats_with_its_seed_only(pets: str) -> None:
    def split(seed: int) -> dict[str, tuple[str, ...]]:
        data = load_data(pets, image_size=8, val_fraction=0.2, split_seed=seed)
        return {name: split.ids for name, split in data.splits.items()}

    first = split(0)
    assert split(0) == first
    for name in ("train", "val", "test"):
        assert split(1)[name] != first[name]


def test_a_split_is_no_run_of_neighbours(pets: str) -> None:
    chosen = [i for i in load_data(pets, image_size=8).splits["test"].ids if i.startswith("cat/")]
    assert len(chosen) == 20
    assert int(chosen[-1][4:7]) - int(chosen[0][4:7]) > 40


# -- digits and synthetic ------------------------------------------------------------------------------------------


def test_digits() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert data.classes == tuple("0123456789")
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1438, "test": 359}
    wanted = load_digits()
    for split in data.splits.values():
        rows = [int(i.removeprefix("digits/")) for i in split.ids]
        assert split.labels.tolist() == wanted.target[rows].tolist()
        assert (split.images[:, 0].numpy() == np.round(wanted.images[rows] * 255 / 16)).all()
    assert max(counts(data)["test"]) - min(counts(data)["test"]) <= 2


def test_synthetic_is_the_same_for_the_same_seed() -> None:
    first, again, other = (load_data(f"synthetic:num_images=100{option}") for option in ("", ":seed=0", ":seed=1"))
    for name in ("train", "test"):
        assert torch.equal(first.splits[name].images, again.splits[name].images)
        assert torch.equal(first.splits[name].labels, again.splits[name].labels)
        assert not torch.equal(first.splits[name].images, other.splits[name].images)
    assert not torch.equal(first.train.images[:20], first.splits["test"].images)


def test_synthetic_takes_options_in_its_name() -> None:
    data = load_data("synthetic:num_classes=3:image_size=8:num_images=300:channels=1")
    assert data.classes == ("class-0", "class-1", "class-2")
    assert data.train.images.shape == (240, 1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert counts(data) == {"train": [80, 80, 80], "test": [20, 20, 20]}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("num_classes=1", "num_classes"),
        ("image_size=1", "image_size"),
        ("num_images=39", "num_images"),
        ("channels=2", "channels"),
        ("num_clases=3", "did you mean 'num_classes'"),
        ("seed=x", "'seed' .* must be int, not 'x'"),
        ("40:4:16:3:0.2:0:9", "takes no value '9'"),
    ],
)
def test_synthetic_refuses_bad_options(options: str, named: str) -> None:
    with pytest.raises(FoveaError, match=named):
        load_data(f"synthetic:{options}")


# -- torchvision's sets --------------------------------------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path and counts what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: standard error is what is tested."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def archive(fake_cifar10: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The fake CIFAR-10 as the archive that torchvision expects to download from the server."""
    from torchvision.datasets import CIFAR10

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(fake_cifar10 / CIFAR10_FOLDER, CIFAR10_FOLDER)
    monkeypatch.setattr(CIFAR10, "url", server.url + "c.tar.gz")
    monkeypatch.setattr(CIFAR10, "filename", "c.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    return buffer.getvalue()


def test_a_named_set_is_downloaded_once_into_the_cache(
    fovea: Fovea, cache: Path, server: _Server, archive: bytes, fake_cifar10: Path
) -> None:
    server.files["c.tar.gz"] = archive
    first = fovea("inspect", "cifar10", "--json")
    assert first.code == 0
    assert f"downloading into {cache}" in first.stderr
    facts = json.loads(first.stdout)  # the download's own lines are not in the way
    assert facts["num_images"] == {"train": 5 * FAKE_BATCH, "test": FAKE_BATCH}
    for path in (fake_cifar10 / CIFAR10_FOLDER).iterdir():
        assert (cache / CIFAR10_FOLDER / path.name).read_bytes() == path.read_bytes()
    asked = server.asked.copy()  # torchvision asks once for redirections, then for the file
    assert 1 <= asked["c.tar.gz"] <= 2

    again = fovea("inspect", "cifar10", "--json")
    assert (again.code, again.stderr) == (0, "")
    assert json.loads(again.stdout) == facts
    assert server.asked == asked


def test_a_download_that_was_cut_short_is_refused_and_can_be_repeated(
    fovea: Fovea, cache: Path, server: _Server, archive: bytes
) -> None:
    server.files["c.tar.gz"] = archive[:-100]
    first = fovea("inspect", "cifar10")
    assert first.code == 2
    assert str(cache / "c.tar.gz") in first.stderr
    assert not (cache / CIFAR10_FOLDER).exists()
    server.files["c.tar.gz"] = archive
    assert fovea("inspect", "cifar10").code == 0


def test_an_archive_put_in_place_by_hand_is_unpacked(cache: Path, server: _Server, archive: bytes) -> None:
    Path("data").mkdir()
    Path("data/c.tar.gz").write_bytes(archive)
    assert len(load_data("cifar10").train) == 5 * FAKE_BATCH
    assert Path("data", CIFAR10_FOLDER).is_dir()
    assert not cache.exists()
    assert not server.asked


def test_cifar10_layout_and_names(fake_cifar10: Path) -> None:
    """Red, green and blue planes, row by row; the tutorial's short names rather than the file's."""
    data = load_data("cifar10", data_dir=str(fake_cifar10))
    assert data.classes == ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    raw = pickle.loads((fake_cifar10 / CIFAR10_FOLDER / "test_batch").read_bytes())
    assert torch.equal(data.splits["test"].images, torch.from_numpy(raw["data"]).view(-1, 3, 32, 32))
    assert data.splits["test"].labels.tolist() == raw["labels"]
    assert data.splits["test"].ids[:2] == ("test/0", "test/1")


def write_mnist(root: Path, kind: str = "MNIST", value: int = 0, num_train: int = 20, num_test: int = 10) -> Path:
    """A few images as IDX files: big-endian magic (0, 0, type 8, dimensions) and sizes, then bytes."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        pixels = np.full((count, 28, 28), value, np.uint8)
        pixels[:, 0, 0] = np.arange(count)
        header = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + header + pixels.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + labels.tobytes())
    return raw


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_files(cache: Path, name: str, kind: str) -> None:
    write_mnist(Path("data"), kind, value=7)
    data = load_data(name)
    assert data.train.images.shape == (20, 1, 28, 28)
    assert data.splits["test"].images.shape == (10, 1, 28, 28)
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(20))
    assert (data.train.images[:, 0, 1:] == 7).all()
    assert data.train.labels.tolist() == [*range(10)] * 2
    assert data.classes[:2] == (("0", "1") if name == "mnist" else ("T-shirt/top", "Trouser"))
    assert len(data.classes) == 10


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("keep", [-1, 10, 2, 0])
def test_an_mnist_file_that_was_cut_short_is_named(fovea: Fovea, cache: Path, file: str, keep: int) -> None:
    path = write_mnist(Path("data")) / file
    path.write_bytes(path.read_bytes()[:keep])
    result = fovea("inspect", "mnist")
    assert result.code == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(path) in result.stderr
    assert "damaged" in result.stderr


def test_named_sets_are_looked_for_in_order(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**options: str) -> int:
        return int(load_data("mnist", **options).train.images[0, 0, 9, 9])

    write_mnist(cache, value=4)
    assert found() == 4
    write_mnist(Path("data"), value=3)
    assert found() == 3
    write_mnist(Path("shared"), value=2)
    monkeypatch.setenv("FOVEA_DATA", "shared")
    assert found() == 2
    write_mnist(Path("mine"), value=1)
    assert found(data_dir="mine") == 1
    assert found(data_dir="nothing-here") == 2


def test_svhn_files(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MATLAB files: height, width, channel, image; the digit 0 is stored as 10."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    Path("data").mkdir()
    pixels = random_pixels(32, 32, 3, 20)
    labels = np.tile(np.arange(1, 11, dtype=np.uint8), 2)[:, None]
    places = {}
    for part in ("train", "test"):
        path = Path(f"data/{part}_32x32.mat")
        savemat(path, {"X": pixels, "y": labels})
        places[part] = ["http://127.0.0.1:9/", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", {**SVHN.split_list, **places})
    data = load_data("svhn")
    assert data.classes == tuple("0123456789")
    assert data.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert (data.train.images[5].numpy() == pixels[:, :, :, 5].transpose(2, 0, 1)).all()


# -- CIFAR-10 proper -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar10(cifar10_dir: Path) -> Dataset:
    return load_data("cifar10", data_dir=str(cifar10_dir))


def test_cifar10_images_and_labels(cifar10: Dataset) -> None:
    assert cifar10.train.images.shape == (50000, 3, 32, 32)
    assert cifar10.splits["test"].images.shape == (10000, 3, 32, 32)
    assert cifar10.train.images.dtype == torch.uint8
    assert cifar10.classes == ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert counts(cifar10) == {"train": [5000] * 10, "test": [1000] * 10}
    first = [cifar10.classes[label] for label in cifar10.splits["test"].labels[:4].tolist()]
    assert first == ["cat", "ship", "ship", "plane"]


def test_cifar10_statistics(cifar10: Dataset) -> None:
    """The figures that the field standardizes CIFAR-10 by."""
    mean, std = statistics(cifar10.train)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-4)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-4)
