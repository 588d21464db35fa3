"""The note's walk as a user takes it: inspect, train, evaluate, predict, export, report."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import fovea as package
from fovea import registry
from fovea.run import Run
from note import Net, transformed

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves, on any CPU: by the bf16 of those with AMX it makes no mistake, and has none to show."""
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-m", "fovea.cli", "train", "digits", "--out", "run", "--precision", "fp32"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    (folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    (folder / "stderr.txt").write_text(done.stderr, encoding="utf-8")
    return folder / "run"


def test_the_demo_reaches_what_it_promises(digits_run: Path) -> None:
    metrics = Run(digits_run).metrics
    assert metrics["accuracy"] >= 0.97
    assert metrics["num_images"] == 359
    printed = (digits_run.parent / "stdout.txt").read_text(encoding="utf-8")
    assert re.search(
        r"^accuracy on the 359 test images: 9\d\.\d\d % \(95 % interval [\d.]+ to [\d.]+\)$", printed, re.M
    )
    assert "report: run/report.html" in printed
    assert printed.count("epoch ") == 10
    assert (digits_run.parent / "stderr.txt").read_text(encoding="utf-8") == "", "no warnings, and no bar when piped"


def test_the_run_folder_is_as_documented(digits_run: Path) -> None:
    names = {p.relative_to(digits_run).as_posix() for p in digits_run.rglob("*") if p.is_file()}
    plots = {"loss", "curves", "samples", "predictions", "mistakes", "per_class", "confusion", "confused_pairs",
             "pairs", "reliability", "coverage"}  # fmt: skip
    assert names == {
        "config.yaml", "environment.json", "results.csv", "steps.csv", "metrics.json", "predictions.csv", "split.json",
        "weights/best.safetensors", "weights/last.safetensors", "model.json", "resume.pt", "report.html", "cost.json",
        "calibration.json", "reliability.csv", "coverage.csv",
        *(f"plots/{name}.png" for name in plots),
    }  # fmt: skip
    run = Run(digits_run)
    assert list(run.results[0]) == [
        "epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second",
    ]  # fmt: skip
    assert list(run.steps[0]) == ["epoch", "step", "loss"]
    with (digits_run / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["path", "label", "prediction", "probability"]
    assert sum(row["label"] == row["prediction"] for row in rows) / len(rows) == pytest.approx(run.metrics["accuracy"])
    assert {"versions", "hardware", "seed", "git_commit", "command", "device"} <= set(run.environment)
    held_out = run.held_out
    assert len(held_out["test"]) == 359
    assert not set(held_out["test"]) & set(held_out["val"])
    for name in ("weights/best.safetensors", "report.html", "metrics.json"):
        assert (digits_run / name).stat().st_mode & 0o777 == 0o644


def test_evaluate_in_another_process_repeats_the_figures(digits_run: Path, fovea) -> None:
    trained = Run(digits_run).metrics
    result = fovea("evaluate", digits_run, "--json")
    assert json.loads(result.stdout) == trained
    shown = fovea("evaluate", digits_run).stdout
    assert re.match(r"GroundTruth:  +\d +\d +\d +\d *\nPredicted:    +\d +\d +\d +\d *\n", shown)
    assert f"accuracy on the 359 test images: {100 * trained['accuracy']:.2f} %" in shown
    val = json.loads(fovea("evaluate", digits_run, "--split", "val", "--json").stdout)
    best = max(float(row["val_accuracy"]) for row in Run(digits_run).results)
    assert val["accuracy"] == pytest.approx(best, abs=1e-5)
    assert Run(digits_run).metrics == trained, "another split must not overwrite the test figures"
    assert (digits_run / "evaluations" / "digits-val" / "metrics.json").is_file()


def test_first_four_test_images_of_cifar10(cifar10_dir: Path, fovea) -> None:
    """The note: cat ship ship plane."""
    torch.save(Net().state_dict(), "cifar_net.pth")
    made = fovea(
        "train", "cifar10", "--recipe", "tutorial", "--weights", "cifar_net.pth", "--epochs", 0, "--out", "run"
    )
    assert made.code == 0, made.stderr
    shown = fovea("evaluate", "run").stdout
    assert shown.splitlines()[0].split() == ["GroundTruth:", "cat", "ship", "ship", "plane"]
    assert "accuracy on the 10000 test images" in shown


def test_weights_travel_both_ways(fovea) -> None:
    """The note's file becomes a run, the run's export loads into the note's Net, and both say the same."""
    torch.manual_seed(3)
    net = Net()
    torch.save(net.state_dict(), "cifar_net.pth")
    data = "synthetic:num_classes=10:image_size=32:num_images=200"
    words = ["--recipe", "tutorial", "--weights", "cifar_net.pth", "--epochs", 0, "--out", "run"]
    assert fovea("train", data, *words).code == 0
    assert fovea("export", "run", "--format", "pth", "--out", "back.pth").code == 0
    again = Net()
    again.load_state_dict(torch.load("back.pth"))
    images = package.load_data(data).splits["test"].images
    assert torch.allclose(package.load("run", "cpu").logits(images), again(transformed(images)), atol=1e-5)
    assert torch.equal(again.fc3.weight, net.fc3.weight)
    assert fovea("export", "run", "--format", "safetensors").code == 0
    assert load_file("run/export/model.safetensors").keys() == net.state_dict().keys()


def test_predict_files_folders_and_globs(digits_run: Path, fovea) -> None:
    data = package.load_data("digits")
    test = data.splits["test"]
    Path("pictures/deep").mkdir(parents=True)
    for row in range(6):
        image = Image.fromarray(test.images[row, 0].numpy())
        image.save(f"pictures/{'deep/' if row > 3 else ''}{row}.png")
    Image.fromarray(test.images[6, 0].numpy()).resize((500, 300)).convert("RGBA").save("large.webp")

    answers = json.loads(fovea("predict", digits_run, "pictures", "large.webp", "--json").stdout)
    assert [answer["path"] for answer in answers] == [
        "pictures/0.png", "pictures/1.png", "pictures/2.png", "pictures/3.png", "pictures/deep/4.png",
        "pictures/deep/5.png", "large.webp",
    ]  # fmt: skip
    with (digits_run / "predictions.csv").open(encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    for answer, row in zip(answers[:6], known, strict=False):
        assert list(answer) == ["path", "prediction", "probability", "top", "confident", "answer"]
        assert answer["prediction"] == row["prediction"]
        assert answer["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)
        assert answer["top"][0]["class"] == answer["prediction"]
        assert [t["logit"] for t in answer["top"]] == sorted((t["logit"] for t in answer["top"]), reverse=True)

    Path("pictures/no.png").write_text("<html>")
    refused = fovea("predict", digits_run, "pictures", "--json")
    assert (refused.code, refused.stdout) == (2, "")
    assert "pictures/no.png" in refused.stderr
    result = fovea("predict", digits_run, "pictures", "--skip-bad", "--json")
    assert json.loads(result.stdout) == answers[:6]
    assert result.stderr == "skipped pictures/no.png: no image that Pillow can read: it is an HTML page\n"
    Path("pictures/no.png").unlink()

    everything = json.loads(fovea("predict", digits_run, "pictures/*.png", "--top", 10, "--json").stdout)
    assert len(everything) == 4
    assert sum(t["probability"] for t in everything[0]["top"]) == pytest.approx(1)
    rows = list(csv.DictReader(fovea("predict", digits_run, "pictures/0.png", "--csv").stdout.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    table = fovea("predict", digits_run, "pictures/0.png").stdout
    assert "pictures/0.png" in table
    assert known[0]["prediction"] in table


def test_report_from_the_folder_alone(digits_run: Path, fovea, tmp_path: Path) -> None:
    """Moved elsewhere, the page made anew and opened by a parser: nothing is loaded from outside."""
    import shutil

    moved = Path(shutil.copytree(digits_run, tmp_path / "moved"))
    (moved / "report.html").unlink()
    (moved / "plots" / "confusion.png").unlink()
    (moved / "plots" / "samples.png").unlink()  # needs the images: left out, not fatal
    assert fovea("report", moved).code == 0
    page = (moved / "report.html").read_text(encoding="utf-8")
    metrics = Run(moved).metrics
    assert f"{100 * metrics['accuracy']:.1f} %" in page
    links: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attributes if name in ("src", "href"))

    Parser().feed(page)
    assert len(links) == 10
    assert all(link.startswith("data:image/png;base64,") for link in links)


def test_inspect(fovea, tmp_path: Path) -> None:
    result = fovea("inspect", "digits", "--out", "look", "--json")
    facts = json.loads(result.stdout)
    data = package.load_data("digits")
    unit = data.train.images.double() / 255
    assert facts["mean"] == pytest.approx([unit.mean().item()], abs=1e-6)
    assert facts["std"] == pytest.approx([unit.std(correction=0).item()], abs=1e-6)
    assert facts["num_images"] == {"train": 1438, "test": 359}
    assert sum(facts["per_class"]["train"]) == 1438
    assert facts["range"]["stored"] == [0, 255]
    assert facts["range"]["rescaled"] == [-1, 1]
    standardized = (unit - facts["mean"][0]) / facts["std"][0]
    assert facts["range"]["standardized"] == pytest.approx([standardized.min().item(), standardized.max().item()])
    assert {p.name for p in Path("look").iterdir()} == {"samples.png", "balance.png", "inspect.json", "inspect.html"}
    assert Image.open("look/samples.png").size[0] > 1000
    shown = fovea("inspect", "digits", "--augment", "shift:1,rotate:10").stdout
    assert "1,438 train, 359 test" in shown
    assert Image.open("inspect/digits/augmented.png").size[0] > 1000
    assert Path("inspect/digits/balance.png").is_file()


def test_a_folder_of_pictures_from_end_to_end(fovea) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, colour in (("红", (200, 40, 40)), ("blue sky", (40, 40, 200))):
        Path("pictures", name).mkdir(parents=True)
        for number in range(20):
            noise = torch.randint(-30, 30, (3,), generator=generator).tolist()
            shade = tuple(c + n for c, n in zip(colour, noise, strict=True))
            Image.new("RGB", (48, 36), shade).save(f"pictures/{name}/{number:02}.jpg")
    result = fovea("train", "pictures", "--image-size", 16, "--epochs", 4, "--batch-size", 8)
    assert result.code == 0, result.stderr
    run = Run("runs/pictures-auto")
    assert result.stderr == "", "no warnings about letters that a font lacks"
    assert run.metrics["accuracy"] == 1.0
    assert run.metrics["classes"] == ["blue sky", "红"]
    assert {len(ids) for ids in run.held_out.values()} == {8, 6}
    shown = fovea("predict", run.path, "pictures/红/00.jpg", "--json")
    assert json.loads(shown.stdout)[0]["prediction"] == "红"
    assert fovea("train", "pictures", "--image-size", 16, "--epochs", 1).code == 0
    assert Path("runs/pictures-auto-2/report.html").is_file(), "a run is never overwritten"


def test_other_data_without_a_split_is_measured_whole(fovea, tiny_run: Path) -> None:
    """And the run's own data under its own name is not: it was learned from."""
    data = package.load_data("synthetic:num_images=200")
    picked = data.splits["test"]
    for row, label in enumerate(picked.labels.tolist()):
        folder = Path("more", data.classes[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picked.images[row].permute(1, 2, 0).numpy()).save(folder / f"{row:03}.png")
    metrics = json.loads(fovea("evaluate", tiny_run, "--data", "more", "--json").stdout)
    assert metrics["num_images"] == len(picked)
    assert metrics["accuracy"] == Run(tiny_run).metrics["accuracy"]
    own = json.loads(fovea("evaluate", tiny_run, "--data", "synthetic:num_images=200", "--json").stdout)
    assert own["num_images"] == 40
    assert not list(Path().glob("more/**/*.json")), "nothing is written into the user's data"


def test_a_loaded_data_set_trains_as_its_name_does(tmp_path: Path) -> None:
    options = {"quiet": True, "epochs": 1, "device": "cpu", "seed": 3}
    named = package.train("digits", out=tmp_path / "named", **options)
    loaded = package.train(package.load_data("digits"), out=tmp_path / "loaded", **options)
    assert named.held_out == loaded.held_out
    assert (named.path / "steps.csv").read_bytes() == (loaded.path / "steps.csv").read_bytes()
    assert named.config == loaded.config
    with pytest.raises(package.FoveaError, match="load_data"):
        package.train(package.load_data("digits"), out=tmp_path / "late", image_size=16, **options)
    assert not (tmp_path / "late").exists()


def test_a_model_is_saved_with_all_its_options(tiny_run: Path) -> None:
    assert Run(tiny_run).info.model == "convnet:width=8"
    assert registry.model.resolve("convnet", 3) == "convnet:width=16"


def test_version(fovea) -> None:
    assert fovea("--version").stdout == f"fovea {package.__version__}\n"


def test_settings_reach_the_run(fovea) -> None:
    result = fovea(
        "train", "synthetic:num_images=120:channels=1", "--epochs", 1, "--batch-size", 7, "--lr", 0.02,
        "--momentum", 0.5, "--weight-decay", "1e-3", "--seed", 9, "--device", "cpu", "--augment", "none", "--set", "optim.nesterov=false",
        "--set", "schedule.name=constant", "--model", "convnet:width=4", "--val-fraction", 0, "--out", "run", "--json",
    )  # fmt: skip
    printed = json.loads(result.stdout)
    assert printed["run"] == "run"
    assert printed["metrics"] == Run("run").metrics
    assert "training on cpu" in result.stderr, "the log makes way for JSON"
    config = Run("run").config
    assert (config.epochs, config.batch_size, config.seed, config.augment) == (1, 7, 9, ())
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.02, 0.5, 0.001)
    assert Run("run").results[0]["val_accuracy"] == ""
    assert Run("run").results[0]["lr"] == "0.02"


def test_the_example_walks(tmp_path: Path) -> None:
    script = EXAMPLES / "walk.py"
    done = subprocess.run([sys.executable, script, "digits", "simple"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = [line for line in script.read_text(encoding="utf-8").split('"""')[-1].splitlines() if line.strip()]
    assert len([line for line in code if not line.startswith("#")]) <= 10
    assert list(tmp_path.rglob("report.html"))
    assert list(tmp_path.rglob("*.pth"))
