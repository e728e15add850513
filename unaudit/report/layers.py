"""Short names of layers that still tell one from another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

LONG = 10
"""Characters from which a name is cut at underscores as well."""


@dataclass(frozen=True)
class Layers:
    """What layers are called where there is little room."""

    names: tuple[str, ...]
    """In the order that was given."""
    cut: str
    """What was left out in front, in one sentence; empty where nothing was."""


def short_names(names: Sequence[str]) -> Layers:
    """The shortest ends of dotted names that differ, none of which is a mere number.

    ``transformer.h.0`` and ``transformer.h.1`` become ``h.0`` and ``h.1``.
    """
    short = _shortest(names, r"\.")
    if max(map(len, short), default=0) > LONG:
        short = _shortest(names, r"[._]")
    fronts = {name[: -len(end)] for name, end in zip(names, short, strict=True) if name != end}
    if not fronts:
        return Layers(short, "")
    if len(fronts) == 1:
        return Layers(short, f"“{fronts.pop()}” in front of names of layers is left out.")
    return Layers(short, "Names of layers are shortened; record.json has them whole.")


def _shortest(names: Sequence[str], separator: str) -> tuple[str, ...]:
    ends = [[name[match.end() :] for match in re.finditer(separator, name)][::-1] for name in names]
    shared = Counter(end for name, own in zip(names, ends, strict=True) for end in {*own, name})
    return tuple(
        next((end for end in own if shared[end] == 1 and end[:1].isalpha()), name)
        for name, own in zip(names, ends, strict=True)
    )
