"""Was the subject trained on the examples that stand for never seen?

Membership is told by comparing forget with unseen examples. Whoever trains on the unseen ones too
makes both alike. Then the subject fits them as well as what it was trained on, while references do
not: the gap in loss between unseen and retained examples has closed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unaudit.case import Case
from unaudit.stats import p_below
from unaudit.views import BlackBox

LEFT = 0.5
"""Share of the references' gap below which the subject's counts as closed (our choice)."""
SIGNIFICANT = 1e-3
"""P-value of the subject's gap as one more draw of the references' (our choice)."""


def known_unseen(case: Case, view_of: Mapping[str, BlackBox]) -> tuple[str, ...]:
    """A reason to doubt the unseen examples, or nothing; it rules a pass out.

    The subject's gap is judged as one more draw of the retrained models' gaps.
    """
    if "unseen" not in case.splits or len(case.retrained) < 2:
        return ()
    gap = _gap(view_of[case.subject.label])
    others = np.array([_gap(view_of[candidate.label]) for candidate in case.retrained])
    closed = others.mean() > 0.0 and gap < LEFT * others.mean()
    if not closed or p_below(gap, others) > SIGNIFICANT:
        return ()
    return (
        "the subject fits the unseen examples almost as well as its training data, which no "
        "retrained model does: it seems to have been trained on them, so they are no non-members",
    )


def _gap(view: BlackBox) -> float:
    """Mean loss on unseen minus that on retained examples, nats (of texts per token); canaries
    would keep it open."""
    unseen, retain = (view.predictions(split).log_confidence for split in ("unseen", "retain"))
    canaries = view.marks.canaries.get("unseen")
    usual = unseen if canaries is None or canaries.all() else unseen[~canaries]
    return float(retain.mean() - usual.mean())
