"""From exceptions to what a user sees: one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer

from fovea.errors import FoveaError, nearest

# No room, quota spent, file too large, read-only, no permission; not every platform has each.
_CANNOT_WRITE = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES")}


def run(app: typer.Typer) -> None:
    """Run the program and exit: a user's mistake is one line and exit code 2, a bug keeps its traceback."""
    try:
        code = app(standalone_mode=False)
    except FoveaError as error:
        code = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = 130  # as shells report Ctrl-C
    except BrokenPipeError:  # `fovea list | head -1`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        where = f" {error.filename}" if error.filename else ""
        code = _complain(f"cannot write{where}: {error.strerror}; free some room, or choose another place with --out")
    except Exception as error:
        # Typer's own complaints (its parser's exceptions have moved between modules over its releases).
        if not hasattr(error, "format_message"):
            raise
        code = _complain(_usage_message(error, app))
    sys.exit(code or 0)


def _complain(message: str) -> int:
    print(f"fovea: {message}", file=sys.stderr)
    return 2


def _usage_message(error: Any, app: typer.Typer) -> str:
    message = " ".join(str(error.format_message()).split())
    words = sys.argv[1:]
    if "No such command" in message and words:
        commands = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
        return f"unknown command '{words[0]}'{nearest(words[0], commands)}"
    return message
