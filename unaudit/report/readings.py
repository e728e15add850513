"""What a picture of the model's inside shows, in one sentence drawn from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from unaudit.report.nouns import nouns_of
from unaudit.report.record import Curves, Record, Role
from unaudit.report.text import significant

CLEAR = 2.0
"""How many times nearer the subject must be to one side than to the other to follow it, and how
many times their own spread the retrained models must be from the original to be told from it."""

CAPTIONS: Mapping[str, str] = {
    "idi": "What each layer tells of whether an example belongs to the forget set.",
    "cka": (
        "How alike a layer arranges the forget examples as the retrained models do: 1 is the same "
        "up to rotation and scale, 0 is unrelated. Each retrained model is held against the others."
    ),
    "relearn": "A copy of each model is trained on forget and retain examples.",
    "relearn-fresh-head": (
        "The same after the last layer was set to zero, so that only the encoder gives a lead."
    ),
}
"""By probe."""


def curve_caption(probe: str, record: Record) -> str:
    """What the curves of one probe are."""
    if probe == "idi" and record.request.scenario == "sample":
        said = "What each layer tells of the class of a forget example."
    else:
        said = CAPTIONS.get(probe, "")
    return nouns_of(record).say(said)


def curve_reading(item: Curves) -> str:
    """Whose curve the subject's follows, by mean distances over the layers or steps."""
    subject = _mean(item, "subject")
    original, retrained = _mean(item, "original"), _mean(item, "retrained")
    if subject is None:
        return ""
    if original is None or retrained is None:
        other = original or retrained
        if other is None:
            return "There is no other model to hold it against."
        name = "the original's" if original else "the retrained models' mean"
        return f"The subject's curve lies {_said(_apart(subject, other), item.unit)} from {name}."
    to_original, to_retrained = _apart(subject, original), _apart(subject, retrained)
    spread = _spread(item)
    said = (
        f"mean distance {_said(to_original, item.unit)} to the original's and "
        f"{_said(to_retrained, item.unit)} to the mean of the retrained models'"
    )
    if spread is not None:
        said += f"; each of these lies {_said(spread, item.unit)} from the others on average"
        if _apart(original, retrained) < CLEAR * spread:
            return f"The original's curve hardly stands out from the retrained models': {said}."
    if CLEAR * to_original <= to_retrained:
        place = "follows the original's"
    elif CLEAR * to_retrained <= to_original:
        place = "follows the retrained models'"
        if spread is not None and to_retrained > CLEAR * spread:
            place = "is nearer to the retrained models' than to the original's, yet not among them"
    else:
        low, high = sorted((fmean(original), fmean(retrained)))
        between = low <= fmean(subject) <= high
        place = f"lies {'between' if between else 'apart from'} the original's and the retrained "
        place += "models'"
    return f"The subject's curve {place}: {said}."


def _curves(item: Curves, role: Role) -> list[tuple[float, ...]]:
    return [curve.y for curve in item.series if curve.role == role]


def _mean(item: Curves, role: Role) -> tuple[float, ...] | None:
    found = _curves(item, role)
    return tuple(map(fmean, zip(*found, strict=True))) if found else None


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def _spread(item: Curves) -> float | None:
    """Mean distance of a retrained model's curve from the mean of the others."""
    found = _curves(item, "retrained")
    if len(found) < 2:
        return None
    others = (
        tuple(map(fmean, zip(*(found[:at] + found[at + 1 :]), strict=True)))
        for at in range(len(found))
    )
    return fmean(_apart(curve, rest) for curve, rest in zip(found, others, strict=True))


def _said(distance: float, unit: str) -> str:
    return f"{significant(distance, 2)} {unit}".strip()
