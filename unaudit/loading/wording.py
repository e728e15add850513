"""Strings from files in messages: without control characters, short, listed in one line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice

from unaudit.errors import UnauditError
from unaudit.report.text import clean, shorten


def shown(text: str, length: int = 80) -> str:
    """``text`` as a message may print it: one line, no control characters, shortened."""
    return shorten(clean(shorten(text, 4 * length)), length)


def listed(names: Collection[str], most: int = 3) -> str:
    """``'a', 'b', 'c' and 4 more``."""
    first = ", ".join(f"'{shown(name)}'" for name in islice(names, most))
    return f"{first} and {len(names) - most} more" if len(names) > most else first


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Put ``file`` in front of every complaint inside, so that checks speak of content only."""
    try:
        yield
    except UnauditError as error:
        raise type(error)(f"{file}: {error}") from None
