"""Linear CKA: how alike two models arrange the forget examples, whatever their units are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._layers import flat, rows_that_fit, shapes
from attacks.white_box._rows import some
from unaudit.evidence import ANY_TASK, PROBES, Evidence, FloatArray, ProbeCard, Scalar

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox

BLOCKS = 10
"""Groups of examples that the jackknife leaves out in turn."""
UNITS_AT_ONCE = 1 << 12
SILENT = 1e-12
"""Relative size below which a centered Gram matrix is rounding error: all examples look alike."""


@PROBES.register("cka")
@dataclass(frozen=True)
class CenteredKernelAlignment:
    """1 − CKA of a model's and a retrained model's features on the forget set.

    The estimator that corrects for having few examples and many units (Song et al. 2012; Nguyen et
    al. 2021): without it two unrelated networks look alike. Its standard error is a jackknife over
    ten groups of examples. The values of every layer are in the detail, on fewer examples where a
    layer is wide; only the penultimate features enter the measure.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="cka",
        title="Features, 1 − CKA",
        family="representation",
        measures=(
            "One minus the linear centered kernel alignment of a model's penultimate features with "
            "a retrained model's on the forget set: 0 = the same arrangement up to rotation and "
            "scale, 1 = unrelated."
        ),
        source="Kornblith et al. 2019, linear CKA; Nguyen et al. 2021, unbiased HSIC",
        cost="one forward pass over at most 1,000 forget examples; products of their Gram matrices",
        blind_spots=(
            "Unsigned: over-unlearning and an untrained encoder lie further off than the original.",
            "Dominated by the directions of largest variance; memory in small ones goes unseen.",
            "A part of one class is arranged as alike by the original as by retrained models: "
            "seen on the digits.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    max_examples: int = 1000
    """Forget examples to compare."""
    max_elements: int = 1 << 22
    """Largest number of activations of one layer; wider layers are compared on fewer examples."""

    def __post_init__(self) -> None:
        require_whole(self, "max_examples", MIN_EXAMPLES)
        require_whole(self, "max_elements", 1)

    def __call__(self, view: WhiteBox, reference: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        from unaudit.white_box import FEATURES

        size = len(view.labels("forget"))
        if size < MIN_EXAMPLES:
            return too_few(size, "forget examples")
        rows = some(np.arange(size, dtype=np.int64), self.max_examples, rng)
        own, other = (gram(flat(model, FEATURES, rows)) for model in (view, reference))
        similarity = alignment(own, other)
        blocks = rng.permutation(len(rows)) % BLOCKS
        left_out = [
            alignment(*(matrix[np.ix_(kept, kept)] for matrix in (own, other)))
            for kept in (np.flatnonzero(blocks != block) for block in range(BLOCKS))
        ]
        by_layer = self._by_layer(view, reference, rows, rng) | {FEATURES: 1.0 - similarity}
        return Scalar(
            value=1.0 - similarity,
            stderr=float(np.std(left_out) * np.sqrt(BLOCKS - 1)),
            detail={"by_layer": by_layer, "examples": len(rows)},
        )

    def _by_layer(
        self, view: WhiteBox, reference: WhiteBox, rows: np.ndarray, rng: np.random.Generator
    ) -> dict[str, float]:
        """1 − CKA at each block that both models have."""
        layers = tuple(layer for layer in view.layers if layer in reference.layers)
        if not layers:
            return {}
        sizes = [shapes(model, layers) for model in (view, reference)]
        rows = rows_that_fit(rows, sizes, self.max_elements, rng)
        for model in (view, reference):
            model.request("forget", layers, rows)
        return {
            layer: 1.0 - alignment(*(gram(flat(model, layer, rows)) for model in (view, reference)))
            for layer in layers
        }


def gram(features: FloatArray) -> FloatArray:
    """(n, n) inner products of the centered features, some units at a time."""
    total = np.zeros((len(features), len(features)))
    for start in range(0, features.shape[1], UNITS_AT_ONCE):
        part = features[:, start : start + UNITS_AT_ONCE]
        part = part - part.mean(axis=0)
        total += part @ part.T
    return total


def alignment(own: FloatArray, other: FloatArray) -> float:
    """Debiased CKA of two (n, n) Gram matrices, n ≥ 4: the cosine between them, U-centered.

    Σ K̃ L̃ / (n (n − 3)) with U-centered K̃, L̃ is the unbiased HSIC (Székely & Rizzo 2014, §3). Where
    one model gives the same features for all examples, nothing is shared: 0.
    """
    centered = [_u_centered(matrix) for matrix in (own, other)]
    lengths = [float(np.linalg.norm(matrix)) for matrix in centered]
    for matrix, length in zip((own, other), lengths, strict=True):
        if length <= SILENT * float(np.linalg.norm(matrix)):
            return 0.0
    return float((centered[0] * centered[1]).sum() / (lengths[0] * lengths[1]))


def _u_centered(matrix: FloatArray) -> FloatArray:
    n = len(matrix)
    hollow = matrix - np.diag(np.diag(matrix))
    sums = hollow.sum(axis=0)
    centered = hollow - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centered, 0.0)
    return np.asarray(centered)
