"""Strings and numbers of a record, made fit to be shown.

A record carries strings that came out of model files, data files and configs. :func:`printable` is
the one place where they lose what could drive a terminal, reorder a line or paint over its
neighbors; escaping for HTML and SVG comes on top, in the writers.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from unaudit.report.nouns import spoken
from unaudit.report.record import Interval, Record
from unaudit.text import clean, shorten


def printable(record: Record) -> Record:
    """The same record with every string as :func:`clean` leaves it, and with words that fit what
    was audited."""
    return spoken(Record.model_validate(_clean_within(record.model_dump())))


def _clean_within(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _clean_within(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean_within(item) for item in value]
    return value


def sentence(text: str) -> str:
    """A phrase as a sentence of its own: a capital first letter and a mark at the end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")


def whole(text: str, most: int = 1600) -> str:
    """At most ``most`` characters; what does not fit is left out from the end of a sentence on."""
    if len(text) <= most:
        return text
    end = max(text.rfind(mark, 0, most - 2) for mark in (". ", "! ", "? "))
    return shorten(text, most) if end < 0 else f"{text[: end + 1]} …"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed point with a true minus sign; an en dash stands for a missing value."""
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None, digits: int = 3) -> str:
    """A measure of any magnitude, to ``digits`` significant digits."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return number(value, max(0, digits - 1 - exponent))
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(power)}".replace("-", "−")


def percent(rate: float | None, digits: int = 1) -> str:
    """A rate as a percentage; an en dash stands for a missing value."""
    return "–" if rate is None else f"{number(100 * rate, digits)}%"


def level(rate: float) -> str:
    """A confidence level, without needless zeros: ``95%``, ``97.5%``."""
    return f"{100 * rate:.6g}%"


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return "–" if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """Three decimals, or a bound below them."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else number(value, 3)


def interval(estimate: Interval | None, digits: int = 2) -> str:
    """``0.12 [−0.05, 0.31]``; an end that the data do not bound is infinite."""
    if estimate is None:
        return "–"
    return f"{number(estimate.estimate, digits)} {bounds(estimate, digits)}"


def bounds(estimate: Interval, digits: int = 2) -> str:
    """``[−0.05, 0.31]``."""
    low = "−∞" if estimate.low is None else number(estimate.low, digits)
    high = "∞" if estimate.high is None else number(estimate.high, digits)
    return f"[{low}, {high}]"


def moment(iso: str) -> str:
    """An ISO 8601 time as ``3 May 2026, 14:05 UTC``; what is not one stays as it is."""
    try:
        when = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        return iso
    if when.tzinfo is not None:
        when = when.astimezone(timezone.utc)
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"


_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def duration(seconds: float) -> str:
    """Wall time, to a precision that its size deserves."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
