"""What attacks with shadow models rest on."""

from __future__ import annotations

from collections.abc import Sequence

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.report.record import ShadowAttack, ShadowModels


def shadow_models(case: Case, calibrated: Sequence[Calibrated]) -> ShadowModels | None:
    """The shadow models of a case and the attacks that used them; None if there were none."""
    shadows = case.shadows
    if shadows is None:
        return None
    return ShadowModels(
        models=shadows.models,
        train_size=shadows.train_size,
        queries=shadows.queries,
        unlearner=shadows.unlearner,
        notes=shadows.notes,
        attacks=tuple(_attack(item) for item in with_shadows(calibrated)),
    )


def with_shadows(calibrated: Sequence[Calibrated]) -> list[Calibrated]:
    """Those that need shadow models."""
    return [item for item in calibrated if item.measurement.card.shadows is not None]


def _attack(item: Calibrated) -> ShadowAttack:
    card, detail = item.measurement.card, item.measurement.subject.answers[0].detail
    return ShadowAttack(
        probe=card.name,
        title=card.title,
        variant=str(detail.get("variant", "variant not stated")),
        left_out=int(detail.get("forget_left_out", 0)),
    )
