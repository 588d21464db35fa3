"""What is wrong with a data set: each check against data that was broken in a known way."""

from __future__ import annotations

import html
import html.parser
import io
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from conftest import Fovea
from fovea.api import load_data
from fovea.config import DataConfig
from fovea.data.types import Dataset, FileFacts, Split
from fovea.uses.health import near
from fovea.uses.health.album import Album
from fovea.uses.health.check import check_health, short_check
from fovea.uses.health.finding import Finding
from fovea.uses.health.suspects import Judged
from test_bad_input import assert_refused, nothing_written

PLUGIN = """
import torch
from fovea.data.sources.digits import digits
from fovea.data.types import Place, RawData, RawSplit
from fovea.registry import source

@source
def noisy(place: Place) -> RawData:
    '''Digits, one in twenty with a wrong label.'''
    split = digits(place).splits["train"]
    flipped = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[: len(split.labels) // 20]
    labels = torch.tensor(split.labels)
    labels[flipped] = (labels[flipped] + 1 + flipped % 9) % 10
    ids = [("wrong/" if row in set(flipped.tolist()) else "right/") + str(row) for row in range(len(labels))]
    return RawData(tuple(map(str, range(10))), {"train": RawSplit(split.images, labels.tolist(), ids)})
"""


def photographs(number: int, side: int = 32, seed: int = 0) -> Tensor:
    """`(number, 3, side, side) uint8`: noise with the 1/f spectrum of photographs, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    frequency = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side) ** 2).sqrt().clamp_min(1 / side)
    spectrum = torch.fft.rfft2(torch.randn(number, 3, side, side, generator=generator)) / frequency
    grey = torch.fft.irfft2(spectrum[:, :1] + 0.4 * spectrum, s=(side, side))
    return (127 + 50 * grey / grey.std((1, 2, 3), keepdim=True)).clamp(0, 255).to(torch.uint8)


def data_set(images: Tensor, labels: list[int], num_test: int = 0, classes: int = 2) -> Dataset:
    """The last `num_test` images are the test split."""
    rows, targets = torch.arange(len(images)), torch.tensor(labels)
    ids = tuple(f"image-{row}" for row in range(len(images)))
    whole = Split(images, targets, ids)
    cut = len(images) - num_test
    splits = {"train": whole.take(rows[:cut]), **({"test": whole.take(rows[cut:])} if num_test else {})}
    return Dataset(DataConfig(name="made"), tuple(f"class-{k}" for k in range(classes)), splits, FileFacts(), {})


def found(dataset: Dataset) -> dict[str, Finding]:
    return {finding.kind: finding for finding in check_health(Album(dataset))}


def ids(finding: Finding) -> set[frozenset[str]]:
    return {frozenset(seen.id for seen in group) for group in finding.groups}


def saved_again(image: Tensor) -> Tensor:
    data = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(data, "jpeg", quality=85)
    return torch.from_numpy(np.asarray(Image.open(data)).copy()).permute(2, 0, 1)


def cropped(image: Tensor) -> Tensor:
    part = image[None, :, 1:-2, 2:-1].float()
    return F.interpolate(part, image.shape[1:], mode="bilinear", antialias=True)[0].to(torch.uint8)


# -- duplicates ----------------------------------------------------------------------------------------------------


def test_copies_are_found_and_nothing_else() -> None:
    """Saved as JPEG, brighter and paler, cropped, mirrored, and all of it: each copy belongs to its original."""
    images = photographs(120)
    copies = [
        saved_again(images[0]), (images[1] * 0.6 + 60).to(torch.uint8), cropped(images[2]), images[3].flip(2),
        cropped(saved_again((images[4].flip(2) * 0.8).to(torch.uint8))), images[5],
    ]  # fmt: skip
    everything = torch.cat([images, torch.stack(copies)])
    findings = found(data_set(everything, [row % 2 for row in range(120)] + [0, 1, 0, 1, 0, 1]))
    assert not {"leakage", "contradiction"} & set(findings)
    assert ids(findings["duplicates"]) == {frozenset({"image-5", "image-125"})}
    assert ids(findings["near duplicates"]) == {frozenset({f"image-{k}", f"image-{120 + k}"}) for k in range(5)}


def test_a_copy_in_test_or_in_another_class_is_serious() -> None:
    images = photographs(200)
    images[199], images[198] = images[0], cropped(images[1])  # in test
    images[100] = images[3]  # of another class
    findings = found(data_set(images, [row // 100 for row in range(200)], num_test=40))
    leak = findings["leakage"]
    assert ids(leak) == {frozenset({"image-199", "image-0"}), frozenset({"image-198", "image-1"})}
    assert leak.severity == "serious"
    assert "2 of 40 test images (5.0 %)" in leak.text
    assert "(1 the same, 1 nearly)" in leak.text
    first, second = leak.groups[0]
    assert (first.split, second.split, second.facts["same"]) == ("test", "train", True)
    assert ids(findings["contradiction"]) == {frozenset({"image-3", "image-100"})} | ids(leak)
    assert findings["contradiction"].severity == "serious"


def test_pivots_find_what_comparing_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(600)
    images[300:400] = torch.stack([cropped(image) for image in images[:100]])
    album = Album(data_set(images, [0] * 600))
    measures = album.measure(lambda done, what: None)
    sizes = []
    pairs = []
    for limit in (4096, 100):
        monkeypatch.setattr(near, "_ALL_PAIRS", limit)
        result = near.near_duplicates(measures.descriptors, album.labels, album.pick, sizes.append)
        pairs.append({tuple(pair) for pair in result.rows.tolist()})
        assert sizes[-1] == 600
    assert len(pairs[0]) >= 95  # of 100
    assert pairs[0] <= {(row, row + 300) for row in range(100)}
    assert len(pairs[1] & pairs[0]) >= 0.95 * len(pairs[0])


def test_images_that_are_all_alike_are_no_copies() -> None:
    """Handwritten digits of a class lie over each other: without a stricter measure, half of them count as copies."""
    findings = found(load_data("digits"))
    assert set(findings) <= {"near duplicates"}
    assert sum(len(group) for finding in findings.values() for group in finding.groups) <= 4


def test_known_copies_of_cifar10(cifar10_dir: Path) -> None:
    """Pairs that Barz and Denzler (2019) judged by eye, among other images."""
    pairs = [
        (6611, 49007),
        (159, 25768),
        (7293, 9640),
        (6080, 9148),
        (2901, 6801),
        (896, 22402),
        (673, 34116),
        (516, 43161),
    ]
    dataset = load_data("cifar10", data_dir=str(cifar10_dir))
    few = {
        "train": dataset.train.take(torch.tensor([train for _, train in pairs] + list(range(400)))),
        "test": dataset.splits["test"].take(torch.tensor([test for test, _ in pairs] + list(range(1000, 1200)))),
    }
    leak = found(replace(dataset, splits=few))["leakage"]
    assert ids(leak) >= {frozenset({f"test/{test}", f"train/{train}"}) for test, train in pairs}
    assert len(leak.groups) <= len(pairs) + 2


# -- classes and outliers ------------------------------------------------------------------------------------------


def test_few_and_uneven() -> None:
    labels = [0] * 80 + [1] * 15 + [2] * 5 + [0] * 15 + [1] * 5
    findings = found(data_set(photographs(120), labels, num_test=20, classes=3))
    assert set(findings) == {"few images", "few test images", "imbalance"}
    assert "class-2 (5), class-1 (15)" in findings["few images"].text
    assert "class-2 (0)" in findings["few test images"].text
    text = findings["imbalance"].text
    entropy = -sum(share * math.log(share) for share in (0.8, 0.15, 0.05))
    for part in (
        "16.0 times",
        "(80 and 5)",
        f"count as {math.exp(entropy):.1f}",
        "right in 75 % of test",
        "--balance loss",
    ):
        assert part in text


def test_outliers_are_named() -> None:
    images = photographs(300)
    images[7] = 77  # a single colour
    images[8] = (images[8] / 60).to(torch.uint8)  # dark
    images[9] = torch.randint(
        0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )  # noise
    findings = found(data_set(images, [row % 2 for row in range(300)]))
    assert ids(findings["single colour"]) == {frozenset({"image-7"})}
    assert ids(findings["outliers in brightness"]) == {frozenset({"image-8"})}
    assert ids(findings["outliers in sharpness"]) == {frozenset({"image-9"})}
    assert findings["outliers in sharpness"].groups[0][0].facts["z"] > 6


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert check_health(Album(data_set(photographs(300), [row % 2 for row in range(300)], num_test=60))) == []


# -- a folder, from end to end ---------------------------------------------------------------------------------------


def picture(path: Path, image: Tensor) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = Image.fromarray(image.permute(1, 2, 0).numpy())
    opened.save(path)
    return opened


@pytest.fixture
def messy() -> Path:
    images = photographs(97, side=48)
    for row in range(90):
        picture(
            Path(f"messy/{'train' if row < 70 else 'test'}/{'cat' if row % 2 else 'dog'}/{row:02}.png"), images[row]
        )
    image = picture(Path("messy/train/dog/twice.png"), images[0])
    image.save("messy/train/cat/dog among cats.png")
    ImageEnhance.Brightness(image).enhance(1.4).save("messy/test/dog/brighter.jpg", quality=70)
    picture(Path("messy/train/cat/wide.png"), images[90]).resize((2000, 100)).save("messy/train/cat/wide.png")
    picture(Path("messy/train/dog/grey.png"), images[91]).convert("L").save("messy/train/dog/grey.png")
    whole = Path("messy/train/cat/01.png").read_bytes()
    Path("messy/train/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    return Path("messy")


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href")]


def test_a_messy_folder_from_end_to_end(fovea: Fovea, messy: Path) -> None:
    before = {path: path.read_bytes() for path in messy.rglob("*.*")}
    result = fovea("inspect", messy, "--strict", "--json", "--out", "look")
    assert result.code == 3
    facts = json.loads(result.stdout)
    findings = {finding["kind"]: finding for finding in facts["findings"]}
    assert facts == json.loads(Path("look/inspect.json").read_text(encoding="utf-8"))
    groups = {
        kind: {tuple(seen["id"].split("/")[-1] for seen in group) for group in f["groups"]}
        for kind, f in findings.items()
    }
    assert groups["broken"] == {("cut.png",)}
    assert len(groups["leakage"]) == 1
    assert {seen for group in groups["leakage"] for seen in group} < {
        "brighter.jpg",
        "00.png",
        "twice.png",
        "dog among cats.png",
    }
    assert {frozenset(group) for group in groups["contradiction"]} >= {frozenset({"dog among cats.png", "00.png"})}
    assert {frozenset(group) for group in groups["duplicates"]} == {
        frozenset({"dog among cats.png", "00.png", "twice.png"})
    }
    assert ("wide.png",) in groups["outliers in aspect ratio"]
    assert "L (1)" in findings["mixed modes"]["text"]
    assert [finding["severity"] for finding in facts["findings"]] == sorted(
        (finding["severity"] for finding in facts["findings"]), key=["serious", "warning", "note"].index
    )
    page = Path("look/inspect.html").read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert all(link.startswith(("data:image/", "#f")) for link in links.found)
    assert len([link for link in links.found if link.startswith("data:image/")]) >= 8
    anchors = {link[1:] for link in links.found if link.startswith("#")}
    assert anchors == set(re.findall(r'<h2 id="(f\d+)"', page))
    for finding in facts["findings"]:
        assert finding["text"].split(":")[0] in html.unescape(page)

    shown = fovea("inspect", messy, "--out", "look")
    assert shown.code == 0  # not strict
    assert "serious: leakage: 1 of " in shown.stdout
    assert "page: look/inspect.html" in shown.stdout
    assert {path: path.read_bytes() for path in messy.rglob("*.*")} == before


def test_strict_leaves_a_clean_folder_alone(fovea: Fovea) -> None:
    images = photographs(120, side=24)
    for row in range(120):
        picture(Path(f"clean/{'cat' if row % 2 else 'dog'}/{row}.png"), images[row])
    result = fovea("inspect", "clean", "--strict")
    assert result.code == 0
    assert "health: nothing found" in result.stdout
    assert "No check found anything" in Path("inspect/clean/inspect.html").read_text(encoding="utf-8")
    assert short_check(load_data("clean")) == []


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without charts and report, which take longer to draw than such a run to train."""
    monkeypatch.setattr("fovea.api.draw_pictures", lambda run, dataset: None)
    monkeypatch.setattr("fovea.api.write_report", lambda run: None)


@pytest.mark.usefixtures("no_pictures")
def test_train_begins_with_what_is_wrong(fovea: Fovea, messy: Path) -> None:
    lines = short_check(load_data(str(messy), skip_bad=True))
    assert 2 <= len(lines) <= 5
    assert any(line.startswith("serious: 1 of 21 test images") for line in lines)
    assert lines[-1].endswith("fovea inspect messy")
    trained = fovea(
        "train", messy, "--skip-bad", "--recipe", "simple", "--epochs", "0", "--model", "convnet:width=4", "--image-size", "32",
    )  # fmt: skip
    assert trained.code == 0, trained.stderr
    assert "serious: 1 of 21 test images" in trained.stdout


# -- labels --------------------------------------------------------------------------------------------------------


def test_confident_learning_by_hand() -> None:
    """Against the definition, written out by loops: thresholds, the class that an image counts to, the order."""
    draw = random.Random(0)
    labels = [row % 3 for row in range(60)]
    table = [
        [draw.random() / 4 + 2 * (k == (label if row % 10 else (label + 1) % 3)) for k in range(3)]
        for row, label in enumerate(labels)
    ]
    table = [[value / sum(values) for value in values] for values in table]
    thresholds = [
        sum(values[k] for values, label in zip(table, labels, strict=True) if label == k) / labels.count(k) for k in range(3)
    ]  # fmt: skip
    expected = []
    for row, (values, label) in enumerate(zip(table, labels, strict=True)):
        counted = [k for k in range(3) if values[k] >= thresholds[k]]
        best = max(counted, key=values.__getitem__, default=label)
        if best != label:
            expected.append((values[label] - values[best], row, best))
    judged = Judged(torch.arange(60), torch.tensor(labels), torch.tensor(table, dtype=torch.float64))
    rows, classes = judged.suspects()
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == [(row, k) for _, row, k in sorted(expected)]
    assert {0, 10, 20, 30, 40, 50} <= set(rows.tolist())


@pytest.mark.usefixtures("no_pictures", "own_registry")
def test_wrong_labels_are_ranked_first(fovea: Fovea) -> None:
    """One label in twenty of `digits` was flipped, in train as in test; folds judge all images."""
    Path("noisy.py").write_text(PLUGIN, encoding="utf-8")
    plugin = ("--plugin", "noisy.py")
    options = (
        "--recipe",
        "simple",
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--lr",
        "0.02",
        "--model",
        "convnet:width=12",
        "--seed",
        "0",
    )
    assert fovea("train", "noisy", *plugin, *options, "--folds", "2", "--device", "cpu", "--out", "folds").code == 0

    one = fovea("inspect", "noisy", *plugin, "--run", "folds/fold-1", "--json")
    assert one.code == 0, one.stderr
    finding = next(f for f in json.loads(one.stdout)["findings"] if f["kind"] == "labels")
    assert "of 1,797 images, those that the network did not learn from" in finding["text"]
    assert {group[0]["split"] for group in finding["groups"]} <= {"val", "test"}

    both = fovea("inspect", "noisy", *plugin, "--run", "folds", "--json")
    finding = next(f for f in json.loads(both.stdout)["findings"] if f["kind"] == "labels")
    assert "all 1,797 images" in finding["text"]
    named = [group[0]["id"] for group in finding["groups"]]
    right = [name.startswith("wrong/") for name in named]
    assert all(right[:20])
    assert sum(right) / len(named) > 0.75  # precision
    assert sum(right) / 89 > 0.6  # recall, of 89 that were flipped
    first = finding["groups"][0][0]
    assert first["suggested"] != first["class"]
    assert first["probability"] > first["label_probability"]
    assert "Suspicion is not proof" in Path("inspect/noisy/inspect.html").read_text(encoding="utf-8")


def test_other_data_is_judged_whole(fovea: Fovea, tiny_run: Path) -> None:
    result = fovea("inspect", "synthetic:num_images=80:seed=0", "--run", tiny_run, "--json")
    finding = next(f for f in json.loads(result.stdout)["findings"] if f["kind"] == "labels")
    assert "all 80 images" in finding["text"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["synthetic:num_images=200", "--run", "nowhere"], ["nowhere", "fovea train"]),
        (["synthetic:num_images=200:num_classes=5", "--run", "tiny"], ["classes", "class-4"]),
        (["synthetic:num_images=200", "--run", "tiny", "--image-size", "8"], ["--image-size", "--run"]),
        (["digits", "--run", "tiny"], ["classes"]),
    ],
    ids=["no run", "other classes", "a size", "other data"],
)
def test_a_run_that_cannot_judge_is_refused(fovea: Fovea, tiny_run: Path, words: list[str], parts: list[str]) -> None:
    with nothing_written():
        assert_refused(fovea("inspect", *words), *parts)


def test_a_run_without_weights_is_refused(fovea: Fovea, tiny_run: Path) -> None:
    (tiny_run / "weights" / "best.safetensors").unlink()
    with nothing_written():
        assert_refused(fovea("inspect", "synthetic:num_images=200", "--run", tiny_run), "best.safetensors")


def test_a_group_without_runs_is_refused(fovea: Fovea) -> None:
    Path("group").mkdir()
    Path("group/group.json").write_text('{"seeds": [0]}')
    with nothing_written():
        assert_refused(fovea("inspect", "digits", "--run", "group"), "group", "--resume")
