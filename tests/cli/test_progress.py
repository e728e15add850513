from __future__ import annotations

import io
import sys
import time

import pytest

from unaudit.cli.progress import EVERY, Lines, is_interactive, progress_on_stderr
from unaudit.progress import SILENT


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_stages_are_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(Clock()).stage("quick", 10) as step:
        step(10)
    assert capsys.readouterr().err == ""


def test_long_stages_say_how_far_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Lines(clock).stage("slow", 10) as step:
        for _ in range(10):
            clock.now += EVERY / 5
            step(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "  slow: 5 of 10 after 15 s",
        "  slow: 10 of 10 after 30 s",
        "  slow: done in 30.0 s",
    ]


def test_an_unknown_total_counts_steps(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Lines(clock).stage("reading") as step:
        clock.now += EVERY
        step(7)
    assert "reading: 7 after 15 s" in capsys.readouterr().err


def test_a_failed_stage_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()

    def fail() -> None:
        with Lines(clock).stage("slow"):
            clock.now += 100
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert capsys.readouterr().err == ""


def test_quiet_is_silent() -> None:
    with progress_on_stderr(quiet=True) as progress:
        assert progress is SILENT


def test_bars_are_drawn_on_a_terminal_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_on_stderr() as progress, progress.stage("scoring [red]x", 4) as step:
        step(4)
        # the drawing thread comes by ten times a second
        time.sleep(0.3)
    drawn = terminal.getvalue()
    assert "scoring [red]x" in drawn
    assert "4/4" in drawn
    assert drawn.rstrip("\n\r").endswith(("\x1b[2K", "\x1b[?25h"))


@pytest.mark.parametrize("inner", [False, True])
def test_an_exception_passes_through_bars(monkeypatch: pytest.MonkeyPatch, inner: bool) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())

    def work() -> None:
        with progress_on_stderr() as progress:
            if not inner:
                raise KeyboardInterrupt
            with progress.stage("a"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.parametrize(
    ("ci", "term", "interactive"),
    [("", "xterm", True), ("true", "xterm", False), ("false", "xterm", True), ("", "dumb", False)],
)
def test_who_is_a_person(
    monkeypatch: pytest.MonkeyPatch, ci: str, term: str, interactive: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", term)
    assert is_interactive(Terminal()) is interactive
    assert not is_interactive(io.StringIO())
    assert not is_interactive(None)
