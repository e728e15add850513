"""The evidence of all records of one person at once; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import FloatArray, IntArray, Scores, SplitName
from unaudit.recording.figures import MIN_GROUP
from unaudit.recording.worst import MOST
from unaudit.report.record import ExposedGroup, GroupEvidence, Interval
from unaudit.stats import GroupSums, auc_interval, group_spread, group_sums, placements

ADDITIVE = "nats"
"""``unit`` in the detail of scores that are log-likelihood ratios, so that they add up."""
MIN_UNSEEN = 20
"""Unseen groups to hold forget groups against."""

Names = npt.NDArray[np.str_]


def group_evidence(
    case: Case, calibrated: Sequence[Calibrated], alpha: float, name_of: Callable[[str], str]
) -> tuple[GroupEvidence, ...]:
    """Of each attack whose scores add up, what it says of the groups in the forget set.

    A group's forget records alone are combined. They are held against unseen groups of which no
    record is in the training data.

    Args:
        case: knows the groups; without any there is nothing to say.
        calibrated: of every probe that gave a measurement.
        alpha: intervals have level 1 − 2α.
        name_of: see :func:`unaudit.recording.worst.namer`.
    """
    trained = case.splits["forget"].dataset.groups
    if trained is None:
        return ()
    found = []
    for item in calibrated:
        card, answer = item.measurement.card, item.measurement.subject.answers[0]
        if not isinstance(answer, Scores) or answer.detail.get("unit") != ADDITIVE:
            continue
        own = group_sums(answer.forget, trained[_rows(case, answer, "forget", len(answer.forget))])
        above, area, unseen, reason = _against_unseen(case, answer, own, trained, 1 - 2 * alpha)
        # a tab is in no id of an example, so no example can have the name of a group
        names = [name_of(f"group\t{name}") for name in own.names.tolist()]
        strength = own.sums if above is None else above[0]
        # among equals, names decide: places in the data would tell something
        order = np.lexsort((np.array(names), -strength))[:MOST]
        found.append(
            GroupEvidence(
                probe=card.name,
                title=card.title,
                groups=len(own.names),
                records=len(answer.forget),
                unseen_groups=unseen,
                no_reference=reason,
                auc=area,
                exposed=tuple(
                    ExposedGroup(
                        name=names[at],
                        records=1 << (int(own.sizes[at]).bit_length() - 1),
                        score=float(f"{own.sums[at]:.3g}"),
                        above_unseen=None if above is None else float(above[1][at]),
                    )
                    for at in order.tolist()
                ),
            )
        )
    return tuple(found)


def _against_unseen(
    case: Case, answer: Scores, own: GroupSums, trained: Names, level: float
) -> tuple[tuple[FloatArray, FloatArray] | None, Interval | None, int, str | None]:
    """(g,) strength of each group beside unseen ones of its size and the share of them that lie
    below it; the AUC; how many there are; or why there is no reference."""
    unseen = answer.unseen
    known = None if unseen is None else case.splits["unseen"].dataset.groups
    if unseen is None or known is None:
        return None, None, 0, "the unseen examples name no groups"
    labels = known[_rows(case, answer, "unseen", len(unseen))]
    free = ~np.isin(labels, trained)
    others = group_sums(unseen[free], labels[free])
    count, several = len(others.names), int((others.sizes > 1).sum())
    if count < MIN_UNSEEN:
        return None, None, count, f"it takes {MIN_UNSEEN} unseen groups, there are {count}"
    if (own.sizes > 1).any() and several < MIN_UNSEEN:
        reason = (
            f"it takes {MIN_UNSEEN} unseen groups of several records, to see how alike those of "
            f"one group are, and there are {several}"
        )
        return None, None, count, reason
    spread = group_spread(unseen[free], labels[free])
    positive, negative = spread.standardized(own), spread.standardized(others)
    area = None
    if len(positive) >= MIN_GROUP:
        found = auc_interval(positive, negative, level)
        area = Interval(estimate=found.estimate, low=found.low, high=found.high, level=level)
    return (positive, placements(positive, negative)[0]), area, count, None


def _rows(case: Case, answer: Scores, name: SplitName, scored: int) -> IntArray:
    """(scored,) rows of the scored examples of a split in its data."""
    return np.asarray(case.splits[name].rows[answer.rows.get(name, np.arange(scored))])
