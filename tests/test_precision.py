"""The precision of the arithmetic: refused where it is lacking, saved with the run, and repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fovea as package
from fovea import device
from fovea.errors import DeviceError
from fovea.run import Run

CPU = torch.device("cpu")
DATA = "synthetic:num_images=120"
OPTIONS = {"epochs": 3, "device": "cpu", "batch_size": 32, "quiet": True, "model": "convnet:width=8"}


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that says it has bf16, and quick: PyTorch emulates it where it has not."""
    monkeypatch.setattr(device, "_cpu_features", lambda: {"avx2", "avx512_bf16", "amx_bf16"})


@pytest.fixture
def with_slow_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Intel CPU without AMX."""
    monkeypatch.setattr(device, "_cpu_features", lambda: {"avx2", "avx512_bf16"})
    monkeypatch.setattr(device, "_cpuinfo", lambda key: "GenuineIntel")


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_features", lambda: {"avx2", "avx512_vnni"})


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than these trainings."""
    for name in ("draw_pictures", "write_report"):
        monkeypatch.setattr(f"fovea.api.{name}", lambda *_: None)


def test_auto_asks_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, expected in (
        (["avx2"], "fp32"),
        (["amx_bf16"], "bf16"),
        (["avx512_bf16"], "bf16"),
        (["bf16"], "bf16"),
    ):
        monkeypatch.setattr(device, "_cpuinfo", lambda key: "AuthenticAMD")
        monkeypatch.setattr(device, "_cpu_features", lambda features=features: {"sse", *features})
        assert device.pick_precision("auto", CPU) == expected
        assert device.pick_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(
    ("vendor", "features", "expected"),
    [
        ("AuthenticAMD", {"avx512_bf16"}, True),
        ("GenuineIntel", {"avx512_bf16"}, False),
        ("GenuineIntel", {"avx512_bf16", "amx_bf16"}, True),
        ("AuthenticAMD", {"avx2"}, False),
        ("", {"bf16"}, True),  # ARM's does not say
    ],
)
def test_quick_are_products_of_bf16_where_they_beat_those_of_float32(vendor, features, expected, monkeypatch) -> None:
    monkeypatch.setattr(device, "_cpu_features", lambda: features)
    monkeypatch.setattr(device, "_cpuinfo", lambda key: {"vendor_id": vendor}[key])
    assert device.has_quick_bf16(CPU) is expected


def test_auto_is_float32_where_bf16_is_slower_but_beside_bytes(with_slow_bf16: None) -> None:
    assert device.pick_precision("auto", CPU) == "fp32"
    assert device.pick_precision("auto", CPU, int8=True) == "bf16"
    assert device.pick_precision("bf16", CPU) == "bf16", "who asks for it gets it"


def test_auto_asks_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert device.pick_precision("auto", torch.device("cuda")) == expected
        assert device.pick_precision("fp16", torch.device("cuda")) == "fp16"
    assert device.pick_precision("auto", torch.device("mps")) == "fp32"


def test_both_ways_of_asking_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.cpu, "get_capabilities") or not Path("/proc/cpuinfo").is_file():
        pytest.skip("only one way here")
    new = device._cpu_features()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    old = device._cpu_features()
    wanted = {"avx2", "amx_bf16", "avx512_bf16", "bf16"}
    assert new & wanted == old & wanted


@pytest.mark.parametrize(("precision", "hint"), [("bf16", "no bf16 in hardware"), ("fp16", "fp32"), ("fp8", "bf16")])
def test_what_the_device_lacks_is_refused_before_anything_is_written(
    precision: str, hint: str, without_bf16: None, fovea
) -> None:
    result = fovea("train", DATA, "--precision", precision, "--device", "cpu", "--out", "run")
    assert result.code == 2
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("run").exists()


def test_the_tutorial_stays_in_float32(with_bf16: None, tmp_path: Path) -> None:
    run = package.train(DATA + ":image_size=16", "tutorial", tmp_path / "run", epochs=0, device="cpu", quiet=True)
    assert run.info.precision == "fp32"


def test_bf16_in_training_evaluation_and_prediction(with_bf16: None, tmp_path: Path, fovea) -> None:
    seen: set[torch.dtype] = set()
    convolution = torch.nn.Conv2d.forward

    def spy(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        result = convolution(self, images)
        if not result.is_meta:  # the count of FLOPs does no arithmetic
            seen.add(result.dtype)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", spy)
        patch.setattr("fovea.uses.explain.can_explain", lambda: False)  # heat maps are in fp32
        result = fovea("train", DATA, "--epochs", 2, "--device", "cpu", "--out", "run")
        assert result.code == 0
        assert seen == {torch.bfloat16}
    run = Run("run")
    assert "bfloat16)" in result.stdout
    assert "bfloat16)" in run.environment["device"]
    assert run.config.precision == run.info.precision == "bf16", "the config is saved resolved"
    assert all(tensor.dtype != torch.bfloat16 for tensor in run.weights().values())
    assert "bf16" in Path("run/report.html").read_text(encoding="utf-8")
    single = package.train(DATA, out=tmp_path / "single", epochs=2, device="cpu", precision="fp32", quiet=True)
    losses = [[float(row["loss"]) for row in each.steps] for each in (run, single)]
    assert losses[0] != losses[1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.1)


def test_a_bf16_run_is_used_on_a_machine_without_it(
    with_bf16: None, without_pictures: None, tmp_path: Path, monkeypatch
) -> None:
    run = package.train(DATA, out=tmp_path / "run", **OPTIONS)
    expected = run.metrics["accuracy"]
    assert package.load(run, "cpu").precision == "bf16"
    monkeypatch.setattr(device, "_cpu_features", lambda: {"avx2"})
    assert package.load(run, "cpu").precision == "fp32"
    assert package.evaluate(run, device="cpu")["accuracy"] == pytest.approx(expected, abs=0.1)
    with pytest.raises(DeviceError, match="no bf16 in hardware"):
        package.resume(run, quiet=True)


def test_a_stopped_bf16_run_resumes_bit_for_bit(with_bf16: None, without_pictures: None, tmp_path: Path) -> None:
    whole = package.train(DATA, out=tmp_path / "whole", **OPTIONS)
    first = stop_after_the_first_epoch(tmp_path / "stopped")
    resumed = package.resume(tmp_path / "stopped", quiet=True)
    for name in ("steps.csv", "weights/last.safetensors", "predictions.csv"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()
    cost = resumed.cost
    assert cost["step_seconds"] > first["step_seconds"], "a resumed run adds up"
    assert cost["train_seconds"] > first["train_seconds"] + first["save_seconds"]
    assert cost["setup_seconds"] > first["setup_seconds"]
    steps = sum(float(row["seconds"]) for row in resumed.results)
    assert cost["step_seconds"] == pytest.approx(steps, rel=0.2)
    parts = [cost[f"{part}_seconds"] for part in ("setup", "step", "val", "save")]
    assert max(parts) < cost["train_seconds"] < sum(parts)
    assert 50 < cost["peak_memory_mb"] < 20_000


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_stopped_fp16_run_resumes_bit_for_bit(
    optimizer: str, without_pictures: None, tmp_path: Path, monkeypatch
) -> None:
    """On a GPU only; here emulated, as the scaling of the loss and its saved state are the same."""
    for module in ("fovea.resolve", "fovea.engine.train"):
        monkeypatch.setattr(f"{module}.pick_precision", lambda name, device, int8=False: name)
    options = {**OPTIONS, "precision": "fp16", "optimizer": optimizer}
    whole = package.train(DATA, out=tmp_path / "whole", **options)
    stop_after_the_first_epoch(tmp_path / "stopped", **options)
    scaler = Run(tmp_path / "stopped").load_resume()["scaler"]
    assert scaler["scale"] >= 1024
    assert scaler["_growth_tracker"] > 0
    resumed = package.resume(tmp_path / "stopped", quiet=True)
    for name in ("steps.csv", "weights/last.safetensors"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()
    # Scaled and unscaled again, the steps are about those of float32.
    plain = package.train(DATA, out=tmp_path / "plain", **{**options, "precision": "fp32"})
    losses = [[float(row["train_loss"]) for row in run.results] for run in (whole, plain)]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.1)
    assert losses[0][-1] < losses[0][0]


def stop_after_the_first_epoch(path: Path, **options: object) -> dict[str, float]:
    """Leaves what a kill would leave; returns cost.json."""

    def stop(record: dict[str, object]) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        package.train(DATA, out=path, on_epoch=stop, **{**OPTIONS, **options})
    return Run(path).cost


def test_tf32_is_off_within_and_as_it_was_after() -> None:
    before = torch.backends.cudnn.allow_tf32
    with device.reproducible(CPU, 1):
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is before


def test_peak_memory_is_not_known_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert device.peak_memory_mb(CPU) > 50
    monkeypatch.setitem(sys.modules, "resource", None)
    assert device.peak_memory_mb(CPU) is None
