"""Shadow models of known truth: every answer is normal about what the example is worth.

An answer is worth + lift · share + noise: each example has its own worth and its own noise, and a
model that was trained on it answers higher by its lift, or by a share of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, SplitName
from unaudit.shadows import Shadows, ShadowScores
from unaudit.views import BlackBox, Outputs

Mask = npt.NDArray[np.bool_]
EXAMPLES: Mapping[SplitName, int] = {"forget": 150, "unseen": 250, "retain": 200}
REMEMBERS: Mapping[SplitName, float] = {"forget": 1.0, "retain": 1.0}
"""The original; retrained models remember retain alone."""
RETRAINED: Mapping[SplitName, float] = {"retain": 1.0}


def halves(models: int, examples: int, rng: np.random.Generator) -> Mask:
    """(models, examples): each example in exactly half of the models, rounded down."""
    column = np.arange(models) < models // 2
    return rng.permuted(np.tile(column, (examples, 1)), axis=1).T


class ShadowWorld:
    """Shadow models, and models to be audited, over the same examples."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        models: int = 64,
        queries: int = 1,
        examples: Mapping[SplitName, int] = EXAMPLES,
        lift: float = 1.0,
        kept: float = 0.5,
        classes: int = 1,
    ) -> None:
        """
        Args:
            lift: of an example that was trained on, on average, in units of the mean noise.
            kept: share of the lift that unlearning leaves.
            classes: labels are drawn from; forget examples are of class 0.
        """
        self.rng = rng
        self.queries = queries
        self.worth = {name: rng.normal(2.0, 2.0, n) for name, n in examples.items()}
        self.noise = {name: rng.uniform(0.5, 1.5, n) for name, n in examples.items()}
        self.lift = {name: lift * rng.uniform(0.5, 1.5, n) for name, n in examples.items()}
        self.labels = {
            name: rng.integers(0, 1 if name == "forget" else classes, n)
            for name, n in examples.items()
        }
        self.classes = max(classes, 2)
        names = ("plain", *(f"shift {query},0" for query in range(1, queries)))
        splits = {name: self._shadow_scores(name, models, kept) for name in examples}
        self.shadows = Shadows(splits, names, unlearner="half-forget", train_size=100)

    def model(self, remembers: Mapping[SplitName, float]) -> BlackBox:
        """A fresh model that remembers shares of some splits, as a probe sees it."""
        asked = {
            name: self._answer(name, np.full(len(worth), remembers.get(name, 0.0)))
            for name, worth in self.worth.items()
        }
        names = self.shadows.queries
        return BlackBox(
            {name: partial(outputs_of, rows[0], self.labels[name]) for name, rows in asked.items()},
            scenario="sample",
            forget_classes=(0,),
            n_classes=self.classes,
            shadows=self.shadows,
            queried=lambda split, name: asked[split][names.index(name)].astype(np.float64),
        )

    def _answer(self, split: SplitName, share: FloatArray) -> npt.NDArray[np.float32]:
        """(q, n) of one model; what queries see differs by a fifth of the noise."""
        worth, noise, lift = self.worth[split], self.noise[split], self.lift[split]
        own = self.rng.normal(size=len(worth))
        each = 0.2 * self.rng.normal(size=(self.queries, len(worth))) * (self.queries > 1)
        return (worth + lift * share + noise * (own + each)).astype(np.float32)

    def _shadow_scores(self, split: SplitName, models: int, kept: float) -> ShadowScores:
        n = len(self.worth[split])
        member = halves(models, n, self.rng)
        erased = member & halves(models, n, self.rng)
        after = np.where(erased, kept, member)
        return ShadowScores(
            rows=np.arange(n),
            scores=np.stack([self._answer(split, one) for one in member.astype(np.float64)]),
            member=member,
            unlearned=np.stack([self._answer(split, one) for one in after]),
            erased=erased,
        )


def outputs_of(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Outputs:
    """Outputs with these logit-scaled confidences: one other class has logit 0, all others −10⁴."""
    n_classes = max(int(labels.max()) + 1, 2)
    logits = np.full((len(scores), n_classes), -1e4, np.float32)
    each = np.arange(len(scores))
    logits[each, labels] = scores
    logits[each, np.where(labels == 0, 1, 0)] = 0.0
    return Outputs(logits, labels.astype(np.int64))
