"""What a retrained model would still get right, as estimated without one, in words."""

from __future__ import annotations

from dataclasses import dataclass

from unaudit.report.nouns import nouns_of
from unaudit.report.record import Record, RetrainedEstimate, Role
from unaudit.report.text import count, number, percent

FAR = 2.0
"""Standard errors from which the estimate counts as off."""


@dataclass(frozen=True)
class Estimate:
    """What the report shows of the estimate."""

    sentences: str
    rows: tuple[tuple[str, str, str], ...]
    """Forget accuracies side by side: whose, how sure, and how high."""
    note: str
    """What the estimate rests on."""
    line: str
    """For a terminal."""


def estimate(record: Record) -> Estimate | None:
    """None where there is no estimate."""
    found = record.retrained_estimate
    if found is None or found.value is None or found.stderr is None:
        return None
    spread = f"{number(100 * found.stderr, 1)} points"
    subject, original = _accuracy(record, "subject"), _accuracy(record, "original")
    rows = [("A retrained model, estimated", f"± {spread}", percent(found.value))]
    if found.truth is not None:
        name = f"Retrained models, mean of {found.retrained}"
        rows.append((name if found.retrained > 1 else "Retrained model", "", percent(found.truth)))
    rows += [
        (name, "", percent(value))
        for name, value in (("Subject", subject), ("Original", original))
        if value is not None
    ]
    say = nouns_of(record).say
    against = "" if subject is None else f"; the subject's is {percent(subject)}"
    return Estimate(
        sentences=say(_sentences(record, found)),
        rows=tuple(rows),
        note=say(_note(record, found)),
        line=f"{percent(found.value)} ± {spread}{against}. It decides nothing",
    )


def _accuracy(record: Record, role: Role) -> float | None:
    """On the forget set, of the only model of that role."""
    return next((row.forget for row in record.controls.accuracy if row.role == role), None)


def _sentences(record: Record, found: RetrainedEstimate) -> str:
    first = (
        f"A model trained without the forget set should get {percent(found.value)} of it right, to "
        "judge from the original and the validation examples alone."
    )
    last = "The verdict does not rest on this estimate."
    return " ".join(filter(None, (first, _comparison(record, found), last)))


def _comparison(record: Record, found: RetrainedEstimate) -> str:
    """With models that were retrained."""
    if found.truth is None or found.value is None or found.stderr is None:
        return ""
    models = (
        f"The {found.retrained} retrained models get"
        if found.retrained > 1
        else "The one retrained model gets"
    )
    gap = found.value - found.truth
    points = number(100 * abs(gap), 1)
    if points == "0.0":
        return f"{models} just as much right."
    size = f"{points} points {'less' if gap > 0 else 'more'}"
    if abs(gap) <= FAR * found.stderr:
        return f"{models} {size}, within two standard errors."
    # models from a recipe that is not the original's are no better a guess
    doubtful = record.fidelity is not None and not record.fidelity.ok
    advice = "" if doubtful else "; believe what was retrained"
    return f"{models} {size}, more than two standard errors away{advice}."


def _note(record: Record, found: RetrainedEstimate) -> str:
    parts = [
        f"Method: {found.method}. ± is one standard error. It rests on {count(found.validation)} "
        f"validation examples, which count as {number(found.examples, 0)} in the class mix of the "
        f"forget set; in cross-validation, {percent(found.error)} of them are foretold wrongly."
    ]
    if record.request.scenario == "partial-class":
        parts.append(
            "A retrained model has fewer examples of the class than the original had; where a good "
            "part of it goes, the estimate is too high."
        )
    if not found.recipe_given:
        parts.append(
            "How the original was trained was not said; what is usual for such a network was "
            "assumed."
        )
    return " ".join(parts)
