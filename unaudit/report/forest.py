"""Forest plot of residual indices: every probe and every family on one axis.

0 is a retrained model, 1 the original; the shaded zone is ±τ. Small ticks are the single retrained
models on the same axis, so that a reader sees how much of a distance is ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from markupsafe import Markup

from unaudit.evidence import FAMILIES
from unaudit.report.forest_rows import BOTTOM, NARROW, TOP, WIDE, Layout, Row, draw_rows
from unaudit.report.record import Finding, ProbeControl, Record
from unaudit.report.svg import Drawing, Figure, Scale
from unaudit.report.text import interval, number
from unaudit.report.wording import FAMILY_TITLES, Reading, reading, unsigned_probes
from unaudit.text import shorten

MOST_ROWS = 18
"""Of one picture, unless one family alone has more."""
LEAST, MOST = -1.25, 2.0
"""The axis never reaches further; what lies beyond ends in an arrow head."""

_NOT_POOLED = Reading("not pooled", "", "hollow", "the verdict does not rest on this family")


def forest(record: Record) -> Figure:
    """Every finding, grouped by family, failures first."""
    groups = _groups(record)
    return _figure(
        record,
        "forest",
        "Residual index of every probe",
        "Where the subject stands between retrained models (0) and the original (1), with "
        f"{_level(record)} intervals. Shaded: within ±τ of a retrained model. Short ticks: the "
        "single retrained models. Arrow heads: the interval goes on beyond the axis.",
        groups,
    )


def glance(record: Record) -> Figure:
    """The pooled residual index of each family."""
    groups = [
        [row for row in group if row.pooled]
        for group in _groups(record)
        if group[0].reading is not _NOT_POOLED
    ]
    return _figure(
        record,
        "glance",
        "Pooled residual index by family",
        "Each diamond spans the interval of a family's pooled residual index: 0 is a retrained "
        "model, 1 the original, shaded is the zone within ±τ.",
        groups,
    )


def _level(record: Record) -> str:
    return f"{100 * (1 - 2 * record.plan.policy.alpha):.4g}%"


def by_severity(finding: Finding) -> tuple[bool, bool, int, float]:
    """Sort key: failures, then what counts, then by outcome, then by estimate downwards."""
    order = ("residual", "over-unlearned", "inconclusive", "like-retrained", "not-informative")
    estimate = finding.residual_index.estimate if finding.residual_index else float("-inf")
    return (not finding.fails, not finding.counted, order.index(finding.outcome), -estimate)


def _groups(record: Record) -> list[list[Row]]:
    unsigned = unsigned_probes(record)
    controls = {control.probe: control for control in record.calibration.probes}
    groups: list[list[Row]] = []
    for family in FAMILIES:
        rows = [
            Row(
                FAMILY_TITLES[family],
                pooled.pooled,
                reading(pooled.outcome),
                pooled.pooled is not None,
                pooled.fails,
                pooled=True,
            )
            for pooled in record.families
            if pooled.family == family
        ]
        findings = sorted((f for f in record.findings if f.family == family), key=by_severity)
        if findings and not rows:
            rows = [Row(FAMILY_TITLES[family], None, _NOT_POOLED, False, pooled=True)]
        rows += [
            Row(
                shorten(finding.title, 28),
                finding.residual_index,
                reading(finding.outcome, unsigned=finding.probe in unsigned),
                finding.counted,
                finding.fails,
                models=_model_indices(controls.get(finding.probe)),
            )
            for finding in findings
        ]
        if rows:
            groups.append(rows)
    return groups


def _model_indices(control: ProbeControl | None) -> tuple[float, ...]:
    if control is None or control.mode != "retrained" or control.original is None:
        return ()
    center = fmean(control.retrained) if control.retrained else 0.0
    span = control.original - center
    return tuple((m - center) / span for m in control.retrained) if span else ()


def _figure(
    record: Record, name: str, title: str, caption: str, groups: Sequence[Sequence[Row]]
) -> Figure:
    tau = record.plan.policy.tau
    rows = [row for group in groups for row in group]
    start, end = _range(rows, tau)
    parts = _parts(groups)

    def markup(kind: str, suffix: str, layout: Layout) -> Markup:
        x = Scale(start, end, layout.left, layout.right)
        drawings = []
        for place, part in enumerate(parts, 1):
            drawing = Drawing(
                f"{name}{f'-{place}' if place > 1 else ''}{suffix}",
                layout.width,
                TOP + BOTTOM + sum(map(len, part)) * layout.step + 8 * len(part),
                f"{title}, part {place} of {len(parts)}" if len(parts) > 1 else title,
                _describe([row for group in part for row in group], tau),
            )
            draw_rows(drawing, part, layout, x, tau)
            drawings.append(drawing.markup(kind))
        return Markup("\n").join(drawings)

    return Figure(
        name,
        title,
        caption,
        wide=markup("wide", "", WIDE),
        narrow=markup("narrow", "-narrow", NARROW),
        head=("Probe or family", "Residual index", "Low", "High", "Retrained models", "Reading"),
        rows=tuple(_table_row(row) for row in rows),
    )


def _parts(groups: Sequence[Sequence[Row]]) -> list[list[Sequence[Row]]]:
    """Whole families, in pictures that leave room on a page for what is around them."""
    parts: list[list[Sequence[Row]]] = [[]]
    for group in groups:
        if parts[-1] and sum(map(len, parts[-1])) + len(group) > MOST_ROWS:
            parts.append([])
        parts[-1].append(group)
    return parts


def _describe(rows: Sequence[Row], tau: float) -> str:
    said = "; ".join(
        f"{row.label}: {interval(row.index)}, {row.reading.word}" for row in rows if row.index
    )
    return f"Zone of retrained models: ±{number(tau)}. {said or 'No residual index was estimated.'}"


def _table_row(row: Row) -> tuple[str, ...]:
    index = row.index
    spread = f"{number(min(row.models))} … {number(max(row.models))}" if row.models else "–"
    name = f"{row.label}, pooled" if row.pooled else row.label
    if index is None:
        return (name, "–", "–", "–", spread, row.reading.word)
    low = "−∞" if index.low is None else number(index.low)
    high = "∞" if index.high is None else number(index.high)
    return (name, number(index.estimate), low, high, spread, row.reading.word)


def _range(rows: Sequence[Row], tau: float) -> tuple[float, float]:
    values = [-tau - 0.1, -0.3, tau + 0.15, 1.2]
    for row in rows:
        if row.index is not None and row.counted:
            ends = (row.index.low, row.index.estimate, row.index.high)
            values += [end for end in ends if end is not None]
    return max(LEAST, min(values) - 0.05), min(MOST, max(values) + 0.05)
