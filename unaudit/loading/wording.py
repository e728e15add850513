"""Complaints that name their file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unaudit.errors import UnauditError


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Put ``file`` in front of every complaint inside, so that checks speak of content only."""
    try:
        yield
    except UnauditError as error:
        raise type(error)(f"{file}: {error}") from None
