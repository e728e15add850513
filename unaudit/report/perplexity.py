"""The perplexities of language models as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from unaudit.report.language import SPLITS, Split, first, perplexity, side_by_side, span, values
from unaudit.report.record import ModelPerplexity, Record, Role
from unaudit.report.svg import Drawing, Figure, Scale, ticks
from unaudit.report.text import significant

WIDTH = 350.0
LEFT, RIGHT, TOP, STEP = 58.0, 332.0, 34.0, 30.0
DRAWN: tuple[Role, ...] = ("subject", "original", "retrained")
MOST_TICKS = 6

Lines = Sequence[ModelPerplexity]


def perplexities(record: Record) -> Figure | None:
    """The subject on each split, beside the original and the range of the retrained models."""
    lines = () if record.language is None else record.language.perplexity
    splits = [split for split in SPLITS if values(lines, "subject", split)]
    found = [value for role in DRAWN for split in splits for value in values(lines, role, split)]
    if not found:
        return None
    floor = TOP + STEP * len(splits)
    drawing = Drawing(
        "perplexity",
        WIDTH,
        floor + 40,
        "Perplexity",
        "; ".join(side_by_side(lines, split) for split in splits),
        size=11,
    )
    room = min(10.0, max(1.02, (max(found) / min(found)) ** 0.06))
    x = Scale(max(1.0, min(found) / room), max(found) * room, LEFT, RIGHT, logarithmic=True)
    for value in _round_numbers(x.start, x.end):
        drawing.line("grid", x(value), TOP - 4, x(value), floor)
        drawing.text("muted", x(value), floor + 16, _tick(value), anchor="middle", size=10)
    for place, split in enumerate(splits):
        y = TOP + STEP * (place + 0.5)
        drawing.text("ink", LEFT - 8, y + 4, split, anchor="end", size=10.5)
        _draw_split(drawing, lines, split, x, y)
    drawing.line("axis", LEFT, floor, RIGHT, floor)
    _draw_legend(drawing, lines)
    drawing.text("muted", (LEFT + RIGHT) / 2, floor + 34, "perplexity", anchor="middle", size=10.5)
    return Figure(
        drawing.name,
        "Perplexity by split",
        "",
        drawing.markup(),
        None,
        ("Texts", "Subject", "Original", "Retrained, mean", "Range"),
        tuple(_numbers(lines, split) for split in splits),
        reading=_reading(lines),
    )


def _draw_split(drawing: Drawing, lines: Lines, split: Split, x: Scale, y: float) -> None:
    if retrained := values(lines, "retrained", split):
        _mark(drawing, "retrained", x(fmean(retrained)), y, x(min(retrained)), x(max(retrained)))
    for value in values(lines, "original", split):
        _mark(drawing, "original", x(value), y)
    for value in values(lines, "subject", split):
        _mark(drawing, "subject", x(value), y)


def _mark(
    drawing: Drawing,
    role: Role,
    x: float,
    y: float,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """The marks of curves, by role; of retrained models also where their range ends."""
    if role == "subject":
        corners = [(x, y - 4.5), (x + 4.6, y + 3.5), (x - 4.6, y + 3.5)]
        drawing.path("mark-forget", corners, closed=True)
    elif role == "original":
        sides = ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5))
        drawing.path("mark-original", [(x + side, y + up) for side, up in sides], closed=True)
    else:
        if low is not None and high is not None and low < high:
            drawing.line("curve", low, y, high, y)
            for end in (low, high):
                drawing.line("curve", end, y - 4, end, y + 4)
        drawing.circle("mark-retrained", x, y, 4)


def _draw_legend(drawing: Drawing, lines: Lines) -> None:
    at = 12.0
    for role in DRAWN:
        own = values(lines, role, "forget")
        if not own:
            continue
        several = role == "retrained" and len(own) > 1
        _mark(drawing, role, at, 12, *((at - 10, at + 10) if several else ()))
        drawing.text("ink", at + (16 if several else 10), 16, role, size=11)
        if several:
            drawing.text("muted", at + 72, 16, "mean and range", size=11)
        at += 84


def _round_numbers(start: float, end: float) -> list[float]:
    """1, 2 and 5 of every decade; powers of ten where these are many, multiples of a round number
    where they are few."""
    powers = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    found = [value for value in found if start <= value <= end]
    if len(found) < 3:
        return ticks(start, end, 4)
    if len(found) <= MOST_TICKS:
        return found
    tens = [10.0**power for power in powers if start <= 10.0**power <= end]
    return tens[:: math.ceil(len(tens) / MOST_TICKS)]


def _tick(value: float) -> str:
    return f"{value:,.4g}" if value < 1e5 else significant(value, 1)


def _numbers(lines: Lines, split: Split) -> tuple[str, ...]:
    retrained = values(lines, "retrained", split)
    return (
        split,
        perplexity(first(values(lines, "subject", split))),
        perplexity(first(values(lines, "original", split))),
        perplexity(fmean(retrained) if retrained else None),
        span(retrained, perplexity) if retrained else "–",
    )


def _reading(lines: Lines) -> str:
    """Where the subject lies on forget texts."""
    subject = first(values(lines, "subject", "forget"))
    retrained = values(lines, "retrained", "forget")
    if subject is None or not retrained:
        return ""
    low, high = min(retrained), max(retrained)
    place = "below" if subject < low else "above" if subject > high else "within"
    models = "the retrained models'" if len(retrained) > 1 else "the retrained model's"
    said = f"On forget texts the subject's is {perplexity(subject)}, {place} {models} "
    if len(retrained) == 1 and place == "within":
        said = f"On forget texts the subject's is as {models}, "
    original = first(values(lines, "original", "forget"))
    also = "" if original is None else f"; the original's is {perplexity(original)}"
    return f"{said}{span(retrained, perplexity)}{also}."
