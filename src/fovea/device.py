"""Which device to train on, and what it promises: the same seed gives the same numbers."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from fovea.errors import DeviceError

# Up to this many pixels a step, a second thread saves less than it costs: each operation lasts some microseconds,
# and wherever another program holds a core, every one of them waits for it (EXPERIMENTS.md).
SMALL_STEP_PIXELS = 32 * 32 * 8


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda[:N]` or `mps` to a device that is there. Raises DeviceError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: this machine has no CUDA device that PyTorch can use; try --device auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: this machine has no Apple GPU that PyTorch can use; try --device auto")
    if kind not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device '{name}': there are auto, cpu, cuda and mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"'{name}' is no device: write cuda, or cuda:N with a number") from None
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"no {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0")
    return device


def describe(device: torch.device) -> str:
    """One phrase for the log: the device's name and, on a CPU, its threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({_cpu_name()}, {threads} thread{'' if threads == 1 else 's'})"
    return str(device)


@contextlib.contextmanager
def reproducible(device: torch.device, pixels_per_step: int) -> Iterator[None]:
    """Within the block: deterministic kernels only, and one thread where a step is small.

    What is chosen depends on the settings alone, never on a timing, so that a repeated run repeats.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if device.type == "cpu" and pixels_per_step <= SMALL_STEP_PIXELS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's random numbers, as tensors that can be saved."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Undo `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def hardware() -> dict[str, Any]:
    """What a figure measured here depends on."""
    return {
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
