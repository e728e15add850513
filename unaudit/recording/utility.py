"""Accuracy of every model: whether what was kept still works.

That of a language model is the share of tokens that it predicts, as a mean over texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unaudit.case import Candidate, Case
from unaudit.evidence import FloatArray, SplitName
from unaudit.report.record import Accuracy, ClassAccuracy
from unaudit.views import BlackBox


def accuracies(case: Case, view_of: Mapping[str, BlackBox]) -> tuple[Accuracy, ...]:
    """Accuracy of every model on every split."""
    everyone = (*case.candidates, *case.calibrators)
    return tuple(_accuracy(case, candidate, view_of) for candidate in everyone)


def per_class(
    case: Case, view_of: Mapping[str, BlackBox], n_classes: int
) -> tuple[ClassAccuracy, ...]:
    """Accuracy of the subject on each class that has examples; nothing without classes, as of texts
    that bear no labels."""
    if n_classes < 2:
        return ()
    subject = view_of[case.subject.label]
    retrained = [view_of[candidate.label] for candidate in case.retrained]
    rows = []
    for label in range(n_classes):
        theirs = [_class_rate(view, "forget", label) for view in retrained]
        known = [rate for rate in theirs if rate is not None]
        row = ClassAccuracy(
            label=label,
            forget=_class_rate(subject, "forget", label),
            retain=_class_rate(subject, "retain", label),
            unseen=_class_rate(subject, "unseen", label),
            retrained_forget=float(np.mean(known)) if known else None,
        )
        if (row.forget, row.retain, row.unseen) != (None, None, None):
            rows.append(row)
    return tuple(rows)


def _accuracy(case: Case, candidate: Candidate, view_of: Mapping[str, BlackBox]) -> Accuracy:
    view = view_of[candidate.label]
    unseen = unseen_kept = unseen_forgotten = None
    if "unseen" in view.splits:
        found = view.predictions("unseen")
        unseen = _mean(found.hit_rate)
        if case.scenario == "class":
            forgotten = np.isin(found.labels, case.forget_classes)
            unseen_kept = _mean(found.hit_rate[~forgotten])
            unseen_forgotten = _mean(found.hit_rate[forgotten])
    return Accuracy(
        model=candidate.label,
        role=candidate.role,
        forget=float(view.predictions("forget").hit_rate.mean()),
        retain=_mean(view.predictions("retain").hit_rate),
        unseen=unseen,
        unseen_kept=unseen_kept,
        unseen_forgotten=unseen_forgotten,
    )


def _class_rate(view: BlackBox, split: SplitName, label: int) -> float | None:
    if split not in view.splits:
        return None
    found = view.predictions(split)
    return _mean(found.hit_rate[found.labels == label])


def _mean(rates: FloatArray) -> float | None:
    return float(rates.mean()) if len(rates) else None
