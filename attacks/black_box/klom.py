"""KLoM: the distribution of forget margins beside that of models that never saw the examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from attacks.black_box._likelihood import EPSILON, Mask, Scored, chunks
from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scalar,
    Skipped,
)
from unaudit.views import BlackBox

MARGIN = 100.0
"""Margins are cut off at ±this, as in the paper."""
BINS = 20
FLOOR = 1e-5
"""Least probability of a bin under the oracles, as in the published code."""
ROUNDING = 1e-9
"""Margins of at most 100 that differ by less are equal."""


def klom(
    unlearned: FloatArray, oracles: FloatArray, *, bins: int = BINS, floor: float = FLOOR
) -> FloatArray:
    """(n,) KL(unlearned ‖ oracles) of each example's margins over models, in nats.

    The paper's measure, for whoever has many models of both kinds. Per example, ``bins`` bins of
    equal width from the smallest to the largest margin of either side. The published code loses the
    largest margin, which lies on the last edge; here it is in the last bin.

    Args:
        unlearned: (a, n) margins, true logit minus log-sum-exp of the others, of unlearned models.
        oracles: (b, n) the same of models that were retrained without the forget set.
        floor: probability that a bin without oracles is given.
    """
    own = np.clip(np.asarray(unlearned, np.float64), -MARGIN, MARGIN)
    other = np.clip(np.asarray(oracles, np.float64), -MARGIN, MARGIN)
    low = np.minimum(own.min(axis=0), other.min(axis=0))
    high = np.maximum(own.max(axis=0), other.max(axis=0))
    inner = np.linspace(low, np.where(high > low, high, low + 1.0), bins + 1)[1:-1]
    p, q = (_shares(_bins(values, inner), bins) for values in (own, other))
    return np.asarray(_divergence(p, np.maximum(q, floor)).sum(axis=0))


@PROBES.register("klom")
@dataclass(frozen=True)
class MarginDivergence:
    """KL divergence of forget margins from those of models that never saw the example.

    The paper compares, per example, a hundred unlearned models with a hundred retrained ones. One
    subject has one margin per example, so no distribution over models. What it has is a
    distribution over examples, and that needs a common scale: each margin is taken as its distance
    from the center of the shadow models that were never trained on the example, in their standard
    deviations. Those models are put on the scale one by one, each by the others. Where the subject
    is one of them, its values are spread over the examples as theirs are; KL(subject ‖ shadow
    models) over 20 bins says how far it is not.

    Another deviation follows: the bins are those that would be equally likely if margins were
    normal, so that they depend on no outlier and every bin has its share of shadow models.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="klom",
        title="KL of margins (KLoM)",
        family="output-distance",
        measures=(
            "Divergence in nats of the forget margins, each on the scale of shadow models that "
            "never saw the example, from those of such models: 0 = distributed alike, higher = "
            "different."
        ),
        source="Georgiev et al. 2024 (Attribute-to-Delete), KLoM; its form for one subject: own",
        cost="the shadow models, 32 or more; then about 3 µs per forget example at 64 of them",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Unsigned: over-unlearning and a different training recipe raise it too.",
            "Compares the forget set as a whole, over 20 bins: a few hundred examples say little.",
        ),
        scenarios=frozenset({"sample", "partial-class"}),
        unsigned=True,
        tasks=ANY_TASK,
        shadows="trained",
    )

    least_models: int = 12
    """Shadow models never trained on it that an example needs to be scored; of 32 shadow models,
    16 were not on average."""
    epsilon: float = EPSILON
    """Added to every standard deviation."""

    def __post_init__(self) -> None:
        require_whole(self, "least_models", 4)
        require_positive(self, "epsilon")

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        if view.shadows is None:
            return Skipped("needs shadow models; add --shadows N")
        known = view.shadows.splits.get("forget")
        never = None if known is None else ~np.asarray(known.member)
        enough = never is not None and np.count_nonzero(never, axis=0) >= self.least_models
        columns = np.flatnonzero(enough)
        if known is None or never is None or len(columns) < MIN_EXAMPLES:
            return Skipped(
                f"needs at least {MIN_EXAMPLES} forget examples with at least {self.least_models} "
                f"shadow models that were never trained on them, found {len(columns)}; train more "
                "shadow models (--shadows N)"
            )
        rows = known.rows[columns]
        own = view.predictions("forget").logit_confidence[rows]
        value, influence, shares = self._divergence(own, known.scores, never, columns)
        total = len(view.predictions("forget"))
        return Scalar(
            value=value,
            # the shadow models are the same for every model that is compared
            stderr=0.0,
            detail={
                "variant": f"{view.shadows.models} shadows, {BINS} bins, one subject",
                "models_per_example": round(float(never[:, columns].sum(axis=0).mean()), 2),
                "share_by_bin": [round(float(share), 4) for share in shares],
                **({"forget_left_out": total - len(rows)} if len(rows) < total else {}),
            },
            influences={"forget": influence},
            rows={"forget": rows} if len(rows) < total else {},
        )

    def _divergence(
        self, own: FloatArray, scores: Scored, never: Mask, columns: IntArray
    ) -> tuple[float, FloatArray, FloatArray]:
        """The divergence, the influence of each example on it, and the subject's share by bin."""
        inner = ndtri(np.arange(1, BINS) / BINS)
        subject, of_oracles = standardized(own, scores, never, columns, self.epsilon, inner)
        p = np.bincount(subject, minlength=BINS) / len(subject)
        q = of_oracles.mean(axis=0)
        floored = np.maximum(q, FLOOR)
        value = float(_divergence(p, floored).sum())
        # d KL = Σ (log p/q + 1) dp − Σ p/q dq, and an example moves both p and q
        log_ratio = np.log(np.maximum(p, np.finfo(np.float64).tiny) / floored)
        slope = np.where(q > FLOOR, p / floored, 0.0)
        influence = log_ratio[subject] - of_oracles @ slope
        return value, np.asarray(influence - influence.mean()), p


def standardized(
    own: FloatArray,
    scores: Scored,
    never: Mask,
    columns: IntArray,
    epsilon: float,
    inner: FloatArray,
) -> tuple[IntArray, FloatArray]:
    """Bins of margins on the scale of the models that were never trained on the example.

    Args:
        own: (k,) margins of the subject.
        scores: (m, q, n) of the shadow models; the first query counts.
        never: (m, n) which of them are on the scale; each example has at least four.
        columns: (k,) which of the n examples.
        inner: (bins − 1,) edges between bins, ascending.

    Returns:
        (k,) bin of the subject; (k, bins) shares of the shadow models, each on the scale of the
        others.

    Raises:
        ValueError: a shadow model answers NaN.
    """
    k, bins = len(columns), len(inner) + 1
    subject = np.empty(k, np.int64)
    shares = np.empty((k, bins))
    own = np.clip(own, -MARGIN, MARGIN)
    for rows, at in chunks(k, len(scores), columns):
        inside = np.array(never[:, at], np.float64, order="C")
        margins = np.clip(np.array(scores[:, 0, at], np.float64, order="C"), -MARGIN, MARGIN)
        if np.isnan(margins).any():
            broken = np.flatnonzero(np.isnan(margins).any(axis=1))
            raise ValueError(f"shadow model {broken[0] + 1} answers NaN: its training diverged")
        models = inside.sum(axis=0)
        mean = (margins * inside).sum(axis=0) / models
        apart = _exact(margins - mean)
        squares = (apart**2 * inside).sum(axis=0)
        spread = np.sqrt(squares / (models - 1.0)) + epsilon
        subject[rows] = np.searchsorted(inner, _exact(own[rows] - mean) / spread, side="right")
        # of k models, the one that lies a off the mean takes a² k/(k − 1) of the squares with it
        others = np.maximum(squares - apart**2 * models / (models - 1.0), 0.0)
        alone = np.sqrt(others / (models - 2.0)) + epsilon
        distance = apart * models / (models - 1.0) / alone
        index = np.searchsorted(inner, distance, side="right")
        for number in range(bins):
            shares[rows, number] = ((index == number) * inside).sum(axis=0) / models
    return subject, shares


def _exact(differences: FloatArray) -> FloatArray:
    return np.where(np.abs(differences) < ROUNDING, 0.0, differences)


def _bins(values: FloatArray, inner: FloatArray) -> IntArray:
    """(models, n) bin of each value, given (bins − 1, n) edges between bins."""
    index = np.zeros(values.shape, np.int64)
    for edge in inner:
        index += values >= edge
    return index


def _shares(index: IntArray, bins: int) -> FloatArray:
    """(bins, n) share of each bin."""
    return np.stack([(index == number).mean(axis=0) for number in range(bins)])


def _divergence(p: FloatArray, q: FloatArray) -> FloatArray:
    """p log p/q, 0 where p is 0."""
    with_p = p > 0.0
    return np.asarray(np.where(with_p, p * np.log(np.where(with_p, p, 1.0) / q), 0.0))
