"""What a user's mistake gets: one line that says what, where and what to do, exit code 2, and nothing half-written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import CIFAR10_FOLDER, Fovea, Result
from fovea import registry
from fovea.run import Run

SYNTHETIC = "synthetic:num_images=200"  # 144 train, 16 val, 40 test
MODEL = ("--model", "convnet:width=8")
TRAIN = (
    "train", SYNTHETIC, "--recipe", "simple", *MODEL, "--epochs", "2", "--batch-size", "20", "--lr", "0.02",
    "--device", "cpu",
)  # fmt: skip
PROGRESS = re.compile(r"[\w-]+: (downloading|unpacking) into |Downloading http")
# Words of the libraries below, which tell a user of Fovea nothing or tell them to run code from a file.
JARGON = ("Traceback", "weights_only", "miniz", "<unicode string>", "errors.pydantic.dev", "NoneType")
REMEDY = re.compile(r"restore|train anew|use the Fovea|fetch|export|save")


def assert_refused(result: Result, *parts: str) -> str:
    """Exit code 2 and one line, which names the parts; returns the line."""
    assert result.code == 2, result
    lines = [line for line in result.stderr.splitlines() if line.strip() and not PROGRESS.match(line)]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fovea: ")
    assert not lines[0].rstrip().endswith(":"), "the reason is missing"
    for part in parts:
        assert part in lines[0]
    for word in JARGON:
        assert word not in lines[0]
    return lines[0]


@contextlib.contextmanager
def nothing_written(root: Path | None = None) -> Iterator[None]:
    """Below the folder (the test's own) nothing is new, changed or gone afterwards."""
    before = contents(root or Path.cwd())
    yield
    assert contents(root or Path.cwd()) == before


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


def noise(path: Path, size: tuple[int, int] = (20, 20), seed: int = 0, **options: object) -> Path:
    """A picture of random pixels; the ending says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def class_folder(root: Path, **counts: int) -> Path:
    """`class_folder(root, cat=5, dog=5)`: a flat folder of pictures."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise(root / name / f"{number}.png", seed=number)
    return root


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


# -- names and values on the command line --------------------------------------------------------------------------


NAMES_AND_VALUES = [
    (["tran", SYNTHETIC], ["'tran'", "'train'"]),
    (["train", "digts"], ["'digts'", "'digits'"]),
    (["inspect", "cifar-10"], ["'cifar-10'", "'cifar10'"]),
    (["train", "./digits"], ["./digits", "fovea list"]),
    (["train", "synthetic:num_clases=3"], ["'num_clases'", "'num_classes'"]),
    (["train", "synthetic:num_classes=few"], ["num_classes", "int", "'few'"]),
    (["train"], ["DATA", "fovea list"]),
    (["train", SYNTHETIC, "--recipe", "simpel"], ["'simpel'", "'simple'"]),
    (["train", SYNTHETIC, "--model", "convent"], ["'convent'", "'convnet'"]),
    (["train", SYNTHETIC, "--model", "convnet:widht=8"], ["'widht'", "'width'"]),
    (["train", SYNTHETIC, "--model", "convnet:width=wide"], ["width", "int", "'wide'"]),
    (["train", SYNTHETIC, "--model", "convnet:width=0"], ["convnet:width=0"]),
    (["train", SYNTHETIC, "--reciep", "simple"], ["--reciep", "--recipe"]),
    (["evaluate", "tiny", "--splt", "test"], ["--splt", "--split"]),
    (["train", SYNTHETIC, "--epochs", "many"], ["--epochs", "integer"]),
    (["train", SYNTHETIC, "--epochs", "-1"], ["epochs", "-1"]),
    (["train", SYNTHETIC, "--batch-size", "0"], ["batch_size", "0"]),
    (["train", SYNTHETIC, "--lr", "nan"], ["lr", "nan"]),
    (["train", SYNTHETIC, "--lr", "inf"], ["lr", "inf"]),
    (["inspect", SYNTHETIC, "--image-size", "1"], ["image_size", "1", "4"]),
    (["inspect", SYNTHETIC, "--val-fraction", "1.5"], ["val_fraction", "1.5"]),
    (["train", SYNTHETIC, "--set", "optim.lrr=0.1"], ["'optim.lrr'", "'optim.lr'"]),
    (["train", SYNTHETIC, "--set", "optim=0.1"], ["'optim'", "'optim."]),
    (["train", SYNTHETIC, "--set", "optim.lr"], ["optim.lr", "="]),
    (["train", SYNTHETIC, "--set", "optim.lr=high"], ["optim.lr", "'high'", "number"]),
    (["train", SYNTHETIC, "--set", "epochs=1.5"], ["epochs", "1.5", "integer"]),
    (["train", SYNTHETIC, "--set", "standardize=perhaps"], ["standardize", "'perhaps'"]),
    (["train", SYNTHETIC, "--set", "optim.name=sdg"], ["optimizer", "'sdg'", "'sgd'"]),
    (["train", SYNTHETIC, "--augment", "mirorr"], ["'mirorr'", "'mirror'"]),
    (["train", SYNTHETIC, "--augment", "shift:pixel=2"], ["'pixel'", "'pixels'"]),
    (["train", SYNTHETIC, "--augment", "shift:pixels=far"], ["pixels", "int", "'far'"]),
    (["train", SYNTHETIC, "--augment", "shift:pixels=16"], ["shift", "16"]),
    (["train", SYNTHETIC, "--plugin", "mine.py"], ["mine.py"]),
    (["train", SYNTHETIC, "--device", "nonsense"], ["'nonsense'", "auto", "cpu", "cuda", "mps"]),
    (["evaluate", "tiny", "--device", "gpu"], ["'gpu'", "cuda"]),
    (["evaluate", "tiny", "--split", "tset"], ["tset", "train", "val", "test"]),
    (["predict", "tiny", "x.png", "--top", "0"], ["--top", "1"]),
    (["export", "tiny", "--format", "pht"], ["'pht'", "'pth'"]),
    (["list", "modles"], ["'modles'", "'models'"]),
]


@pytest.mark.parametrize(
    ("arguments", "parts"), NAMES_AND_VALUES, ids=[" ".join(words) for words, _ in NAMES_AND_VALUES]
)
def test_a_name_or_value_that_is_none_is_refused(
    fovea: Fovea, tiny_run: Path, arguments: list[str], parts: list[str]
) -> None:
    with nothing_written():
        assert_refused(fovea(*arguments), *parts)


def test_every_wrong_setting_is_named_at_once(fovea: Fovea) -> None:
    assert_refused(
        fovea("train", SYNTHETIC, "--set", "optim.lrr=1", "--set", "epocs=2"), "optim.lrr", "epocs", "epochs"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_cuda_where_there_is_none_is_refused(fovea: Fovea, tiny_run: Path, command: str) -> None:
    words = {"train": [SYNTHETIC], "evaluate": [tiny_run], "predict": [tiny_run, noise(Path("x.png"))]}[command]
    with nothing_written():
        assert_refused(fovea(command, *words, "--device", "cuda"), "cuda", "--device auto")


# -- folders of pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "inspect"])
@pytest.mark.parametrize(
    ("counts", "parts"),
    [
        ({}, ["pictures", "<class>"]),
        ({"cat": 5}, ["'cat'", "at least two"]),
        ({"cat": 5, "dog": 1}, ["'dog'", "1 training image", "at least 2"]),
        ({"cat": 5, "dog": 0}, ["'dog'", "0 training images", "at least 2"]),
    ],
    ids=["empty", "one class", "a class with one image", "a class without images"],
)
def test_a_folder_with_too_little_is_refused(
    fovea: Fovea, command: str, counts: dict[str, int], parts: list[str]
) -> None:
    Path("pictures").mkdir()
    class_folder(Path("pictures"), **counts)
    with nothing_written():
        assert_refused(fovea(command, "pictures"), "pictures", *parts)


def test_pictures_without_class_folders_are_refused(fovea: Fovea) -> None:
    noise(Path("pictures/0.png"))
    with nothing_written():
        assert_refused(fovea("train", "pictures"), "pictures", "<class>")


def test_data_with_some_of_the_classes_is_measured_on_those(fovea: Fovea, tiny_run: Path) -> None:
    """New pictures seldom show every class; a class that the model does not know is a mistake."""
    known = Run(tiny_run).info.classes
    for number in range(3):
        noise(Path("new", known[1], f"{number}.png"))
    metrics = json.loads(fovea("evaluate", tiny_run, "--data", "new", "--json").stdout)
    assert [row["support"] for row in metrics["per_class"]] == [3 if name == known[1] else 0 for name in known]
    assert metrics["accuracy"] == metrics["balanced_accuracy"], "the mean over the classes that are there"
    said = fovea("evaluate", tiny_run, "--data", "new").stdout
    assert f"no pictures of {known[0]}" in said
    assert "nan" not in said
    noise(Path("new", "unicorn", "0.png"))
    assert_refused(fovea("evaluate", tiny_run, "--data", "new"), "unicorn", "does not know", known[0])


def test_a_test_class_that_train_lacks_is_named(fovea: Fovea) -> None:
    class_folder(Path("pictures/train"), cat=3, dog=3)
    class_folder(Path("pictures/test"), cat=3, cow=3)
    with nothing_written():
        assert_refused(fovea("train", "pictures"), "pictures/test", "'cow'")


def _text(path: Path) -> None:
    path.write_text("not a picture\n")


def _bomb(path: Path) -> None:
    Image.new("1", (20000, 10000)).save(path, "png")


@pytest.mark.parametrize(
    ("name", "damage"),
    [("notes.dat", _text), ("notes.png", _text), ("void.png", Path.touch), ("bomb.png", _bomb)],
    ids=["text", "text called png", "no bytes", "200 million pixels in a small file"],
)
def test_a_file_that_is_no_picture_is_named(fovea: Fovea, name: str, damage: Callable[[Path], None]) -> None:
    damage(class_folder(Path("pictures"), cat=5, dog=5) / "dog" / name)
    with nothing_written():
        assert_refused(fovea("train", "pictures"), f"pictures/dog/{name}", "--skip-bad")


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "webp", "tif"])
def test_a_picture_that_was_cut_short_is_named(fovea: Fovea, ending: str) -> None:
    folder = class_folder(Path("pictures"), cat=5, dog=5)
    cut(noise(folder / "cat" / f"whole.{ending}", size=(100, 100)))
    with nothing_written():
        assert_refused(fovea("train", "pictures"), f"pictures/cat/whole.{ending}", "--skip-bad")


def test_skip_bad_goes_on_and_lists_what_it_skipped(fovea: Fovea) -> None:
    folder = class_folder(Path("pictures"), cat=6, dog=6)
    cut(noise(folder / "cat" / "cut.jpg", size=(100, 100)))
    _text(folder / "dog" / "notes.dat")

    seen = fovea("inspect", "pictures", "--json")
    assert seen.code == 0
    facts = json.loads(seen.stdout)
    assert sum(facts["num_images"].values()) == 12
    assert [line.partition(":")[0] for line in facts["skipped"]] == ["pictures/cat/cut.jpg", "pictures/dog/notes.dat"]

    trained = fovea("train", "pictures", "--skip-bad", "--epochs", "1", *MODEL, "--out", "run")
    assert trained.code == 0
    assert sorted(re.findall(r"pictures/\w+/\w+\.\w+", trained.stderr)) == [
        "pictures/cat/cut.jpg",
        "pictures/dog/notes.dat",
    ]
    assert fovea("evaluate", "run").code == 0  # what the run skipped stays skipped


def test_skip_bad_does_not_go_on_without_a_class(fovea: Fovea) -> None:
    folder = class_folder(Path("pictures"), cat=5, dog=1)
    _text(folder / "dog" / "notes.png")
    with nothing_written():
        assert_refused(fovea("train", "pictures", "--skip-bad"), "'dog'", "1 training image")


# -- run folders ---------------------------------------------------------------------------------------------------


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _cut_lines(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


def _empty_object(path: Path) -> None:
    path.write_text("{}\n")


def _empty_list(path: Path) -> None:
    path.write_text("[]\n")


def _other_version(path: Path) -> None:
    """A field that this version does not know, or a raised format number."""
    if path.suffix == ".yaml":
        path.write_text(path.read_text() + "warp: 9\n")
        return
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "format": value["format"] + 1}))


def _no_number(path: Path) -> None:
    header, _, rest = path.read_text().partition("\n")
    path.write_text(f"{header}\nmany{rest[1:]}")


def _other_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(2, 2)}, path)


def _other_shape(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "head.bias": tensors["head.bias"][:-1].clone()}, path)


def _other_type(path: Path) -> None:
    value = json.loads(path.read_text())
    value["preprocess"]["mean"] = ["a", "b", "c"]
    path.write_text(json.dumps(value))


GONE, CUT = Path.unlink, cut
BROKEN = (GONE, CUT, _empty, _garbage)
DAMAGES = [
    ("config.yaml", (*BROKEN, _cut_end, _cut_lines, _empty_object, _other_version), ("evaluate", "resume")),
    ("config.yaml", (GONE, CUT), ("report",)),
    ("model.json", (*BROKEN, _empty_object, _empty_list, _other_version, _other_type), ("predict",)),
    ("model.json", (CUT, _other_version), ("evaluate", "report")),
    ("model.json", (_other_version,), ("resume",)),
    ("weights/best.safetensors", (*BROKEN, _cut_end, _other_tensors, _other_shape), ("predict",)),
    ("weights/best.safetensors", (GONE, CUT), ("evaluate", "export")),
    ("resume.pt", (*BROKEN, _cut_end), ("resume",)),
    ("results.csv", (*BROKEN, _cut_end, _no_number), ("report",)),
    ("steps.csv", (*BROKEN, _cut_end, _no_number), ("report",)),
    ("metrics.json", (CUT, _empty, _garbage, _empty_object, _empty_list), ("report",)),
    ("environment.json", (*BROKEN, _empty_object, _empty_list), ("report",)),
    ("split.json", (GONE, CUT, _empty_object, _empty_list), ("resume",)),
    ("split.json", (GONE, CUT), ("evaluate val",)),
]


@pytest.mark.parametrize(
    ("file", "damage", "command"),
    [
        pytest.param(file, damage, command, id=f"{file} {damage.__name__.strip('_')} {command}")
        for file, damages, commands in DAMAGES
        for damage in damages
        for command in commands
    ],
)
def test_a_damaged_run_folder_is_refused(
    fovea: Fovea, tiny_run: Path, file: str, damage: Callable[[Path], None], command: str
) -> None:
    picture = noise(Path("x.png"))
    damage(tiny_run / file)
    words = {
        "evaluate": ["evaluate", "tiny"], "evaluate val": ["evaluate", "tiny", "--split", "val"],
        "report": ["report", "tiny"], "predict": ["predict", "tiny", picture],
        "resume": ["train", "--resume", "tiny"], "export": ["export", "tiny"],
    }[command]  # fmt: skip
    with nothing_written():
        line = assert_refused(fovea(*words), f"tiny/{file}")
    assert REMEDY.search(line), f"no word of what to do: {line}"


@pytest.mark.parametrize("command", ["evaluate", "report", "predict", "resume"])
@pytest.mark.parametrize("there", [True, False], ids=["another folder", "no folder"])
def test_what_is_no_run_folder_is_refused(fovea: Fovea, command: str, there: bool) -> None:
    if there:
        Path("other").mkdir()
    words = {"predict": ["predict", "other", noise(Path("x.png"))], "resume": ["train", "--resume", "other"]}
    with nothing_written():
        assert_refused(fovea(*words.get(command, [command, "other"])), "other", "run")


def test_a_run_that_names_an_unknown_model_says_so(fovea: Fovea, tiny_run: Path) -> None:
    value = json.loads((tiny_run / "model.json").read_text())
    (tiny_run / "model.json").write_text(json.dumps({**value, "model": "of-a-plugin"}))
    picture = noise(Path("x.png"))
    with nothing_written():
        assert_refused(fovea("predict", tiny_run, picture), "of-a-plugin", "tiny", "--plugin")


# -- weights -------------------------------------------------------------------------------------------------------


class Evil:
    """An object that makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, ("evil", "w")


def _weights(kind: str) -> Path:
    path = Path("start.safetensors" if "safetensors" in kind else "start.pth")
    if kind == "another shape":
        tensors = registry.model.get("convnet")(4, 3, (16, 16), width=4).state_dict()
        torch.save(tensors, path)
    elif kind in ("garbage", "garbage safetensors"):
        _garbage(path)
    elif kind == "text":
        _text(path)
    elif kind == "cut short":
        torch.save({"weight": torch.zeros(20, 20)}, path)
        cut(path)
    elif kind == "no bytes":
        path.touch()
    elif kind == "a list":
        torch.save([torch.zeros(2)], path)
    elif kind == "numbers":
        torch.save({"epoch": 3}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("another shape", ["features.0.0.weight", "[4, 3, 3, 3]", "[8, 3, 3, 3]"]),
        ("garbage", ["damaged"]),
        ("garbage safetensors", ["damaged"]),
        ("text", ["damaged"]),
        ("cut short", ["damaged"]),
        ("no bytes", ["damaged"]),
        ("a list", ["state_dict"]),
        ("numbers", ["state_dict"]),
        ("missing", []),
    ],
)
def test_weights_that_do_not_fit_are_refused(fovea: Fovea, kind: str, parts: list[str]) -> None:
    path = _weights(kind)
    with nothing_written():
        assert_refused(fovea(*TRAIN, "--weights", path, "--out", "run"), str(path), *parts)


@pytest.mark.parametrize("container", ["torch.save", "pickle"])
@pytest.mark.parametrize("where", ["--weights", "resume.pt"])
def test_code_in_a_file_is_never_run(fovea: Fovea, tiny_run: Path, where: str, container: str) -> None:
    path = tiny_run / "resume.pt" if where == "resume.pt" else Path("start.pth")
    if container == "torch.save":
        torch.save({"weight": Evil()}, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
        pickle.loads(path.read_bytes())
    Path("evil").unlink()  # it would have been run
    words = ["train", "--resume", tiny_run] if where == "resume.pt" else [*TRAIN, "--weights", path, "--out", "run"]
    with nothing_written():
        assert_refused(fovea(*words), str(path.name), "code" if where == "--weights" else "resume")


# -- data of other classes -----------------------------------------------------------------------------------------


def test_data_of_other_classes_is_refused(fovea: Fovea, tiny_run: Path) -> None:
    class_folder(Path("pets"), **{"class-0": 5, "class-1": 5, "class-2": 5, "cat": 5})
    with nothing_written():
        assert_refused(fovea("evaluate", tiny_run, "--data", "pets"), "pets", "cat", "class-3")
        assert_refused(fovea("evaluate", tiny_run, "--data", f"{SYNTHETIC}:num_classes=5"), "class-4")


@pytest.mark.parametrize("option", ["channels=1", "image_size=20"])
def test_data_of_another_shape_is_refused(fovea: Fovea, tiny_run: Path, option: str) -> None:
    with nothing_written():
        assert_refused(fovea("evaluate", tiny_run, "--data", f"{SYNTHETIC}:{option}"), option, "3 of 16×16")


BACKWARDS = """
from dataclasses import replace
from fovea.data.sources.synthetic import synthetic
from fovea.data.types import RawData
from fovea.registry import source

@source
def backwards(place):
    "What synthetic yields, its classes in the opposite order."
    found = synthetic(place, num_images=200, noise=1.0)
    last = len(found.classes) - 1
    turned = {n: replace(s, labels=[last - label for label in s.labels]) for n, s in found.splits.items()}
    return RawData(found.classes[::-1], turned)
"""


@pytest.mark.usefixtures("own_registry")
def test_classes_in_another_order_are_matched_by_name(fovea: Fovea, tiny_run: Path) -> None:
    Path("mine.py").write_text(BACKWARDS)
    plain = json.loads(fovea("evaluate", tiny_run, "--data", f"{SYNTHETIC}:noise=1.0", "--json").stdout)
    turned = json.loads(fovea("evaluate", tiny_run, "--data", "backwards", "--plugin", "mine.py", "--json").stdout)
    assert 0.4 < plain["accuracy"] < 1  # by position it would be another
    assert turned == plain


# -- a loss that is no number --------------------------------------------------------------------------------------


def assert_good(weights: Path) -> None:
    for name, tensor in load_file(weights).items():
        assert tensor.isfinite().all(), name
        assert tensor.abs().max() < 1e6, name


def test_a_loss_that_becomes_nan_stops_at_its_step_and_keeps_the_weights_before(fovea: Fovea) -> None:
    line = assert_refused(fovea(*TRAIN, "--lr", "1e30", "--out", "run"), "epoch 1, step", "--lr", "run/weights")
    assert re.search(r"the loss is (nan|inf) at epoch 1, step [2-7]\b", line)
    assert_good(Path("run/weights/best.safetensors"))
    assert_good(Path("run/weights/last.safetensors"))
    assert not Path("run/metrics.json").exists()
    seen = fovea("evaluate", "run", "--json")
    assert seen.code == 0
    assert np.isfinite(json.loads(seen.stdout)["loss"])


POISON = """
from fovea.registry import augmentation

@augmentation
def poison(images, draw, size: int = 20, epoch: int = 2):
    "Not a number, in the batches of one size of one epoch."
    return images * float("nan") if (int(draw.times[0]), len(images)) == (epoch, size) else images
"""


@pytest.mark.usefixtures("own_registry")
def test_a_later_nan_keeps_the_last_whole_epoch(fovea: Fovea) -> None:
    Path("mine.py").write_text(POISON)
    words = [*TRAIN, "--plugin", "mine.py", "--set", "schedule.name=constant", "--set", "schedule.warmup=0"]
    words += ["--set", "log_interval=3"]
    # The last of an epoch's 8 steps belongs to no logged running loss; its batch holds 4 images, all others 20.
    for size, step in ((20, 1), (4, 8)):
        result = fovea(*words, "--augment", f"poison:size={size}", "--out", f"nan-{size}")
        assert_refused(result, f"epoch 2, step {step}:", "epoch 1 are kept")
        assert len(Path(f"nan-{size}/results.csv").read_text().splitlines()) == 2
    assert fovea(*words, "--augment", "poison:epoch=9", "--epochs", "1", "--out", "one").code == 0
    for kept in Path().glob("nan-*/weights/*.safetensors"):
        found, wanted = load_file(kept), load_file(Path("one/weights", kept.name))
        assert all(torch.equal(found[tensor], wanted[tensor]) for tensor in wanted)


@pytest.mark.parametrize("val_fraction", ["0.1", "0"])
def test_a_step_that_breaks_the_weights_at_an_epochs_end_is_noticed(fovea: Fovea, val_fraction: str) -> None:
    """One step an epoch: its loss is still a number, that of the weights after it is not."""
    words = [*TRAIN, "--lr", "1e30", "--batch-size", "1000", "--epochs", "1", "--val-fraction", val_fraction]
    assert_refused(fovea(*words, "--out", "run"), "epoch 1", "--lr", "run/weights")
    assert_good(Path("run/weights/best.safetensors"))


# -- where to write, and going on ----------------------------------------------------------------------------------


def test_out_is_never_overwritten(fovea: Fovea, tiny_run: Path) -> None:
    Path("file").write_text("mine")
    with nothing_written():
        assert_refused(fovea(*TRAIN, "--out", tiny_run), str(tiny_run), "--resume")
        assert_refused(fovea(*TRAIN, "--out", "file"), "file")
        assert_refused(fovea(*TRAIN, "--out", "file/run"), "file/run")


@pytest.mark.parametrize(
    "words", [[SYNTHETIC], ["--lr", "0.1"], ["--set", "optim.lr=0.1"], ["--out", "x"], ["--recipe", "simple"]]
)
def test_resume_takes_no_other_settings(fovea: Fovea, tiny_run: Path, words: list[str]) -> None:
    with nothing_written():
        assert_refused(fovea("train", "--resume", tiny_run, *words), "--resume", "settings")


def test_resume_on_other_data_is_refused(fovea: Fovea, tiny_run: Path) -> None:
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    config["data"]["name"] += ":seed=1"
    (tiny_run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with nothing_written():
        assert_refused(fovea("train", "--resume", tiny_run), "training images", "tiny", "train anew")


@contextlib.contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size: what a full disk does to each write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file", ["config.yaml", "environment.json", "weights/last.safetensors"])
def test_a_disk_without_room_for_a_new_run_leaves_nothing(fovea: Fovea, tiny_run: Path, file: str) -> None:
    with nothing_written(), room_for((tiny_run / file).stat().st_size - 1):
        result = fovea(*TRAIN, "--out", "run")
    assert_refused(result, "cannot write", "run", "room")


@pytest.mark.parametrize("file", ["resume.pt", "report.html"])
def test_a_disk_that_fills_up_leaves_a_run_that_goes_on(fovea: Fovea, tiny_run: Path, file: str) -> None:
    with room_for((tiny_run / file).stat().st_size - 10_000):
        result = fovea(*TRAIN, "--out", "run")
    assert_refused(result, "cannot write", "run", "room")
    assert not list(Path("run").rglob(".*")), "a temporary file was left"
    assert fovea("train", "--resume", "run").code == 0
    assert Path("run/steps.csv").read_bytes() == (tiny_run / "steps.csv").read_bytes()
    last, wanted = (load_file(Path(run, "weights/last.safetensors")) for run in ("run", tiny_run))
    assert all(torch.equal(last[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("command", ["evaluate", "report", "export", "inspect"])
def test_a_disk_without_room_leaves_the_files_that_were_there(fovea: Fovea, tiny_run: Path, command: str) -> None:
    for folder in ("inspect/synthetic", "tiny/export"):
        Path(folder).mkdir(parents=True)
    with nothing_written(), room_for(1000):
        result = fovea(command, SYNTHETIC if command == "inspect" else tiny_run)
    assert_refused(result, "cannot write", "room")


def test_a_disk_without_room_in_a_real_process(tmp_path: Path) -> None:
    process = _process(*TRAIN, "--out", "run", limit=100)
    assert_refused(Result(process.returncode, process.stdout, process.stderr), "cannot write", "room")
    assert list(tmp_path.iterdir()) == []


def _process(*words: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "fovea.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, preexec_fn=prepare)


# -- pictures to predict -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch.png"],
        ["empty"],
        ["hidden"],
        ["*.jpeg"],
        ["notes.png"],
        ["cut.jpg"],
        ["good.png", "notes.png"],
        ["**good"],
    ],
)
def test_what_cannot_be_predicted_is_named(fovea: Fovea, tiny_run: Path, words: list[str]) -> None:
    Path("empty").mkdir()
    Path("hidden").mkdir()
    Path("hidden/.notes").touch()
    _text(Path("notes.png"))
    noise(Path("good.png"))
    cut(noise(Path("cut.jpg"), size=(100, 100)))
    with nothing_written():
        result = fovea("predict", tiny_run, *words)
    assert_refused(result, words[-1])
    assert result.stdout == ""


# -- named data ----------------------------------------------------------------------------------------------------

NOWHERE = "http://127.0.0.1:9/"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_named_data_without_a_network_says_what_goes_where(
    fovea: Fovea, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST

    for kind in (CIFAR10, CIFAR100):
        monkeypatch.setattr(kind, "url", NOWHERE + kind.filename)
    for kind in (MNIST, FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [NOWHERE])
    places = {split: [NOWHERE + path, path, md5] for split, (_, path, md5) in SVHN.split_list.items()}
    monkeypatch.setattr(SVHN, "split_list", places)

    result = fovea("train", name)
    assert_refused(result, name, str(cache / file), NOWHERE, "FOVEA_DATA", "digits")
    assert [path for path in Path().rglob("*") if path.is_file()] == []
    assert not Path("runs").exists()


@pytest.mark.parametrize("place", ["--data-dir", "FOVEA_DATA"])
def test_a_damaged_cifar10_file_is_named(
    fovea: Fovea, cache: Path, fake_cifar10: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    words = ["inspect", "cifar10"]
    if place == "--data-dir":
        words += ["--data-dir", str(fake_cifar10)]
    else:
        monkeypatch.setenv("FOVEA_DATA", str(fake_cifar10))
    assert fovea(*words, "--out", "whole").code == 0
    damaged = fake_cifar10 / CIFAR10_FOLDER / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with nothing_written():
        assert_refused(fovea(*words), str(damaged), "damaged", "delete")
    os.unlink(damaged)
    with nothing_written():
        assert_refused(fovea(*words), str(damaged), "lacks")
