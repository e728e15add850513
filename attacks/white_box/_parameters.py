"""Checks of probe parameters that the black-box probes have no need of."""

from __future__ import annotations

from unaudit.errors import UsageError
from unaudit.evidence import Probe


def require_choice(probe: Probe, field: str, choices: tuple[str, ...]) -> None:
    """Refuse a parameter that is none of ``choices``.

    Raises:
        UsageError: names the key in the configuration.
    """
    value = getattr(probe, field)
    if value not in choices:
        names = " or ".join(f"'{choice}'" for choice in choices)
        raise _refusal(probe, field, names)


def require_share(probe: Probe, field: str) -> None:
    """Refuse a parameter that is not a number above 0 and at most 1.

    Raises:
        UsageError: names the key in the configuration.
    """
    value = getattr(probe, field)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:
        raise _refusal(probe, field, "a number above 0 and at most 1")


def _refusal(probe: Probe, field: str, expected: str) -> UsageError:
    value = repr(getattr(probe, field))[:40]
    return UsageError(f"probes.{probe.card.name}.{field} must be {expected} (got {value})")
