"""What every command shares: plugins, where its output goes, and from exceptions to one line and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import typer

from fovea import registry
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


def load_plugins(paths: list[str] | None) -> None:
    for path in paths or []:
        registry.load_plugin(path)


def display_for(as_json: bool) -> Any:
    """Progress lines make way for JSON on standard output."""
    from fovea.engine.progress import Display

    return Display(lines=sys.stderr if as_json else sys.stdout)


def show_comparison(runs: list[Any], out: Path, as_json: bool) -> None:
    from fovea.uses.compare import compare as compare_runs
    from fovea.uses.tables import print_comparison

    result = compare_runs(runs, out)
    if as_json:
        print_json(result)
    else:
        print_comparison(result)
        print(f"pictures: {out / 'compare.png'}")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


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
