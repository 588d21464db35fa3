"""What every report of this folder says of how it came about."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import torch
import torchvision

from fovea.device import hardware

HERE = Path(__file__).parent


def commit() -> str:
    """The short name of the commit that is checked out, with a plus where files of the package differ from it."""
    git = ["git", "-C", str(HERE)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/src"], check=False).returncode
    return name.stdout.strip() + ("+" if changed else "")


def machine(device: torch.device) -> str:
    """The processor that did the work."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = hardware()
    instructions = " ".join([facts["cpu_capability"], *facts["cpu_products"]])
    return f"{facts['cpu']}, {facts['cpu_count']} cores, {facts['threads']} threads, {instructions}"


def header(command: str, device: torch.device) -> str:
    """Date, commit, command, machine and versions."""
    return (
        f"{date.today()}, commit {commit()}, `{command}`; {machine(device)}; "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}."
    )
