"""Where words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from unaudit.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

CLOSED_PIPE = 141
"""128 + SIGPIPE, as a shell has it; never 0 or 1, which would read as a verdict."""
LONGEST_NOTE = 1000
"""Characters."""
WIDTH = 80
"""Columns of explanations."""


def note(text: str) -> None:
    """One line on stderr."""
    line = one_line(text)
    shown = line if len(line) <= LONGEST_NOTE else f"{line[: LONGEST_NOTE - 1]}…"
    click.echo(f"unaudit: {shown}", err=True)


def one_line(text: str) -> str:
    """Without line breaks and control characters: names in it may come from a hostile file."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def warn(text: str) -> None:
    """One line on stderr on something that did not stop the run."""
    note(f"warning: {text}")


class _Warnings(logging.Handler):
    """Passes on what the engine has to say while it works."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def listen_to_warnings() -> None:
    """Print warnings of the package's loggers as lines of ours; a second call changes nothing."""
    own = logging.getLogger("unaudit")
    if not any(isinstance(handler, _Warnings) for handler in own.handlers):
        own.addHandler(_Warnings(logging.WARNING))


def result_console() -> Console:
    """The console of stdout; reads no markup, for what it prints may come from a hostile file."""
    from rich.console import Console

    class ResultConsole(Console):
        def on_broken_pipe(self) -> None:
            # the default ends the process with 1, which would read as "evidence of retention"
            raise BrokenPipeError

    return ResultConsole(markup=False, highlight=False, emoji=False)


def drop_stdout() -> None:
    """Send what is left to nowhere, so that a reader who went away causes no noise at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def exit_with(code: ExitCode | int) -> None:
    """End the running command with ``code``."""
    click.get_current_context().exit(int(code))


def paragraph(console: Console, label: str, text: str) -> None:
    """A labeled text, wrapped."""
    console.print(
        textwrap.fill(
            one_line(text),
            WIDTH,
            initial_indent=f"  {label:<12}",
            subsequent_indent=" " * 14,
            break_on_hyphens=False,
        )
    )
