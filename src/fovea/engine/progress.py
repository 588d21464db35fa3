"""What a person sees while something runs: a live bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_REFRESH_SECONDS = 0.1


class Display:
    """Lines go to `lines` (standard output unless a program reads that); the bar goes to standard error.

    Use it as a context manager around the work whose bar it shows.
    """

    def __init__(self, lines: TextIO | None = None, quiet: bool = False) -> None:
        self._lines = lines or sys.stdout
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._bar: Progress | None = None
        self._next = 0.0

    def say(self, text: str) -> None:
        """Print one line, above the bar where there is one."""
        if self._quiet:
            return
        if self._bar is not None and self._lines.isatty():
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._lines, flush=True)

    def start(self, total: int) -> None:
        """Start a bar over `total` images."""
        self._begun, self._total = time.perf_counter(), total
        if self._live and total:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[rate]}"), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, rate="")
            self._bar.start()

    def advance(self, done: int, what: str) -> None:
        """`done` of the total are through; cheap enough to be called at every step."""
        if self._bar is None:
            return
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + _REFRESH_SECONDS
            rate = f"{self.rate(done):,.0f} images/s, {self.time_left(done)} left"
            self._bar.update(self._task, completed=done, description=what, rate=rate)

    def rate(self, done: int) -> float:
        """Images a second since the start."""
        return done / max(1e-9, time.perf_counter() - self._begun)

    def time_left(self, done: int) -> str:
        """`m:ss` until the total, at the rate so far."""
        return clock((self._total - done) / max(1e-9, self.rate(done)))

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def clock(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
