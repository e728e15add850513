"""How long work says how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Listens to the stages of an audit."""

    def stage(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Enter a stage of ``total`` steps (None: unknown); the value reports steps done."""


class Silent:
    """Shows nothing."""

    def stage(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)


SILENT = Silent()
