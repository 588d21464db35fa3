"""What a person sees while something runs: a live bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_REFRESH_SECONDS = 0.1
_TELL_SECONDS = 5.0  # of work, after which the time left can be told, and is worth telling


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

    def start(self, total: int = 0) -> None:
        """Start a bar over `total` images; without it, `advance` is told what share is done."""
        self._begun, self._total, self._told = time.perf_counter(), total, ""
        if self._live:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[rate]}"), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=1.0, rate="")
            self._bar.start()

    def advance(self, done: int, what: str, share: float | None = None, left: float | None = None) -> None:
        """`done` images are through; cheap enough to be called at every step. Without a bar, the time left is
        said once, within the first `what`.

        Args:
            share: of all the work, 0 to 1; by default that of the images.
            left: seconds to the end; by default those at the rate so far.
        """
        now = time.perf_counter()
        if now < self._next or self._quiet:
            return
        self._next = now + _REFRESH_SECONDS
        rate = done / max(1e-9, now - self._begun)
        share = done / max(1, self._total) if share is None else share
        left = (self._total - done) / max(1e-9, rate) if left is None else left
        if self._bar is not None:
            self._bar.update(
                self._task, completed=share, description=what, rate=f"{rate:,.0f} images/s, {clock(left)} left"
            )
            return
        self._told = self._told or what
        if what == self._told and now - self._begun > _TELL_SECONDS:  # later, the lines of epochs say it
            self._told = "said"
            self.say(f"about {clock(left)} left")

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
