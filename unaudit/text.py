"""Text that somebody else wrote, made fit to be shown: it may be long, or hostile.

What comes out of model files, data files, configs and command lines may drive a terminal, reorder a
line or paint over its neighbors. It is cleaned here before it gets into a message or a report;
escaping for HTML and SVG comes on top, in the writers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from itertools import islice

MAX_LENGTH = 2000
"""Characters; a longer string is cut in the middle."""
MAX_MARKS = 3
"""Combining marks in a row; languages need no more, stacks of them overprint other lines."""

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")


def clean(text: str) -> str:
    """``text`` on one line, without control, format, bidirectional or unassigned characters."""
    kept: list[str] = []
    marks = 0
    for character in shorten(text, MAX_LENGTH):
        if character in _BREAKS:
            kept.append(" ")
            continue
        category = unicodedata.category(character)
        if category[0] == "C":
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters; what is cut from the middle becomes one ellipsis."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def plain(value: object, limit: int = 120) -> str:
    """``value`` on one line of at most ``limit`` characters, cleaned."""
    return shorten(clean(shorten(str(value), 4 * limit)), limit)


def quote(value: object, limit: int = 60) -> str:
    """The same in single quotes."""
    return f"'{plain(value, limit)}'"


def listed(names: Collection[str], most: int = 3) -> str:
    """``'a', 'b', 'c' and 4 more``."""
    first = ", ".join(quote(name, 80) for name in islice(names, most))
    return f"{first} and {len(names) - most} more" if len(names) > most else first


def size(n_bytes: int) -> str:
    """A file size in binary units."""
    amount, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
