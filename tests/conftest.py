"""What several test files share: the command line in-process, a small trained run, the real CIFAR-10."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported: several processes on few cores, each with networks far too small for two threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from fovea import cli, registry

CIFAR10_FOLDER = "cifar-10-batches-py"
FAKE_BATCH = 20  # images in each file of the fake CIFAR-10
# Tests run in folders of their own, where a relative path would point elsewhere.
if os.environ.get("FOVEA_DATA"):
    os.environ["FOVEA_DATA"] = os.path.abspath(os.environ["FOVEA_DATA"])


@dataclass(frozen=True)
class Result:
    """What a user sees of one command."""

    code: int
    stdout: str
    stderr: str


Fovea = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test writes by a relative path lands in its own folder; what it decodes, in a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEA_CACHE", f"{tmp_path}-cache")


@pytest.fixture
def fovea(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fovea:
    """`fovea("train", "digits", ...)`: the command line without a process of its own, which takes seconds to start.

    An exception that is no SystemExit, a traceback for the user, fails the test.
    """

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["fovea", *map(str, arguments)])
        capsys.readouterr()
        code: object = None
        # pytest collects warnings; a user would see them on standard error.
        with warnings.catch_warnings(record=True) as warned:
            for category in (UserWarning, RuntimeWarning, FutureWarning):
                warnings.filterwarnings("always", category=category)
            try:
                cli.main()
            except SystemExit as stopped:
                code = stopped.code
        assert isinstance(code, int)
        stdout, stderr = capsys.readouterr()
        return Result(code, stdout, stderr + "".join(f"{w.category.__name__}: {w.message}\n" for w in warned))

    return call


# Drawing takes longer than most trainings of these files, and their tests look at no picture.
UNDRAWN = {
    "test_finetune", "test_gradients", "test_hardest", "test_memory", "test_models", "test_optim", "test_parts", "test_plan",
    "test_precision", "test_record", "test_repeat", "test_small_first", "test_train", "test_views",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__.rpartition(".")[2] not in UNDRAWN:
        return
    from fovea import api
    from fovea.uses import plots, trust_plots

    monkeypatch.setattr(api, "draw_pictures", lambda *arguments: None)
    for module in (plots, trust_plots):
        for name in [name for name in vars(module) if name.startswith("draw_")]:
            monkeypatch.setattr(module, name, lambda *arguments: None)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw nothing and write no report, which takes longer than a small training itself."""
    from fovea import api

    monkeypatch.setattr(api, "draw_pictures", lambda *arguments: None)
    monkeypatch.setattr(api, "write_report", lambda run: None)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's plugin registers is forgotten after the test."""
    for parts in registry.REGISTRIES.values():
        for name in parts.names():  # a module registers once, at its first import: before the copy, which is dropped
            parts.get(name)
        for attribute in ("_parts", "_entries"):
            monkeypatch.setattr(parts, attribute, dict(getattr(parts, attribute)))


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fovea import api

    path = tmp_path_factory.mktemp("trained") / "tiny"
    options = {"epochs": 2, "batch_size": 20, "lr": 0.02, "device": "cpu", "model": "convnet:width=8"}
    api.train("synthetic:num_images=200", "simple", out=path, quiet=True, **options)
    return path


@pytest.fixture
def tiny_run(_trained: Path, tmp_path: Path) -> Path:
    """A finished run on `synthetic`, two epochs long: the test's own copy, which it may damage."""
    return Path(shutil.copytree(_trained, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """The folder that holds the CIFAR-10 batches; without it the test is skipped."""
    folder = Path(os.environ.get("FOVEA_DATA", "")) / CIFAR10_FOLDER
    if not os.environ.get("FOVEA_DATA") or not folder.is_dir():
        pytest.skip(f"needs CIFAR-10: set FOVEA_DATA to the folder that holds {CIFAR10_FOLDER}")
    return folder.parent


@pytest.fixture
def fake_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder above a `cifar-10-batches-py` with a few images a file, whose md5 sums torchvision takes for right."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "fake" / CIFAR10_FOLDER
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name: str, value: dict[str, object]) -> str:
        content = pickle.dumps(value)
        (folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def batch() -> dict[str, object]:
        pixels = random.integers(0, 256, (FAKE_BATCH, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [row % 10 for row in range(FAKE_BATCH)]}

    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, [[name, write(name, batch())] for name in names])
    md5 = write("batches.meta", {"label_names": [f"name-{label}" for label in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5})
    return folder.parent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no FOVEA_DATA, and no proxy between a test and its own server; returns the cache's folder."""
    import fovea.api  # noqa: F401  (matplotlib looks for its fonts' cache at its import, in the real place)

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FOVEA_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "fovea"
