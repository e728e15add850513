"""The terminal summary: 80 columns, no color needed, nothing acted on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from unaudit.report.record import Record
from unaudit.report.terminal import print_summary

from .samples import ALL, failing, hostile, many, passing

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ALL])


def printed(record: Record, **options: object) -> str:
    stream = io.StringIO()
    settings: dict[str, object] = {"file": stream, "width": 80, "no_color": True, **options}
    print_summary(record, Console(**settings))  # type: ignore[arg-type]
    return stream.getvalue()


@EVERY
def test_lines_fit_into_80_columns(make: Callable[[], Record]) -> None:
    record = make()
    lines = printed(record).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert record.verdict.outcome.upper() in lines[1]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("make", [passing, failing, many])
def test_rows_are_never_wrapped(make: Callable[[], Record]) -> None:
    record = make()
    text = printed(record)
    table = text.split("Findings, failures first\n")[1].split("\n\n")[0].splitlines()
    rows = [line for line in table[1:] if not line.startswith("✗:")]
    assert len(rows) == len(record.findings)
    pattern = r".+  [●▲▼■◇□] [a-z- ]+ +(−?\d+\.\d\d \[(−?\d+\.\d\d|−∞), (−?\d+\.\d\d|∞)\]|–) +\S"
    for row in rows:
        assert re.match(pattern, row), row


def test_failures_come_first_and_are_marked_by_a_sign() -> None:
    rows = printed(failing()).split("Findings, failures first\n")[1].splitlines()[1:11]
    marked = [row.rstrip().endswith("✗") for row in rows]
    assert marked == sorted(marked, reverse=True)
    assert sum(marked) == sum(finding.fails for finding in failing().findings)


def test_distances_have_no_direction() -> None:
    line = next(row for row in printed(failing()).splitlines() if "Softmax distance" in row)
    assert "differs" in line
    assert "residual" not in line


@EVERY
def test_nothing_is_dropped(make: Callable[[], Record]) -> None:
    record = make()
    text = printed(record)
    assert f"exit code {record.verdict.exit_code}" in text
    assert ("Did not run" in text) == bool(record.skipped)
    assert ("Next step" in text) == bool(record.verdict.next_step)
    assert "Passing is not proof of deletion" in text


def test_long_lists_end_in_a_count() -> None:
    record = passing()
    skips = tuple(
        skip.model_copy(update={"reason": f"{skip.reason} ({number})"})
        for number in range(10)
        for skip in record.skipped
    )
    text = printed(record.model_copy(update={"skipped": skips}))
    assert "and 12 more, listed in record.json" in text


def test_probes_that_share_a_reason_share_a_line() -> None:
    record = passing()
    (one, *_) = record.skipped
    text = printed(record.model_copy(update={"skipped": (one,) * 5}))
    assert f"5 probes: {one.kind}" in text


def test_hostile_strings_are_printed_as_they_are() -> None:
    text = printed(hostile(), no_color=False, force_terminal=True, color_system="truecolor")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not set("\x1b\x07\x00\x9b\u202e\u2066") & set(plain)
    assert "\x1b[31mred" not in printed(hostile())
    record = failing()
    marked = record.verdict.model_copy(update={"headline": "[red]not markup[/red] :warning:"})
    assert "[red]not markup[/red] :warning:" in printed(
        record.model_copy(update={"verdict": marked})
    )


def test_colors_add_nothing_but_color() -> None:
    colored = printed(failing(), no_color=False, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == printed(failing())


def test_streams_without_unicode_get_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_summary(failing(), Console(file=stream, width=80))
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "at tau = 0.50" in text
    assert "^ residual" in text
    assert "[-inf, inf]" in text
