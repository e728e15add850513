"""Checks of probe parameters, which come from ``unaudit.toml``."""

from __future__ import annotations

from unaudit.errors import UsageError
from unaudit.evidence import Probe


def require_whole(probe: Probe, field: str, least: int) -> None:
    """Refuse a parameter that is not a whole number of at least ``least``.

    Raises:
        UsageError: names the key in the configuration.
    """
    value = getattr(probe, field)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _refusal(probe, field, f"a whole number of at least {least}")


def require_positive(probe: Probe, field: str) -> None:
    """Refuse a parameter that is not a finite number above 0.

    Raises:
        UsageError: names the key in the configuration.
    """
    value = getattr(probe, field)
    if not _is_number(value) or not 0 < value < float("inf"):
        raise _refusal(probe, field, "a finite number above 0")


def require_percent(probe: Probe, field: str) -> None:
    """Refuse a parameter that is not a number above 0 and at most 100.

    Raises:
        UsageError: names the key in the configuration.
    """
    if not _is_number(getattr(probe, field)) or not 0 < getattr(probe, field) <= 100:
        raise _refusal(probe, field, "a number above 0 and at most 100, in percent")


def require_share(probe: Probe, field: str) -> None:
    """Refuse a parameter that is not a number between 0 and 1, both excluded.

    Raises:
        UsageError: names the key in the configuration.
    """
    if not _is_number(getattr(probe, field)) or not 0 < getattr(probe, field) < 1:
        raise _refusal(probe, field, "a number between 0 and 1")


def require_flag(probe: Probe, field: str) -> None:
    """Refuse a parameter that is neither true nor false.

    Raises:
        UsageError: names the key in the configuration.
    """
    if not isinstance(getattr(probe, field), bool):
        raise _refusal(probe, field, "true or false")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refusal(probe: Probe, field: str, expected: str) -> UsageError:
    value = repr(getattr(probe, field))[:40]
    return UsageError(f"probes.{probe.card.name}.{field} must be {expected} (got {value})")
