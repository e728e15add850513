"""What strings and numbers of a record look like once they are shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unaudit.report import text
from unaudit.report.record import Interval
from unaudit.text import MAX_MARKS, clean, shorten, size

from .samples import HOSTILE, hostile


@given(st.text(st.characters(codec=None), max_size=200))
def test_clean_leaves_no_character_that_acts(raw: str) -> None:
    cleaned = clean(raw)
    assert not [c for c in cleaned if unicodedata.category(c)[0] == "C"]
    assert "\u2028" not in cleaned
    assert "\u2029" not in cleaned
    assert clean(cleaned) == cleaned
    cleaned.encode("utf-8")


@given(st.text("abc äß日本τ−", max_size=100))
def test_clean_keeps_ordinary_text(raw: str) -> None:
    assert clean(raw) == raw


def test_clean_drops_bidirectional_overrides_and_escapes() -> None:
    assert clean("a\u202egpj.exe\u2066b\x1b[2Jc\x9bd") == "agpj.exeb[2Jcd"
    assert clean("one\ntwo\r\u2028three\tfour") == "one two  three four"


def test_clean_limits_stacked_marks() -> None:
    assert clean("Z" + "\u0351" * 50) == "Z" + "\u0351" * MAX_MARKS
    assert clean("e\u0301a\u0300") == "e\u0301a\u0300"


@given(st.text(max_size=300), st.integers(2, 100))
def test_shorten_keeps_both_ends_within_the_length(raw: str, length: int) -> None:
    short = shorten(raw, length)
    assert len(short) <= length
    assert short == raw or (len(short) == length and short[0] == raw[0] and "…" in short)


def test_printable_reaches_every_string() -> None:
    shown = text.printable(hostile()).model_dump_json()
    for character in ("\u202e", "\u2066", "\\u001b", "\x9b", "\u0359"):
        assert character not in shown
    assert "<script>" in shown, "escaping is the writers' task"
    assert "\u202e" in HOSTILE


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.125, "0.12"),
        (-0.5, "−0.50"),
        (-0.001, "0.00"),
        (1234.5, "1,234.50"),
    ],
)
def test_number(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@given(st.floats(-1e300, 1e300))
def test_numbers_read_back(value: float) -> None:
    def parse(shown: str) -> float:
        return float(shown.replace("−", "-").replace(",", ""))

    assert parse(text.number(value)) == pytest.approx(value, abs=0.0051, rel=1e-12)
    assert parse(text.significant(value)) == pytest.approx(value, rel=5.1e-3, abs=1e-307)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.05512, "0.0551"), (123456.0, "123,456"), (-1.5e-7, "−1.50e−7")],
)
def test_significant(value: float, shown: str) -> None:
    assert text.significant(value) == shown


def test_intervals_name_open_ends() -> None:
    closed = Interval(estimate=0.12, low=-0.05, high=0.31, level=0.9)
    assert text.interval(closed) == "0.12 [−0.05, 0.31]"
    assert text.interval(closed.model_copy(update={"high": None})) == "0.12 [−0.05, ∞]"
    assert text.interval(closed.model_copy(update={"low": None})) == "0.12 [−∞, 0.31]"
    assert text.interval(None) == "–"


def test_small_forms() -> None:
    assert text.percent(0.0315) == "3.1%" or text.percent(0.0315) == "3.2%"
    assert text.percent(None) == "–"
    assert text.level(0.95) == "95%"
    assert text.level(0.975) == "97.5%"
    assert text.p_value(0.0004) == "< 0.001"
    assert text.p_value(0.25) == "0.250"
    assert size(336_912) == "329.0 KiB"
    assert size(12) == "12 B"
    assert text.duration(0.41) == "410 ms"
    assert text.duration(5.75) == "5.8 s"
    assert text.duration(600) == "10 min"
    assert text.moment("2026-05-03T16:05:09+02:00") == "3 May 2026, 14:05 UTC"
    assert text.moment("yesterday") == "yesterday"
