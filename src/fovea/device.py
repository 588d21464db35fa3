"""Which device to train on, and what it promises: the same seed gives the same numbers."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch

from fovea.errors import DeviceError, OutOfMemory

# Up to this many pixels a step, a second thread saves less than it costs: each operation lasts some microseconds,
# and wherever another program holds a core, every one of them waits for it (EXPERIMENTS.md).
SMALL_STEP_PIXELS = 32 * 32 * 8
# How PyTorch says that there is no memory left: CUDA and MPS, cuDNN and cuBLAS, the CPU, the CPU on Windows.
_NO_MEMORY = ("out of memory", "_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
# What a CPU says of itself where it multiplies bfloat16 or bytes by instructions of their own.
_QUICK_PRODUCTS = ("amx_bf16", "avx512_bf16", "bf16", "avx512_vnni")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


def pick_precision(name: str, device: torch.device, int8: bool = False) -> str:
    """`auto`, `fp32`, `bf16` or `fp16` to one of the last three, which the device has. Raises DeviceError.

    `auto` is bf16 where the device multiplies that quicker than fp32, and, with `int8`, where it has it at all: then bytes are
    multiplied, and what lies between is half as large.
    """
    bf16 = has_bf16(device)
    if name == "auto":
        return "bf16" if (bf16 if int8 else has_quick_bf16(device)) else "fp32"
    kind = {"cpu": "CPU", "cuda": "GPU"}.get(device.type, "device")
    if name == "bf16" and not bf16:
        raise DeviceError(f"--precision bf16: this {kind} has no bf16 in hardware; use --precision auto or fp32")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("--precision fp16 is for GPUs; on a CPU use --precision auto or fp32")
    return name


def has_bf16(device: torch.device) -> bool:
    """Does the device compute in bfloat16 itself, rather than emulate it slowly?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # from Ampere on
    if device.type != "cpu":
        return False
    return not _cpu_features().isdisjoint(("amx_bf16", "avx512_bf16", "bf16"))  # the last is ARM's


def has_quick_bf16(device: torch.device) -> bool:
    """Are products of bfloat16 quicker there than of float32? Intel's CPUs without AMX take twice as long (EXPERIMENTS.md)."""
    return has_bf16(device) and not (device.type == "cpu" and is_intel() and "amx_bf16" not in _cpu_features())


def is_intel() -> bool:
    """Whether this is a CPU of Intel's."""
    return _cpuinfo("vendor_id") == "GenuineIntel"


def precision_here(name: str, device: torch.device) -> str:
    """What a run measured in precision `name` is measured in on this device: the same, or fp32 where that is lacking."""
    try:
        return pick_precision(name, device)
    except DeviceError:
        return "fp32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within the block, networks compute in this precision wherever PyTorch holds that to be safe."""
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, _DTYPES[precision])


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Within the block, fp32 is IEEE float32: by default cuDNN's convolutions round to TF32's 10 bits.

    Every GPU that has TF32 has bf16, too, which is faster still: who wants speed has `--precision auto`.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def memory_errors(what: str, hint: str) -> Iterator[None]:
    """Within the block, lack of memory is one line: what needed it, and what to try. Raises OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _NO_MEMORY):
            raise
        raise OutOfMemory(f"out of memory {what}: {hint}") from None


@lru_cache(maxsize=1)
def has_llvm() -> bool:
    """Whether llvmlite is there, which makes kernels for this CPU (fovea.models.kernels)."""
    return importlib.util.find_spec("llvmlite") is not None


def describe(device: torch.device, precision: str, int8: bool = False) -> str:
    """One phrase for the log: the device's name, on a CPU its threads, and what it computes in."""
    dtype = str(_DTYPES[precision]).removeprefix("torch.") + (" and int8" if int8 else "")
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {dtype})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({_cpu_name()}, {threads} thread{'' if threads == 1 else 's'}, {dtype})"
    return f"{device} ({dtype})"


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory so far, in MB of 10^6 bytes: a GPU's own by PyTorch, else this process's; None on Windows."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@contextlib.contextmanager
def reproducible(device: torch.device, pixels_per_step: int) -> Iterator[None]:
    """Within the block: deterministic kernels only, and one thread where a step is small.

    What is chosen depends on the settings alone, never on a timing, so that a repeated run repeats.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # else all new memory is written twice
    torch.backends.cudnn.benchmark = False
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cpu" and pixels_per_step <= SMALL_STEP_PIXELS:
        torch.set_num_threads(1)
    try:
        with exact_float32():
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let glibc keep what is freed: it hands large blocks back, and the pages of new ones are zeroed at first touch.

    A third of a training's time on a CPU otherwise (EXPERIMENTS.md). Nothing happens where the C library is another.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is None:
        return
    mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: blocks below 1 GiB come from the heap
    mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks
    mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, the others' are too small for such blocks


def release_freed_memory() -> None:
    """Hand back what `keep_freed_memory` kept: blocks of other sizes do not fit in, and over hours it grows."""
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of glibc, or None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


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
        "cpu_products": [name for name in _QUICK_PRODUCTS if name in _cpu_features()],
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
    }


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> set[str]:
    """What the CPU says of itself, in Linux's words."""
    if hasattr(torch.cpu, "get_capabilities"):  # younger than the oldest PyTorch that Fovea takes
        return {name for name, able in torch.cpu.get_capabilities().items() if able is True}
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


@lru_cache  # asked at every step of Muon
def _cpuinfo(key: str) -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""
