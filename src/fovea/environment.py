"""What a figure measured here depends on, besides its config."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fovea.config import RunConfig
from fovea.device import hardware


def environment(config: RunConfig, device: str) -> dict[str, Any]:
    """What environment.json holds: versions, hardware, command line."""
    packages = ["fovea", "torch", "torchvision", "numpy", *(["timm"] if find_spec("timm") else [])]
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": device,
        "hardware": hardware(),
        "seed": config.seed,
        "git_commit": _git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    """The commit of the folder that the run was started in, if it is a git checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
