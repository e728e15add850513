"""Was a model trained on examples that it must not know?

Membership is told by comparing forget with unseen examples. Two kinds of training defeat it:

the subject on unseen examples   It makes both sides alike. Then the subject fits them as well as
                                 what it was trained on, while references do not: the gap in loss
                                 between unseen and retained examples has closed.
a reference on forget examples   It moves the zero of every index towards the original. Then the
                                 reference is no longer indifferent between forget and unseen
                                 examples, or it knows a class that it never should have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unaudit.calibration import CHANCE
from unaudit.case import Case
from unaudit.evidence import Scores
from unaudit.fidelity import touched_classes
from unaudit.measuring import Answer, Measurement
from unaudit.stats import auc, auc_noise, p_below
from unaudit.stats.equivalence import tail_p
from unaudit.views import BlackBox

LEFT = 0.5
"""Share of the references' gap below which the subject's counts as closed (our choice)."""
SIGNIFICANT = 1e-3
"""P-value below which chance is ruled out: of the subject's gap as one more draw of the references'
gaps; of the references' knowledge of the forget set, once for all of them together and once for the
worst of them (our choice)."""
KNOWN = 0.1
"""Share of the original's advantage in telling forget from unseen examples below which that of a
retrained model does no harm, however many examples make it significant (our choice)."""
PREDICTED = 0.5
"""Share of the original's accuracy on forgotten classes above which a retrained model knows them
(our choice). Five networks that never saw a class of the digits never predicted it."""

Side = Literal["forget", "unseen"]
SIDES: tuple[Side, ...] = ("forget", "unseen")


def known_unseen(case: Case, view_of: Mapping[str, BlackBox]) -> tuple[str, ...]:
    """A reason to doubt the unseen examples, or nothing; it rules a pass out.

    The subject's gap is judged as one more draw of the retrained models' gaps. Classes that the
    request touches are left out: that a retrained model lacks one would open its gap.
    """
    if "unseen" not in case.splits or len(case.retrained) < 2:
        return ()
    touched = touched_classes(case)
    if np.isin(case.splits["unseen"].labels, touched).all():
        return ()
    gap = _gap(view_of[case.subject.label], touched)
    others = np.array([_gap(view_of[candidate.label], touched) for candidate in case.retrained])
    closed = others.mean() > 0.0 and gap < LEFT * others.mean()
    if not closed or p_below(gap, others) > SIGNIFICANT:
        return ()
    return (
        "the subject fits the unseen examples almost as well as its training data, which no "
        "retrained model does: it seems to have been trained on them, so they are no non-members",
    )


@dataclass(frozen=True)
class Leaning:
    """A retrained model, or all of them, to which forget or unseen examples are more familiar."""

    who: str | None
    """A label; None: all together."""
    title: str
    """Of the attack that shows it."""
    area: float
    original: float | None
    """AUC of forget against unseen examples, of the retrained and of the original model."""
    p: float
    """Corrected for the number of attacks and of models looked at."""


def leanings(case: Case, measurements: Sequence[Measurement]) -> tuple[Leaning, ...]:
    """Who is not indifferent between forget and unseen examples, by which attack.

    The attacks are those by which the verdict tells members, so that what they can see of the
    original, they can see here. Given a model that saw neither side, the scores of both are draws
    from one distribution, so that the AUC has mean ½ and a known variance (:func:`auc_noise`); the
    records of one person are drawn together. The models share the examples; their mean varies as
    one of them at most.

    Nothing is said where the two sides differ by themselves: in the class scenario, whose unseen
    examples are no measure of a class that nobody saw, and where the mix of classes differs.
    """
    if case.mix_differs or case.scenario == "class" or not case.retrained:
        return ()
    found = []
    attacks = [measurement for measurement in measurements if _tells_members(measurement)]
    for attack in attacks:
        areas = [_area(case, reading.answers[0]) for reading in attack.retrained]
        original = None
        if attack.original is not None:
            original, *_ = _area(case, attack.original.answers[0])
        harmless = 0.0 if original is None else KNOWN * abs(original - CHANCE)
        labels = [candidate.label for candidate in case.retrained]
        _, noise, df = max(areas, key=lambda one: one[1])
        everyone = fmean(area for area, *_ in areas), noise, df
        for who, (area, variance, df) in ((None, everyone), *zip(labels, areas, strict=True)):
            lean = abs(area - CHANCE)
            looks = len(attacks) * (1 if who is None else len(areas))
            p = min(1.0, looks * tail_p(lean, [variance], [df]))
            if p <= SIGNIFICANT and lean >= harmless:
                found.append(Leaning(who, attack.card.title, area, original, p))
    return tuple(found)


def known_forget(
    case: Case, view_of: Mapping[str, BlackBox], found: Sequence[Leaning]
) -> tuple[str, ...]:
    """A reason to doubt the retrained models, or nothing; it rules a pass out.

    Where whole classes are to be forgotten, by whether a retrained model predicts them; else by
    whether forget examples are more familiar to it than unseen ones.

    Args:
        case: what is audited.
        view_of: outputs of the original and the retrained models, by label.
        found: what :func:`leanings` says of the same case.
    """
    if case.scenario == "class":
        return _known_classes(case, view_of)
    knowing = [one for one in found if one.area > CHANCE]
    if not knowing:
        return ()
    labels = [c.label for c in case.retrained if any(one.who == c.label for one in knowing)]
    some = 0 < len(labels) < len(case.retrained)
    # of those that are named, or of all together
    worst = min(knowing, key=lambda one: ((one.who is None) == some, one.p))
    of_original = "" if worst.original is None else f", {worst.original:.2f} for the original"
    return (
        f"forget examples are more familiar to {_named(labels if some else [], case)} than unseen "
        f"ones are ({worst.title}: AUC {worst.area:.2f}{of_original}), as they are not "
        "to models that never saw them or copies of them; hand in models retrained without the "
        "forget set, and unseen examples drawn as it was",
    )


def _tells_members(measurement: Measurement) -> bool:
    """Whether its scores of forget and unseen examples can be compared, of all of them."""
    card = measurement.card
    readings = [*measurement.retrained, *filter(None, [measurement.original])]
    return (
        card.family == "membership"
        and card.asks is None
        and not card.comparative
        and all(
            isinstance(reading.answers[0], Scores) and reading.answers[0].unseen is not None
            for reading in readings
        )
    )


def _area(case: Case, answer: Answer) -> tuple[float, float, float]:
    """AUC of forget against unseen examples; its variance for a model that saw neither, and the
    degrees of freedom of that. Records of one person are alike, where the data say whose they are.
    """
    assert isinstance(answer, Scores)
    assert answer.unseen is not None
    forget, unseen = answer.forget, answer.unseen
    groups = None
    if all(case.splits[side].dataset.groups is not None for side in SIDES):
        groups = _groups(case, answer, "forget"), _groups(case, answer, "unseen")
    return auc(forget, unseen), *auc_noise(forget, unseen, groups)


def _groups(case: Case, answer: Scores, side: Side) -> npt.NDArray[Any]:
    """Of each score of one side."""
    split = case.splits[side]
    groups = split.dataset.groups
    assert groups is not None
    return np.asarray(groups[split.rows[answer.rows.get(side, np.arange(len(split.rows)))]])


def _known_classes(case: Case, view_of: Mapping[str, BlackBox]) -> tuple[str, ...]:
    """Retrained models that predict classes of which nothing is left to train on."""
    labels = case.splits["forget"].labels
    gone = ~np.isin(labels, case.splits["retain"].labels)
    if case.original is None or case.task != "classification" or not gone.any():
        return ()

    def right(label: str) -> float:
        return float(view_of[label].predictions("forget").hit_rate[gone].mean())

    original = right(case.original.label)
    shares = {candidate.label: right(candidate.label) for candidate in case.retrained}
    knowing = {label: share for label, share in shares.items() if share > PREDICTED * original}
    if not knowing:
        return ()
    return (
        f"forgotten classes are known to {_named(list(knowing), case)}, right on up to "
        f"{max(knowing.values()):.1%} of their examples ({original:.1%} for the original), as they "
        "are not to models that never saw them; hand in models retrained without the forget set",
    )


def _named(labels: Sequence[str], case: Case) -> str:
    """Some retrained models by label; none is all."""
    if len(labels) in (0, len(case.retrained)):
        return "the retrained models"
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))


def _gap(view: BlackBox, touched: tuple[int, ...]) -> float:
    """Mean loss on unseen minus that on retained examples of other classes, nats (of texts per
    token); canaries would keep it open."""
    unseen, retain = (view.predictions(split) for split in ("unseen", "retain"))
    usual, kept = (~np.isin(side.labels, touched) for side in (unseen, retain))
    canaries = view.marks.canaries.get("unseen")
    if canaries is not None and (usual & ~canaries).any():
        usual &= ~canaries
    return float(retain.log_confidence[kept].mean() - unseen.log_confidence[usual].mean())
