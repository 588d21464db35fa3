"""What Fovea raises when the user, not Fovea, has to do something.

FoveaError          one clear line: what, where, what to do (exit code 2 on the command line)
├── ConfigError     an unknown or contradictory setting; UnknownName adds the nearest name
│   └── UnknownName
├── DataError       data that is missing, damaged, empty or of other classes than the model's
├── RunError        a run folder, or weights, that cannot be used
├── DeviceError     a device, or a precision, that this machine does not have
├── OutOfMemory     more memory than there is
└── Diverged        the loss became NaN or infinite
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class FoveaError(Exception):
    """A mistake that the user can mend; its message is one line."""


class ConfigError(FoveaError):
    """A setting that cannot be used."""


class UnknownName(ConfigError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        super().__init__(f"unknown {kind} '{name}'{nearest(name, known)}{hint}")


class DataError(FoveaError):
    """Data that cannot be used as it is."""


class RunError(FoveaError):
    """A run folder or a weights file that cannot be used as it is."""


class DeviceError(FoveaError):
    """A device that is not there."""


class OutOfMemory(FoveaError):
    """The device, or the machine, has no memory left."""


class Diverged(FoveaError):
    """Training stopped because the loss is no longer a finite number."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the likely name, or all there are."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    if len(known) > 12:
        return ""
    return f" (there are {', '.join(known)})" if known else ""


def some(names: Sequence[str], most: int = 4) -> str:
    """`cat, dog and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
