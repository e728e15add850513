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
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise _refusal(probe, field, "a finite number above 0")


def _refusal(probe: Probe, field: str, expected: str) -> UsageError:
    value = repr(getattr(probe, field))[:40]
    return UsageError(f"probes.{probe.card.name}.{field} must be {expected} (got {value})")
