"""Does a fail stand where something speaks against the references?

A fail says that the subject lies beyond the margin from the retrained models. Where these are not
what they should be, that alone is no evidence of retention.

incomparable   They were trained another way, so they may lie to either side of where models that
               the operator retrained would. Then the audit fails only if it does so without
               references as well, by forget against unseen examples on the subject alone.
flattering     They know the forget set, so that the zero lies too near the original, or the
               subject knows the unseen examples. Whoever still remembers more than they do
               remembers too much, and that stands. Too little, or a distance without direction,
               may be what an honest subject shows.

unlike         Forget and unseen examples differ for models that saw neither, or the subject knows
               the unseen ones. Then a fail without references does not stand.

What does not stand leaves the audit inconclusive and is told as the doubt that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from unaudit.doubts import Doubts
from unaudit.explain import FAMILY_WORDS, failure, index_text, reasons
from unaudit.judging import Judged, JudgedFamily
from unaudit.stats import ResidualIndex
from unaudit.verdict import Verdict


def upheld(verdict: Verdict, doubts: Doubts, tau: float, alone: Callable[[], Verdict]) -> Verdict:
    """The verdict, with a fail held back for which nothing but doubtful comparisons speaks.

    What fails without references is shown as it is without them. What no longer makes the audit
    fail is not marked as failing; its p-value stays.

    Args:
        verdict: as the rule has it.
        doubts: about what the subject was compared with.
        tau: margin on the residual index.
        alone: decides on the same measurements as if there were no references.
    """
    if verdict.outcome != "fail":
        return verdict
    if not any(judged.calibrated.mode == "retrained" for judged in verdict.probes):
        return verdict if doubts.unlike is None else _held_back(verdict, doubts.unlike, doubts, tau)
    doubt = doubts.incomparable
    if doubt is None and doubts.recipe_alone:
        doubt = _beyond_original(verdict)
    if doubt is not None:
        second = alone() if doubts.unlike is None else None
        if second is None or second.outcome != "fail":
            return _held_back(verdict, doubt, doubts, tau)
        return _failing_alone(verdict, second, doubt, doubts, tau)
    if doubts.flattering:
        return _remembering(verdict, doubts, tau)
    return verdict


def _beyond_original(verdict: Verdict) -> str | None:
    """Why the retrained models are no measure of a subject that is further from them than what
    never unlearned; None where it is not.

    That much cannot be left of the forget set. It is what other training looks like, beside an
    original and retrained models that share one recipe.
    """
    probes, families = _failing(verdict)
    found = [(j.calibrated.measurement.card.title, j.calibrated.index) for j in probes]
    found += [(f"{FAMILY_WORDS[family.family]} tests, pooled", family.index) for family in families]
    for name, index in found:
        if index is not None and index.low is not None and index.low > 1.0:
            return (
                "the subject is further from the retrained models than an original made from the "
                f"same recipe ({name}: residual index {index_text(index)}), so it seems to have "
                "been trained another way; --original settles it"
            )
    return None


def _held_back(verdict: Verdict, doubt: str, doubts: Doubts, tau: float) -> Verdict:
    found = failure(*_failing(verdict), tau, "found the subject beyond the margin")
    return replace(
        _marking(verdict, (), ()),
        outcome="inconclusive",
        headline=f"{found}, but {doubt}",
        caps=tuple(dict.fromkeys((doubt, *doubts.lines))),
        next_step=doubts.remedy,
    )


def _failing_alone(
    verdict: Verdict, second: Verdict, doubt: str, doubts: Doubts, tau: float
) -> Verdict:
    probes, families = _failing(second)
    own = {judged.calibrated.measurement.card.name: judged for judged in probes}
    shared = {family.family: family for family in families}
    still = _marking(verdict, (), ())
    without = "without references"
    return replace(
        verdict,
        probes=tuple(own.get(j.calibrated.measurement.card.name, j) for j in still.probes),
        families=tuple(shared.get(family.family, family) for family in still.families),
        headline=failure(probes, families, tau, f"can still tell the forget set apart, {without}"),
        upper_bound=second.upper_bound,
        reasons=(
            "the references are in doubt; by forget against unseen examples on the subject alone "
            f"the audit fails {without} as well",
            *(f"{without}: {reason}" for reason in second.reasons),
        ),
        caps=tuple(dict.fromkeys((doubt, *doubts.lines))),
    )


def _remembering(verdict: Verdict, doubts: Doubts, tau: float) -> Verdict:
    """Fails by what says that the subject remembers more than the references do, if anything does.

    A pool that holds distances has no direction either.
    """
    probes, families = _failing(verdict)
    directionless = {
        judged.calibrated.family
        for judged in verdict.probes
        if judged.calibrated.informative and judged.calibrated.measurement.card.unsigned
    }
    probes = [
        judged
        for judged in probes
        if _above(judged.calibrated.index) and not judged.calibrated.measurement.card.unsigned
    ]
    families = [f for f in families if _above(f.index) and f.family not in directionless]
    if not probes and not families:
        return _held_back(verdict, doubts.flattering[0], doubts, tau)
    marked = _marking(verdict, probes, families)
    return replace(
        marked,
        headline=failure(probes, families, tau),
        reasons=(
            *(
                f"{doubt}; the subject would look worse beside others"
                for doubt in doubts.flattering
            ),
            *reasons(probes, marked.families, tau),
        ),
    )


def _failing(verdict: Verdict) -> tuple[list[Judged], list[JudgedFamily]]:
    return (
        [judged for judged in verdict.probes if judged.fails],
        [family for family in verdict.families if family.fails],
    )


def _marking(
    verdict: Verdict, probes: Sequence[Judged], families: Sequence[JudgedFamily]
) -> Verdict:
    """No more than these are marked as failing."""
    return replace(
        verdict,
        probes=tuple(replace(j, fails=j.fails and j in probes) for j in verdict.probes),
        families=tuple(replace(f, fails=f.fails and f in families) for f in verdict.families),
    )


def _above(index: ResidualIndex | None) -> bool:
    return index is not None and index.estimate > 0.0
