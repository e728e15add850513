"""Whether the retrained models were trained as the original was, as the record shows it."""

from __future__ import annotations

from unaudit.fidelity import Fidelity
from unaudit.report import record as schema


def fidelity_part(found: Fidelity | None) -> schema.Fidelity | None:
    """None without an original or without retrained models."""
    if found is None:
        return None
    return schema.Fidelity(
        made=found.made,
        kept_classes_only=found.kept_classes_only,
        splits=tuple(
            schema.SplitFidelity(
                split=compared.split,
                original=compared.original,
                retrained=compared.retrained,
                gap=compared.gap,
            )
            for compared in found.splits
        ),
        limit=found.limit,
        ok=found.ok,
        reason=found.reason,
    )
