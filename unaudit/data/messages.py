"""Text from data files, made fit for a one-line message: it may be long, or hostile."""

from __future__ import annotations

from collections.abc import Sequence

from unaudit.report.text import clean, shorten


def plain(value: object, limit: int = 120) -> str:
    """One line of at most ``limit`` characters, without control characters."""
    return shorten(clean(shorten(str(value), 4 * limit)), limit)


def quote(value: object, limit: int = 60) -> str:
    """The same in single quotes."""
    return f"'{plain(value, limit)}'"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some of the names, which may be many."""
    first = ", ".join(plain(name, 40) for name in names[:most])
    return f"{first} and {len(names) - most} more" if len(names) > most else first
