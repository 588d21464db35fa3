"""Splits that Fovea makes: stratified, whole groups, folds, and splits that are given again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from conftest import Fovea
from fovea import Dataset, FoveaError, api, load_data, repeat, train_folds
from fovea.config import DataConfig, RunConfig
from fovea.data.splits import deal, how_split, split_off
from fovea.data.types import FileFacts, Split
from fovea.errors import DataError
from fovea.metrics import wilson_interval
from fovea.run import Run
from fovea.uses import plots
from test_find import class_folders, png, write

TRAIN = ("--epochs", 1, "--device", "cpu", "--model", "convnet:width=4", "--set", "data.image_size=8")


def grouped(num_groups: int, num_classes: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Labels and groups of random sizes; most groups hold one class, some several."""
    random = np.random.default_rng(seed)
    labels, groups = [], []
    for group in range(num_groups):
        size = int(random.integers(1, 30))
        kinds = random.integers(0, num_classes, size) if group % 4 == 0 else [group % num_classes] * size
        labels += list(kinds)
        groups += [f"g{group}"] * size
    order = random.permutation(len(labels))
    return np.asarray(labels)[order], [groups[i] for i in order]


def unevenness(labels: np.ndarray, part: np.ndarray, shares: list[float]) -> float:
    """The largest distance of a part's share of a class from what was asked for."""
    shares_found = [np.bincount(labels[part == k], minlength=labels.max() + 1) for k in range(len(shares))]
    found = np.stack(shares_found) / np.bincount(labels)
    return float(np.abs(found - np.asarray(shares)[:, None]).max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.65, 0.35], [0.2] * 5])
def test_groups_are_dealt_whole_and_every_class_in_its_share(seed: int, shares: list[float]) -> None:
    labels, groups = grouped(120, 4, seed)
    part = deal(labels, groups, shares, seed)
    assert len({(group, k) for group, k in zip(groups, part.tolist(), strict=True)}) == 120, "a group was cut"
    assert unevenness(labels, part, shares) < 0.06
    if len(shares) == 5:  # no worse than scikit-learn's, within the size of a group
        theirs = np.zeros(len(labels), dtype=int)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        for k, (_, test) in enumerate(folds):
            theirs[test] = k
        assert unevenness(labels, part, shares) <= unevenness(labels, theirs, shares) + 0.02
    assert (deal(labels, groups, shares, seed) == part).all()
    assert not (deal(labels, groups, shares, seed + 100) == part).all()


def dataset(labels: list[int], groups: list[str] | None = None) -> Dataset:
    ids = tuple(f"i{number}" for number in range(len(labels)))
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    split = Split(images, torch.tensor(labels), ids)
    classes = tuple(f"class-{label}" for label in range(max(labels) + 1))
    kept = dict(zip(ids, groups or [], strict=bool(groups)))
    return Dataset(DataConfig(name="made"), classes, {"train": split}, FileFacts(), {}, kept)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_two_sides_and_few_groups_still_test_every_class(seed: int) -> None:
    """Two groups of each class: one of them is tested though it is half of the class."""
    whole = dataset([0] * 6 + [1] * 8, [*"aaabbb", *"ccccdddd"])
    data = split_off(whole, DataConfig(name="made", test_fraction=0.2, split_seed=seed))
    sides = {name: {whole.groups[i] for i in split.ids} for name, split in data.splits.items()}
    assert not sides["train"] & sides["test"]
    assert all(data.splits[name].counts(2) == [3, 4] for name in ("train", "test"))


def test_groups_that_cannot_be_parted_are_named() -> None:
    with pytest.raises(DataError, match="1 group is too few"):
        split_off(dataset([0, 0, 1, 1], ["a"] * 4), DataConfig(name="made"))
    data = dataset([0, 0, 1, 1, 1, 1], [*"aabbcc"])
    (own,) = {deal([0, 0, 1, 1, 1, 1], [*"aabbcc"], [0.5, 0.5], 0)[0] + 1}
    with pytest.raises(DataError, match="'class-0'.*one group"):
        split_off(data, DataConfig(name="made", folds=2, fold=own))


@pytest.mark.parametrize("groups", [None, [f"g{number // 3}" for number in range(60)]], ids=["single", "grouped"])
def test_every_image_is_tested_in_exactly_one_fold(groups: list[str] | None) -> None:
    whole = dataset([number % 3 for number in range(60)], groups)
    tested: Counter[str] = Counter()
    for fold in range(1, 6):
        data = split_off(whole, DataConfig(name="made", folds=5, fold=fold, val_fraction=0.25))
        assert {name: split.counts(3) for name, split in data.splits.items()} == {
            "train": [12] * 3, "val": [4] * 3, "test": [4] * 3,
        }  # fmt: skip
        if groups:
            sides = [{whole.groups[i] for i in split.ids} for split in data.splits.values()]
            assert sum(map(len, sides)) == len(set().union(*sides))
        tested.update(data.splits["test"].ids)
    assert tested == Counter(whole.splits["train"].ids)


def test_groups_of_a_folder() -> None:
    for kind in ("cat", "dog"):
        class_folders(f"pets/{kind}", anna=3, berta=4, carla=5, dora=3)
    data = load_data("pets", image_size=8, group="parent", test_fraction=0.25)
    sides = [{i.split("/")[1] for i in split.ids} for split in data.splits.values()]
    assert not sides[0] & sides[1], "a folder of the same name below another class is the same group"
    assert len(set(data.groups.values())) == 4
    for number in range(12):
        write(f"films/{'ab'[number % 2]}/scene{number // 4}_{number}.png", png(number))
    data = load_data("films", image_size=8, group=r"^(scene\d+)_", test_fraction=0.3)
    assert set(data.groups.values()) == {"scene0", "scene1", "scene2"}
    with pytest.raises(FoveaError, match="does not match films/a/scene0_0.png"):
        load_data("films", image_size=8, group="take")
    with pytest.raises(FoveaError, match="regular expression"):
        load_data("films", image_size=8, group="(")


@pytest.mark.parametrize("groups", [None, [*"aabbccdd"]], ids=["single", "grouped"])
def test_what_is_too_small_for_val_has_none(groups: list[str] | None) -> None:
    """One image, or group, of each class to learn from, and one to test."""
    labels = [0, 0, 0, 0, 1, 1, 1, 1] if groups else [0, 0, 1, 1]
    config = DataConfig(name="made", val_fraction=0.1)
    data = split_off(dataset(labels, groups), config)
    assert list(data.splits) == ["train", "test"]
    assert data.held_out["val"] == []
    assert "too small for a val split" in how_split(config, data.held_out)[1]


def test_how_it_was_split_is_said() -> None:
    config = DataConfig(name="made", group="who", split_seed=3)
    assert how_split(config, {"test": ["a", "b"]}) == [
        "The data came without a test split, so Fovea kept 2 images apart: 20 % of each class (images of one who "
        "together), drawn with split_seed 3. split.json lists them."
    ]
    assert how_split(config, {}) == []


# -- from end to end -----------------------------------------------------------------------------------------------


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take most of a tiny run's time, and say nothing of its split."""
    monkeypatch.setattr(api, "draw_pictures", lambda *arguments: None)
    for name in [name for name in vars(plots) if name.startswith("draw_") and name != "draw_balance"]:
        monkeypatch.setattr(plots, name, lambda *arguments: None)


@pytest.mark.usefixtures("undrawn")
def test_an_archive_and_a_manifest_are_found_again_by_every_command(fovea: Fovea) -> None:
    class_folders("pets", cat=10, dog=10)
    shutil.make_archive("animals", "gztar", ".", "pets")
    done = fovea("train", "animals.tar.gz", *TRAIN)
    assert done.code == 0, done.stderr
    assert "came without a test split, so Fovea kept 4 images apart: 20 % of each class" in done.stdout
    run = Run("runs/animals-auto")
    held_out = run.held_out["test"]
    before = (run.path / "predictions.csv").read_bytes()
    assert held_out == [line.split(",")[0] for line in before.decode().splitlines()[1:]]
    assert fovea("evaluate", run.path).code == 0
    assert (run.path / "predictions.csv").read_bytes() == before
    assert fovea("report", run.path).code == 0
    assert "kept 4 images apart" in (run.path / "report.html").read_text(encoding="utf-8")
    assert fovea("train", "--resume", run.path).code == 0

    write("list.csv", "file,kind\n" + "".join(f"pets/{k}/{n}.png,{k}\n" for k in ("cat", "dog") for n in range(10)))
    other = fovea("evaluate", run.path, "--data", "list.csv", "--columns", "path=file,label=kind")
    assert other.code == 0, other.stderr
    assert json.loads((run.path / "evaluations/list-test/metrics.json").read_text())["num_images"] == 20
    assert fovea("inspect", "list.csv", "--columns", "path=file,label=kind").code == 0
    assert Path("inspect/list/inspect.json").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_split_is_given_again(fovea: Fovea) -> None:
    class_folders("pets", cat=10, dog=10)
    words = ("train", "pets", *TRAIN, "--val-fraction", 0.25)
    assert fovea(*words, "--set", "data.split_seed=5", "--out", "first").code == 0
    assert fovea(*words, "--split", "first", "--out", "again").code == 0
    options = {"image_size": 8, "val_fraction": 0.25}
    assert Run("again").held_out == Run("first").held_out != load_data("pets", **options).held_out
    assert "as first says" in (Path("again") / "report.html").read_text(encoding="utf-8")
    test = ["cat/1.png", "dog/7.png"]
    Path("own.json").write_text(json.dumps({"test": test}))
    shutil.rmtree("first")
    assert fovea("evaluate", "again").code == 0, "the run has its split to itself"
    data = load_data("pets", split_file="own.json", **options)
    assert data.held_out["test"] == test
    assert data.splits["val"].counts(2) == [2, 2], "what the file does not name is drawn"


def test_a_split_that_cannot_be_given_is_refused(fovea: Fovea) -> None:
    class_folders("pets", cat=10, dog=10)
    class_folders("parted/train", cat=5, dog=5)
    class_folders("parted/test", cat=5, dog=5)
    write("empty/config.yaml")
    for content, data, parts in (
        ({"test": ["cat/99.png", "cat/1.png"]}, "pets", ["1 images", "cat/99.png"]),
        ({"test": ["cat/1.png"], "val": ["cat/1.png"]}, "pets", ["cat/1.png twice"]),
        ({"test": ["cat/1.png"], "train": []}, "pets", ['{"test": [ids], "val": [ids]}']),
        ({"test": [1]}, "pets", ['{"test": [ids], "val": [ids]}']),
        ({"test": [f"cat/{n}.png" for n in range(10)]}, "pets", ["'cat'", "left to train on"]),
        ({"test": ["test/cat/1.png"]}, "parted", ["test split of its own", "split.json"]),
    ):
        Path("split.json").write_text(json.dumps(content))
        result = fovea("train", data, *TRAIN, "--split", "split.json")
        assert result.code == 2
        for part in parts:
            assert part in result.stderr
    for given, part in (("nowhere", "no nowhere"), ("empty", "came split"), ("pets", "give a run folder")):
        result = fovea("train", "pets", *TRAIN, "--split", given)
        assert result.code == 2
        assert part in result.stderr
    assert not Path("runs").exists()


@pytest.mark.usefixtures("undrawn")
def test_folds_are_a_group_of_runs(fovea: Fovea) -> None:
    class_folders("pets", cat=11, dog=9)
    words = ("train", "pets", *TRAIN, "--folds", 3, "--out", "group")
    result = fovea(*words, "--json")
    assert result.code == 0, result.stderr
    assert "fold 1 of 3" in result.stderr
    assert "20 % of each class, drawn" not in result.stderr, "no other split is spoken of"
    (group,) = json.loads(result.stdout)["groups"]
    runs = repeat.members("group")
    assert [run.name for run in runs] == ["fold-1", "fold-2", "fold-3"]
    tested = [i for run in runs for i in run.held_out["test"]]
    assert len(tested) == len(set(tested)) == 20
    sizes, accuracies = zip(*((run.metrics["num_images"], run.metrics["accuracy"]) for run in runs), strict=True)
    assert sorted(sizes) == [6, 7, 7]
    assert group["folds"] == [1, 2, 3]
    assert group["interval_of"] == "folds"
    assert group["mean"] == pytest.approx(np.mean(accuracies))
    assert group["std"] == pytest.approx(np.std(accuracies, ddof=1))
    correct = round(sum(n * a for n, a in zip(sizes, accuracies, strict=True)))
    assert group["pooled"] == {
        "accuracy": correct / 20, "interval": list(wilson_interval(correct, 20)), "num_images": 20,
    }  # fmt: skip
    assert "fold 2 of 3" in (Path("group/fold-2") / "report.html").read_text(encoding="utf-8")

    expected = (Path("group/fold-2") / "predictions.csv").read_bytes()
    shutil.rmtree("group/fold-2")
    again = fovea("train", "--resume", "group")
    assert again.code == 0, again.stderr
    assert (Path("group/fold-2") / "predictions.csv").read_bytes() == expected
    assert "of all 3 folds together" in again.stdout
    alone = load_data("pets", image_size=8, folds=3, fold=2)
    assert list(alone.splits["test"].ids) == Run("group/fold-2").held_out["test"]


def test_folds_that_cannot_be_are_refused(fovea: Fovea) -> None:
    class_folders("parted/train", cat=5, dog=5)
    class_folders("parted/test", cat=5, dog=5)
    class_folders("pets", cat=5, dog=5)
    for words, part in (
        (["parted", "--folds", 2], "test split of its own"),
        (["pets", "--folds", 1], "at least 2"),
        (["pets", "--folds", 6], "the largest has 5"),
        (["pets", "--folds", 2, "--seeds", 2], "one of them"),
        (["pets", "--set", "data.folds=2"], "--folds"),
        (["pets", "--set", "data.folds=2", "--set", "data.fold=3"], "a fold of these"),
        (["pets", "--folds", 2, "--split", "some"], "split"),
    ):
        result = fovea("train", *words, *TRAIN)
        assert result.code == 2, words
        assert result.stderr.count("\n") == 1
        assert part in result.stderr
    assert not Path("runs").exists()


@pytest.mark.usefixtures("undrawn")
def test_folds_from_python_keep_groups_together(tmp_path: Path) -> None:
    rows = [f"{kind}/{n}.png,{kind},{kind[0]}{n // 3}" for kind in ("cat", "dog") for n in range(6)]
    class_folders(".", cat=6, dog=6)
    write("list.csv", "path,label,who\n" + "\n".join(rows) + "\n")
    group = train_folds(
        "list.csv", 2, out=tmp_path / "group", quiet=True, epochs=1, device="cpu", model="convnet:width=4",
        image_size=8, group="who",
    )  # fmt: skip
    for run in repeat.members(group):
        assert len(run.held_out["test"]) == 6
        assert len({(i[:3], int(i[4]) // 3) for i in run.held_out["test"]}) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_run_older_than_these_settings_is_read(tiny_run: Path) -> None:
    text = (tiny_run / "config.yaml").read_text()
    lines = [line for line in text.splitlines(keepends=True) if line.split(":")[0].strip() not in NEW]
    assert len(lines) == len(text.splitlines()) - len(NEW)
    assert RunConfig.from_yaml("".join(lines), "config.yaml") == Run(tiny_run).config
    assert api.evaluate(tiny_run)["split"] == "test"


NEW = ("columns", "group", "split_file", "folds", "fold")
