"""One registry for everything that plugs in: probes, unlearners, formats, architectures.

Third parties register through entry points in the groups ``unaudit.probes``,
``unaudit.unlearners``, ``unaudit.formats`` and ``unaudit.architectures``, under names of the form
``package/name``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from unaudit.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, in order of registration."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self.broken: dict[str, str] = {}
        """Entry points that failed to import, with the reason; printed in every report."""
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an object under ``name``; a second claim to a name is an error."""

        def file(item: T) -> T:
            if name in self._items and self._items[name] is not item:
                raise ValueError(f"two {self.kind}s claim the name '{name}'")
            self._items[name] = item
            return item

        return file

    def load_entry_points(self) -> None:
        """Import third-party plug-ins; one that fails is remembered in ``broken``."""
        for point in entry_points(group=self.group):
            if point.name in self._items or point.name in self.broken:
                continue
            try:
                self.register(point.name)(point.load())
            except Exception as error:  # a plug-in may fail in any way; the audit reports it
                self.broken[point.name] = f"{type(error).__name__}: {error}"

    def get(self, name: str) -> T:
        """The item called ``name``.

        Raises:
            UsageError: no such name; the message suggests the nearest ones.
        """
        try:
            return self._items[name]
        except KeyError:
            raise UsageError(
                f"unknown {self.kind} '{name}'{did_you_mean(name, self._items)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterable[tuple[str, T]]:
        return self._items.items()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `` (did you mean 'x'?)`` or the list of what exists."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return f" (did you mean {' or '.join(repr(match) for match in near)}?)"
    return f" (known: {', '.join(known)})" if known else ""
