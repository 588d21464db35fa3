"""The house stays in order: floors, lazy imports, the public names, and one file per part."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fovea as package
from fovea import registry

SRC = Path(package.__file__).parent

# Floor by module; the longest matching prefix counts. A module imports from its own floor or a lower one.
FLOORS = {
    "errors": 0, "registry": 0, "config": 0, "device": 0, "files": 0,
    "data": 1, "augment": 1, "models": 1, "optim": 1, "recipes": 1, "metrics": 1, "calibration": 1, "run": 1,
    "plan": 1, "environment": 1,
    "engine": 2, "uses": 3, "api": 3, "resolve": 3, "repeat": 3, "cli": 4, "train_command": 4, "options": 4, "program": 4,
    "cache_command": 4,
}  # fmt: skip


def test_imports_point_down() -> None:
    seen = 0
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts == ("__init__",):
            continue
        floor = FLOORS[parts[0]]
        for target in _imports(path):
            seen += 1
            assert FLOORS[target] <= floor, f"{path.relative_to(SRC)} (floor {floor}) imports fovea.{target}"
    assert seen > 100


def test_files_are_small() -> None:
    for path in SRC.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


@pytest.mark.parametrize("words", [["--help"], ["list"], ["train", "--help"], ["trian"]])
def test_answers_without_torch(words: list[str]) -> None:
    """What answers within half a second must not import what takes seconds."""
    code = (
        "import sys, fovea.cli\n"
        f"sys.argv = ['fovea', *{words!r}]\n"
        "try:\n    fovea.cli.main()\n"
        "except SystemExit as stop:\n    print('exit', stop.code)\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'sklearn', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy []" in done.stdout
    assert f"exit {2 if words == ['trian'] else 0}" in done.stdout


def test_import_fovea_is_light() -> None:
    code = "import sys, fovea; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert sorted(package.__all__) == [
        "Classifier", "Dataset", "FoveaError", "Prediction", "Run", "augmentation", "compare", "evaluate", "export", "find_lr",
        "load", "load_data", "load_plugin", "model", "optimizer", "recipe", "report", "resume", "resume_seeds", "schedule",
        "source", "train", "train_folds", "train_seeds",
    ]  # fmt: skip
    for name in package.__all__:
        assert callable(getattr(package, name))
        assert getattr(package, name).__doc__


@pytest.mark.parametrize("kind", registry.REGISTRIES)
def test_names_read_from_source_are_those_registered(kind: str) -> None:
    parts = registry.REGISTRIES[kind]
    assert parts.names()
    for entry in parts.entries():
        assert registry.public_name(parts.get(entry.name).__name__) == entry.name
        assert entry.summary


def test_list_json(fovea) -> None:
    result = fovea("list", "--json")
    listed = json.loads(result.stdout)
    assert {"tutorial", "simple"} <= {entry["name"] for entry in listed["recipes"]}
    assert {entry["name"] for entry in listed["data"]} == {
        "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", "digits", "synthetic", "folder", "archive", "manifest", "hf",
    }  # fmt: skip


def _imports(path: Path) -> list[str]:
    """First names below `fovea` that the file imports, at its top or within functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "fovea":
            found += [alias.name for alias in node.names if alias.name in FLOORS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fovea."):
            found.append((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found += [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fovea.")]
    return found
