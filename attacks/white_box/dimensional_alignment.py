"""Dimensional alignment: whether forget features live in the space of the retain features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._features import ROWS_AT_ONCE
from attacks.white_box._parameters import require_share
from attacks.white_box._rows import some
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scalar,
    Skipped,
    SplitName,
)

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


@PROBES.register("dimensional-alignment")
@dataclass(frozen=True)
class DimensionalAlignment:
    """1 − DA with DA = tr(P Σ_f) / tr(Σ_f), P the projection on the leading retain directions.

    The formula is our reading: the paper's own is not at hand. Σ are second moments about the
    origin (the mean of a class is what an encoder holds of it first of all), and P spans as many
    eigenvectors of Σ_r as carry 95 % of its trace. The reading agrees with the paper's figures in
    direction (CIFAR-10: DA .34 for the original, .79 retrained), not necessarily in size. The
    standard error is that of the forget examples (delta method for a ratio), given P.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="dimensional-alignment",
        title="Off-space share (1 − DA)",
        family="representation",
        measures=(
            "Share of the forget features' energy outside the leading directions of the retain "
            "features: high = the encoder keeps directions for the forgotten classes alone. "
            "Published DA is 1 minus this."
        ),
        source="MUDA, dimensional alignment; the formula is our reading",
        cost="no forward pass beyond the shared one; one eigendecomposition",
        blind_spots=(
            "Says nothing of forget sets within classes that are kept: both use the same "
            "directions, so it runs in the class scenario only.",
            "A ruined encoder scores like a retrained one (MUDA, table C: EU-k has DA .77 at 11 % "
            "accuracy), and so does an untrained one.",
            "Originals differ among themselves by a factor of two or three on the digits: the "
            "index of a subject that was not made from the given original is rough.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
        scenarios=frozenset({"class"}),
    )

    energy: float = 0.95
    """Share of the trace of Σ_r that the leading directions carry."""
    max_examples: int = 20_000
    """Examples of each split."""

    def __post_init__(self) -> None:
        require_share(self, "energy")
        require_whole(self, "max_examples", MIN_EXAMPLES)

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        if view.scenario not in self.card.scenarios:
            return Skipped("forget and retain examples of one class use the same directions")
        rows: dict[SplitName, IntArray] = {}
        both: tuple[SplitName, SplitName] = ("forget", "retain")
        for split in both:
            size = len(view.labels(split))
            if size < MIN_EXAMPLES:
                return too_few(size, f"{split} examples")
            rows[split] = some(np.arange(size, dtype=np.int64), self.max_examples, rng)
        retained = second_moment(view, "retain", rows["retain"])
        directions = leading(retained, self.energy)
        inside, total = _energies(view, rows["forget"], directions)
        if total.sum() <= 0.0:
            # all features are 0: nothing lies outside
            return Scalar(0.0, 0.0, {"directions": directions.shape[1], "alignment": 1.0})
        alignment = float(inside.sum() / total.sum())
        deviation = (inside - alignment * total) / total.mean()
        return Scalar(
            value=1.0 - alignment,
            stderr=float(deviation.std(ddof=1) / np.sqrt(len(deviation))),
            detail={"directions": directions.shape[1], "alignment": alignment},
        )


def second_moment(view: WhiteBox, split: SplitName, rows: IntArray) -> FloatArray:
    """(d, d) mean of x xᵀ, a piece at a time."""
    total: FloatArray | None = None
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = view.features(split, rows[start : start + ROWS_AT_ONCE]).astype(np.float64)
        total = part.T @ part if total is None else total + part.T @ part
    assert total is not None
    return total / len(rows)


def leading(moment: FloatArray, energy: float) -> FloatArray:
    """(d, k) eigenvectors with the largest eigenvalues that carry ``energy`` of the trace."""
    values, vectors = np.linalg.eigh(moment)
    values = np.maximum(values[::-1], 0.0)
    carried = np.cumsum(values)
    # rounding may leave the last sum below the whole
    k = min(int(np.searchsorted(carried, energy * carried[-1])) + 1, len(values))
    return np.asarray(vectors[:, ::-1][:, :k])


def _energies(
    view: WhiteBox, rows: IntArray, directions: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(n,) squared length of each forget feature within the directions, and in all."""
    inside, total = [], []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = view.features("forget", rows[start : start + ROWS_AT_ONCE]).astype(np.float64)
        inside.append(np.square(part @ directions).sum(axis=1))
        total.append(np.square(part).sum(axis=1))
    return np.concatenate(inside), np.concatenate(total)
