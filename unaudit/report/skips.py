"""What did not run, one entry per reason: many probes often share one."""

from __future__ import annotations

from dataclasses import dataclass

from unaudit.report.record import Record


@dataclass(frozen=True)
class Group:
    """Probes that did not run for the same reason."""

    kind: str
    """``skipped``, ``errored`` or ``left-out``."""
    reason: str
    titles: tuple[str, ...]


def skips(record: Record) -> list[Group]:
    """In the order in which the reasons first occur."""
    titles: dict[tuple[str, str], list[str]] = {}
    for skip in record.skipped:
        titles.setdefault((skip.kind, skip.reason), []).append(skip.title)
    return [Group(kind, reason, tuple(own)) for (kind, reason), own in titles.items()]
