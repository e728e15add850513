"""How far it is, on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from unaudit.progress import SILENT, Progress

WORTH_A_LINE = 2.0
"""Seconds that a stage must take before a log mentions it."""
EVERY = 15.0
"""Seconds between two lines on the same stage."""


@contextmanager
def progress_on_stderr(quiet: bool = False) -> Iterator[Progress]:
    """What fits stderr: bars on an interactive terminal, lines in logs and CI, nothing if quiet."""
    if quiet:
        yield SILENT
    elif not is_interactive(sys.stderr):
        yield Lines()
    else:
        with _bars() as bars:
            yield bars


def is_interactive(stream: object) -> bool:
    """Whether a person looks at ``stream``; the variable ``CI`` says that nobody does."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and os.environ.get("TERM") != "dumb"


class Lines:
    """One line for each stage that takes its time, and one every few seconds while it does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        begin = last = self.clock()
        done = 0

        def advance(steps: int) -> None:
            nonlocal last, done
            done += steps
            now = self.clock()
            if now - last >= EVERY:
                last = now
                click.echo(f"  {name}: {_share(done, total)} after {now - begin:.0f} s", err=True)

        yield advance
        spent = self.clock() - begin
        if spent >= WORTH_A_LINE:
            click.echo(f"  {name}: done in {spent:.1f} s", err=True)


def _share(done: int, total: int | None) -> str:
    return f"{done} of {total}" if total else f"{done}"


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    bars = RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, markup=False, highlight=False, emoji=False),
        transient=True,
    )

    class Bars:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
            task = bars.add_task(name, total=total)
            try:
                yield lambda steps: bars.advance(task, steps)
            finally:
                bars.remove_task(task)

    with bars:
        yield Bars()
