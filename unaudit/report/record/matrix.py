"""What the probes say of models that reference unlearners made of the original.

They are models of known making: the matrix shows how every probe reads each of them, and the
subject among them. Nothing here decides the verdict.
"""

from __future__ import annotations

from pydantic import model_validator

from unaudit.evidence import Access, Family
from unaudit.report.record.base import Interval, Part, ProbeOutcome, Rate, Role


class MatrixColumn(Part):
    """One probe; the informative ones come first."""

    probe: str
    title: str
    family: Family
    access: Access
    informative: bool
    reason: str | None
    """Why not, in one sentence."""
    retrained_spread: float | None
    """Standard deviation of the retrained models' residual index: what is ordinary."""


class MatrixCell(Part):
    """One probe on one model."""

    index: Interval | None
    """Null where the probe could not be calibrated."""
    outcome: ProbeOutcome
    """Where the whole interval lies, not corrected for the number of probes."""


class MatrixRow(Part):
    """One model."""

    model: str
    """``subject``, ``original``, or the unlearner that made it."""
    role: Role
    cells: tuple[MatrixCell | None, ...]
    """By column; null where the probe declined or broke on this model."""


class Matrix(Part):
    """Probes by models: the subject, the original, and every calibrator."""

    columns: tuple[MatrixColumn, ...]
    rows: tuple[MatrixRow, ...]

    @model_validator(mode="after")
    def _one_cell_per_column(self) -> Matrix:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"{row.model!r:.60} has {len(row.cells)} cells for {len(self.columns)} columns"
                )
        return self


class Sanity(Part):
    """Head-distillation check: would the informative black-box probes see a fake whose encoder is
    the original's and whose last layer alone was refitted?"""

    fake: str | None
    """Its row in the matrix; null if there was no fake."""
    reason: str | None
    """Why there was none, in one sentence."""
    fooled: tuple[str, ...]
    """Probes that read the fake as like retrained."""
    caught: tuple[str, ...]
    """Probes that read it as what would fail a subject: residual or, for membership,
    over-unlearned."""
    undecided: tuple[str, ...]
    """Probes that said neither."""


class SplitFidelity(Part):
    """Accuracy on one split."""

    split: str
    """``retain`` or ``unseen``."""
    original: Rate
    retrained: Rate
    """Mean over the retrained models."""
    gap: Rate
    """Absolute difference."""


class Fidelity(Part):
    """Whether the retrained models were trained as the original was: on data that the request does
    not touch, they are as good."""

    made: tuple[Role, ...]
    """Which of ``original`` and ``retrained`` were made from the recipe; none if all were handed
    in."""
    kept_classes_only: bool
    """Whether accuracies are over the classes that the request does not touch, and classifiers
    choose among these."""
    splits: tuple[SplitFidelity, ...]
    limit: Rate
    """Largest gap at which they count as trained alike."""
    ok: bool
    reason: str
    """In one line."""
