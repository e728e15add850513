"""Histograms of scores and ROC curves, with the numbers behind them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from unaudit.report.nouns import nouns_of
from unaudit.report.record import Histogram, Record, Roc
from unaudit.report.shadows import variants
from unaudit.report.svg import Drawing, Figure, Scale, ticks
from unaudit.report.text import count, interval, level, percent, sentence, significant
from unaudit.text import shorten

WIDTH = 350.0
LEFT, RIGHT = 42.0, 334.0
TABLE_ROWS = 8
"""Longer tables are thinned out; the record keeps every value."""


def histograms(record: Record) -> list[Figure]:
    """Scores of the subject on forget, unseen and retain examples, one figure per probe."""
    run, many = variants(record), nouns_of(record).many
    return [
        _histogram(histogram, position, run.get(histogram.probe, ""), many)
        for position, histogram in enumerate(record.calibration.histograms)
        if _drawable(histogram)
    ]


def _drawable(histogram: Histogram) -> bool:
    edges = histogram.edges
    rising = all(a < b for a, b in itertools.pairwise(edges))
    return (
        len(edges) == len(histogram.forget) + 1 > 1
        and rising
        and math.isfinite(edges[-1] - edges[0])
    )


def _series(histogram: Histogram) -> list[tuple[str, Sequence[int]]]:
    named = (
        ("forget", histogram.forget),
        ("unseen", histogram.unseen),
        ("retain", histogram.retain),
    )
    return [(name, counts) for name, counts in named if counts is not None and sum(counts) > 0]


def _histogram(histogram: Histogram, position: int, variant: str, many: str) -> Figure:
    series = _series(histogram)
    shares = {name: [c / sum(counts) for c in counts] for name, counts in series}
    top = max((max(values) for values in shares.values()), default=1.0)
    drawing = Drawing(
        f"histogram-{position}",
        WIDTH,
        224,
        f"Scores of {histogram.title}",
        f"Share of {many} by score, in {histogram.unit}. "
        + "; ".join(f"{name}: {sum(counts):,} {many}" for name, counts in series),
        size=11,
    )
    x = Scale(histogram.edges[0], histogram.edges[-1], LEFT, RIGHT)
    y = Scale(0.0, top * 1.06, 178, 34)
    for value in ticks(0.0, top * 1.06, 3):
        drawing.line("grid", LEFT, y(value), RIGHT, y(value))
        drawing.text(
            "muted", LEFT - 6, y(value) + 3.5, f"{100 * value:.4g}%", anchor="end", size=10
        )
    for name, values in shares.items():
        outline = _steps(histogram.edges, values, x, y)
        if name == "forget":
            drawing.path("forget-fill", outline, closed=True)
        drawing.path(name, outline)
    drawing.line("axis", LEFT, y(0), RIGHT, y(0))
    for value in ticks(x.start, x.end, 5):
        drawing.line("axis", x(value), y(0), x(value), y(0) + 4)
        drawing.text("muted", x(value), y(0) + 16, _short(value), anchor="middle", size=10)
    unit = shorten(histogram.unit, 56)
    drawing.text("muted", (LEFT + RIGHT) / 2, 214, unit, anchor="middle", size=10.5)
    for place, (name, counts) in enumerate(series):
        start = LEFT + place * 102
        drawing.line(name, start, 12, start + 22, 12)
        drawing.text("ink", start + 27, 16, f"{name} {sum(counts):,}", size=11)
    joined, rows = _bin_table(histogram, [name for name, _ in series])
    return Figure(
        drawing.name,
        histogram.title,
        sentence(variant) if variant else "",
        drawing.markup(),
        None,
        ("Score from – to", *(name for name, _ in series)),
        rows,
        f"Groups of {joined} neighboring bins are joined; record.json has each."
        if joined > 1
        else "",
    )


def _steps(
    edges: Sequence[float], values: Sequence[float], x: Scale, y: Scale
) -> list[tuple[float, float]]:
    points = [(x(edges[0]), y(0))]
    for (left, right), value in zip(itertools.pairwise(edges), values, strict=True):
        points += [(x(left), y(value)), (x(right), y(value))]
    return [*points, (x(edges[-1]), y(0))]


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _bin_table(
    histogram: Histogram, names: Sequence[str]
) -> tuple[int, tuple[tuple[str, ...], ...]]:
    bins = len(histogram.forget)
    joined = math.ceil(bins / TABLE_ROWS)
    rows = []
    for start in range(0, bins, joined):
        end = min(start + joined, bins)
        span = f"{significant(histogram.edges[start])} – {significant(histogram.edges[end])}"
        rows.append((span, *(count(sum(getattr(histogram, n)[start:end])) for n in names)))
    return joined, tuple(rows)


def rocs(record: Record) -> list[Figure]:
    """Forget against unseen on logarithmic axes, where low false-positive rates can be read."""
    run = variants(record)
    return [
        _roc(roc, position, run.get(roc.probe, ""))
        for position, roc in enumerate(record.calibration.rocs)
        if roc.positives > 0
        and roc.negatives > 0
        and len(roc.fpr) == len(roc.tpr) == len(roc.band_low) == len(roc.band_high)
    ]


def _roc(roc: Roc, position: int, variant: str) -> Figure:
    floor, lift = 1 / roc.negatives, 1 / roc.positives
    # a whole decade, at least one and at most four below 100 %
    start = 10.0 ** min(-1, max(-4, math.floor(math.log10(min(floor, lift)))))
    drawing = Drawing(
        f"roc-{position}",
        WIDTH,
        300,
        f"ROC of {roc.title}",
        f"True-positive against false-positive rate, both logarithmic. AUC {interval(roc.auc)}. "
        f"Nothing is drawn below a false-positive rate of 1/{roc.negatives:,}.",
        size=11,
    )
    x = Scale(start, 1.0, LEFT, RIGHT, logarithmic=True)
    y = Scale(start, 1.0, 256, 14, logarithmic=True)
    if floor > start:
        drawing.rect("floor", x.low, y.high, x(floor) - x.low, y.low - y.high)
    kept = [index for index, rate in enumerate(roc.fpr) if rate >= floor * (1 - 1e-9)]
    if kept:
        upper = _spaced([(x(roc.fpr[i]), y(roc.band_high[i])) for i in kept])
        lower = _spaced([(x(roc.fpr[i]), y(roc.band_low[i])) for i in kept])
        drawing.path("band", [*upper, *reversed(lower)], closed=True)
    for exponent in range(round(math.log10(start)), 1):
        rate = 10.0**exponent
        drawing.line("grid", x(rate), y.low, x(rate), y.high)
        drawing.line("grid", x.low, y(rate), x.high, y(rate))
        name = f"{100 * rate:g}%"
        drawing.text("muted", x(rate), y.low + 16, name, anchor="middle", size=10)
        drawing.text("muted", x.low - 6, y(rate) + 3.5, name, anchor="end", size=10)
    drawing.line("chance", x(start), y(start), x(1), y(1))
    if kept:
        drawing.path("curve", _spaced([(x(roc.fpr[i]), y(roc.tpr[i])) for i in kept]))
    for point in roc.points:
        drawing.line("curve", x(point.fpr), y(point.low), x(point.fpr), y(point.high))
        if point.tpr >= start:
            drawing.circle("mark-retrained", x(point.fpr), y(point.tpr), 3.4)
        else:  # a rate of 0 is nowhere on a logarithmic axis
            foot = [(x(point.fpr) + side, y.low - 6) for side in (-4, 4)]
            drawing.path("mark-retrained", [*foot, (x(point.fpr), y.low)], closed=True)
    drawing.line("axis", x.low, y.low, x.high, y.low)
    drawing.line("axis", x.low, y.low, x.low, y.high)
    if floor > start:
        drawing.line("margin", x(floor), y.high, x(floor), y.low)
        label = f"1/{roc.negatives:,}"
        drawing.text("muted", x(floor), y.high - 4, label, anchor="middle", size=10)
    middle = (LEFT + RIGHT) / 2
    drawing.text(
        "muted",
        middle,
        290,
        "false-positive rate (unseen taken for forget)",
        anchor="middle",
        size=10.5,
    )
    rows = tuple(
        (percent(roc.fpr[i], 2), percent(roc.tpr[i], 2), _band(roc, i)) for i in _thinned(roc, kept)
    )
    return Figure(
        drawing.name,
        roc.title,
        f"AUC {interval(roc.auc)} at {level(roc.auc.level)}; {roc.positives:,} forget against "
        f"{roc.negatives:,} unseen.{f' {sentence(variant)}' if variant else ''}",
        drawing.markup(),
        None,
        ("False-positive rate", "True-positive rate", "Band"),
        rows,
        "Selected points; record.json has each." if len(rows) < len(kept) else "",
    )


def _spaced(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without points that lie within a pixel of the last one kept; the ends stay."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= 1:
            kept.append((x, y))
    return [*kept, *points[1:][-1:]]


def _band(roc: Roc, index: int) -> str:
    return f"{percent(roc.band_low[index], 1)} – {percent(roc.band_high[index], 1)}"


def _thinned(roc: Roc, kept: Sequence[int]) -> list[int]:
    """Up to :data:`TABLE_ROWS` points, evenly spaced on the logarithmic axis."""
    if len(kept) <= TABLE_ROWS:
        return list(kept)
    start = math.log10(roc.fpr[kept[0]])
    chosen = []
    for step in range(TABLE_ROWS):
        wanted = start * (1 - step / (TABLE_ROWS - 1))
        chosen.append(min(kept, key=lambda i: abs(math.log10(roc.fpr[i]) - wanted)))
    return sorted(set(chosen))
