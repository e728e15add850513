"""The matrix of residual indices as a table to paste or to compute with: Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from unaudit.errors import InputError
from unaudit.report.language import SPLITS, Split, accuracy, perplexity
from unaudit.report.record import Accuracy, Matrix, MatrixCell, ModelPerplexity, Record
from unaudit.report.shadows import variants
from unaudit.report.text import bounds, level, number, percent, printable, sentence
from unaudit.report.wording import READINGS, reading, unsigned_probes


@dataclass(frozen=True)
class _Column:
    """One figure of every model besides those of the probes."""

    title: str
    """In Markdown."""
    key: str
    """In CSV."""
    of: Mapping[str, float | None]
    """By model."""
    retrained: tuple[float, ...]
    show: Callable[[float | None], str]


def matrix_of(record: Record) -> Matrix:
    """The matrix of a record.

    Raises:
        InputError: it has none.
    """
    if record.matrix is not None:
        return record.matrix
    reason = (record.sanity.reason if record.sanity else None) or "calibration.unlearners is empty"
    raise InputError(
        f"no unlearner was run on the original, so there is nothing to compare: {reason}"
    )


def markdown(record: Record) -> str:
    """Rows are models, columns are probes: estimate, interval and mark.

    Raises:
        InputError: there is no matrix.
    """
    shown = printable(record)
    matrix, unsigned = matrix_of(shown), unsigned_probes(shown)
    columns = _utility(shown)
    run = variants(shown)
    titles = [
        f"{c.title}{'' if c.informative else ' †'}{' ‡' if c.probe in run else ''}"
        for c in matrix.columns
    ]
    lines = [
        _line(["Model", *(column.title for column in columns), *titles]),
        _line(["---", *["---:"] * (len(columns) + len(titles))]),
    ]
    for row in matrix.rows:
        cells = [column.show(column.of.get(row.model)) for column in columns]
        cells += [
            _said(cell, own.probe in unsigned)
            for own, cell in zip(matrix.columns, row.cells, strict=True)
        ]
        lines.append(_line([row.model, *cells]))
    lines.append(_line(["retrained, mean ± SD", *_ordinary(shown, matrix)]))
    marks = ", ".join(f"{read.symbol} {read.word}" for read in READINGS)
    notes = [
        f"Residual index, 0: like a retrained model, 1: like the original; "
        f"{level(1 - 2 * shown.plan.policy.alpha)} intervals; {marks} at a margin of "
        f"{number(shown.plan.policy.tau)}. Scenario {shown.request.scenario}, "
        f"{shown.request.forget} forget {shown.request.unit}s, "
        f"{len(shown.controls.retrained)} retrained models.",
        *(
            f"† {column.title}: {sentence(column.reason or 'not informative')}"
            for column in matrix.columns
            if not column.informative
        ),
        *(f"‡ {c.title}: {run[c.probe]}." for c in matrix.columns if c.probe in run),
    ]
    return "\n".join([*lines, "", *(f"{_escaped(note)}  " for note in notes)]).rstrip() + "\n"


def as_csv(record: Record) -> str:
    """Rows are models; each probe has four columns, ``NAME``, ``NAME:low``, ``NAME:high`` and
    ``NAME:outcome``.

    Numbers have all their digits. Empty: an end that the data do not bound, or no number at all.

    Raises:
        InputError: there is no matrix.
    """
    matrix = matrix_of(record)
    columns = _utility(record)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["model", "role", *(column.key for column in columns)]
    for probe in (column.probe for column in matrix.columns):
        head += [probe, *(f"{probe}:{x}" for x in ("low", "high", "outcome"))]
    writer.writerow(head)
    for row in matrix.rows:
        line: list[str | float | None] = [row.model, row.role]
        line += [column.of.get(row.model) for column in columns]
        for cell in row.cells:
            index = cell.index if cell else None
            line += [index.estimate, index.low, index.high] if index else [None, None, None]
            line.append(cell.outcome if cell else None)
        writer.writerow(line)
    return out.getvalue()


def _ordinary(record: Record, matrix: Matrix) -> list[str]:
    """The retrained models: their means, and what is ordinary on every axis."""
    cells = [
        column.show(fmean(column.retrained) if column.retrained else None)
        for column in _utility(record)
    ]
    spreads = [column.retrained_spread for column in matrix.columns]
    return cells + ["–" if spread is None else f"0 ± {number(spread)}" for spread in spreads]


def _utility(record: Record) -> list[_Column]:
    """Accuracies, and perplexities of language models."""
    lines = () if record.language is None else record.language.perplexity
    return [
        *(
            _column(f"{accuracy(record)}, {split}", "accuracy", split, record.controls.accuracy)
            for split in SPLITS
        ),
        *(
            _column(f"perplexity, {split}", "perplexity", split, lines, perplexity)
            for split in SPLITS
            if lines
        ),
    ]


def _column(
    title: str,
    kind: str,
    split: Split,
    lines: Sequence[Accuracy] | Sequence[ModelPerplexity],
    show: Callable[[float | None], str] = percent,
) -> _Column:
    known = [getattr(line, split) for line in lines if line.role == "retrained"]
    return _Column(
        title,
        f"{kind}:{split}",
        {line.model: getattr(line, split) for line in lines},
        tuple(value for value in known if value is not None),
        show,
    )


def _said(cell: MatrixCell | None, unsigned: bool) -> str:
    if cell is None or cell.index is None:
        return "–"
    symbol = reading(cell.outcome, unsigned=unsigned).symbol
    return f"{number(cell.index.estimate)} {bounds(cell.index)} {symbol}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Names come from plug-ins: no pipe may end a cell, no angle bracket may open a tag."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
