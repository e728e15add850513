"""A verdict in words: the headline, the reasons, what is missing, what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unaudit.stats import ResidualIndex

if TYPE_CHECKING:
    from unaudit.case import Case
    from unaudit.evidence import Access, Outcome
    from unaudit.judging import Judged, JudgedFamily

FAMILY_WORDS = {
    "membership": "membership",
    "output-distance": "output distance",
    "representation": "representation",
    "recoverability": "recoverability",
    "utility": "utility",
}
HAND_IN_ORIGINAL = "hand in the original model with --original"
HAND_IN_RETRAINED = (
    "hand in retrained models that nothing speaks against: trained apart, as the original was, "
    "without the forget set"
)


def headline(
    outcome: Outcome,
    failing: Sequence[Judged],
    failing_families: Sequence[JudgedFamily],
    holding: Sequence[JudgedFamily],
    upper: float | None,
    alpha: float,
    tau: float,
    doubts: Sequence[str] = (),
) -> str:
    """One sentence with the figure that decided, or the first doubt where one did."""
    if outcome == "fail":
        return failure(failing, failing_families, tau)
    bound = (
        f"residual influence at most {max(upper, 0.0):.0%} of the original's "
        f"({1 - alpha:.0%} confidence)"
        if upper is not None
        else "residual influence could not be bounded"
    )
    if outcome == "pass":
        return f"these tests, at these settings, found {bound}"
    if not holding and doubts:
        return f"{bound}, but {doubts[0]}"
    if not holding:
        return f"{bound}, but black-box evidence alone is not accepted by the policy"
    return f"{bound}; undecided: {', '.join(FAMILY_WORDS[family.family] for family in holding)}"


def reasons(
    failing: Sequence[Judged], families: Sequence[JudgedFamily], tau: float
) -> tuple[str, ...]:
    """One sentence per failing probe and per required family."""
    return (
        *(_why_failing(judged) for judged in failing),
        *(_where_family_lies(family, tau) for family in families if family.required),
    )


def missing_inputs(case: Case) -> tuple[str, ...]:
    """What was not handed in and would have made the audit stronger."""
    missing = []
    if case.original is None:
        missing.append("the original model (--original): no positive control from references")
    if len(case.retrained) < 2:
        count = "no retrained model" if not case.retrained else "only one retrained model"
        missing.append(f"{count} (--retrained, several): what forgetting looks like is not known")
    if "unseen" not in case.splits:
        missing.append("unseen examples (--unseen): no non-members to compare with")
    return tuple(missing)


def next_step(
    holding: Sequence[JudgedFamily],
    case: Case,
    access: Access,
    doubts: Sequence[str],
    remedy: str | None = None,
) -> str:
    """The cheapest step that could turn an inconclusive audit into a decision: where the references
    are in doubt, their ``remedy``, for more of the same would not help."""
    if case.original is None:
        return HAND_IN_ORIGINAL
    if len(case.retrained) < 2:
        return "hand in at least two retrained models with --retrained; five or more narrow it"
    if "unseen" not in case.splits:
        return "hand in examples that no model was trained on with --unseen"
    if remedy is not None:
        return remedy
    blind = [family.family for family in holding if not family.informative]
    if blind:
        ways = ["white-box access"] if access == "black-box" else []
        if case.shadows is None and blind[0] in ("membership", "output-distance"):
            ways.append("shadow models")
        others = f", or probes that can ({', '.join(ways)})" if ways else ""
        return (
            f"no probe of the {FAMILY_WORDS[blind[0]]} family can tell the original from the "
            f"retrained models here; add retrained models{others}"
        )
    if holding:
        return (
            f"add retrained models: with {len(case.retrained)} of them the interval is wider than "
            "the margin"
        )
    if doubts:
        return HAND_IN_RETRAINED
    if access == "black-box":
        return (
            "grant white-box access, or accept black-box evidence explicitly "
            "with policy.accept_black_box = true"
        )
    return "add retrained models with --retrained"


def index_text(index: ResidualIndex | None) -> str:
    """``0.31 [−0.05, 0.67]``; an end that the data do not bound is ∞."""
    if index is None or not math.isfinite(index.estimate):
        return "undefined"
    low = "−∞" if index.low is None else _hundredths(index.low)
    high = "∞" if index.high is None else _hundredths(index.high)
    return f"{_hundredths(index.estimate)} [{low}, {high}]"


def _hundredths(value: float) -> str:
    """With a minus sign, but not before 0."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def failure(
    failing: Sequence[Judged],
    failing_families: Sequence[JudgedFamily],
    tau: float,
    claim: str = "can still tell the forget set apart",
) -> str:
    """What failed and by how much; ``claim`` is what the tests are said to have shown."""
    if not failing:
        worst = min(failing_families, key=lambda family: family.p_adjusted or 0.0)
        return (
            f"taken together, the {FAMILY_WORDS[worst.family]} tests {claim} "
            f"(pooled residual index {index_text(worst.index)}, margin {tau:g})"
        )
    clearest = min(failing, key=lambda judged: judged.p_adjusted or 0.0).calibrated
    count = "1 test" if len(failing) == 1 else f"{len(failing)} tests"
    which = "it is" if len(failing) == 1 else "the clearest is"
    return (
        f"{count} {claim}; {which} {clearest.measurement.card.title} "
        f"(residual index {index_text(clearest.index)}, margin {tau:g})"
    )


def _why_failing(judged: Judged) -> str:
    card = judged.calibrated.measurement.card
    index = judged.calibrated.index
    over = index is not None and index.estimate < 0
    what = "too different from never-seen" if over else "like the original"
    if card.unsigned:
        what = "different from retrained"
    return (
        f"{card.title}: {what}, residual index {index_text(index)} "
        f"(adjusted p {judged.p_adjusted:.2g})"
    )


def _where_family_lies(family: JudgedFamily, tau: float) -> str:
    name = FAMILY_WORDS[family.family]
    if not family.informative:
        return f"{name}: no probe of this family can see on this data"
    adjusted = f" (adjusted p {family.p_adjusted:.2g})" if family.fails else ""
    if not family.fails and family.blocked is not None:
        adjusted = f"; no pass: {family.blocked}"
    return (
        f"{name}: pooled residual index {index_text(family.index)}, "
        f"{family.outcome.replace('-', ' ')} at margin {tau:g}{adjusted}"
    )
