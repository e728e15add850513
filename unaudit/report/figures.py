"""The figures of a report: each an SVG, a caption and the numbers behind it as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unaudit.report import (
    classes,
    curves,
    distributions,
    forest,
    heatmap,
    perplexity,
    projection,
)
from unaudit.report.record import Record
from unaudit.report.svg import Figure


@dataclass(frozen=True)
class Figures:
    """All figures of one record."""

    glance: Figure
    forest: Figure
    histograms: Sequence[Figure]
    rocs: Sequence[Figure]
    classes: Figure | None
    curves: Sequence[Figure]
    projection: Figure | None
    matrix: Sequence[Figure]
    perplexity: Figure | None


def draw(record: Record) -> Figures:
    """Draw everything that the record holds; expects a record made ``printable``."""
    return Figures(
        glance=forest.glance(record),
        forest=forest.forest(record),
        histograms=distributions.histograms(record),
        rocs=distributions.rocs(record),
        classes=classes.classes(record),
        curves=curves.curves(record),
        projection=projection.projection(record),
        matrix=heatmap.heatmaps(record),
        perplexity=perplexity.perplexities(record),
    )
