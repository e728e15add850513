"""Can forget and unseen texts be told apart without any model?

Whoever can, by their words alone, does not need the model for it: that an attack can as well then
says nothing of what the model was trained on. Such a blind baseline beats most published attacks on
language models, whose unseen texts were gathered elsewhere or later than the training texts (Das,
Zhang & Tramèr 2024, "Blind baselines beat membership inference attacks for foundation models").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from scipy import sparse

from unaudit.data import Dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.evidence import IntArray
from unaudit.splits import Split
from unaudit.stats import auc, auc_noise
from unaudit.stats.equivalence import tail_p
from unaudit.tokens import PADDING

MOST = 5000
"""Texts of a side that are looked at, spread over it."""
LEAST = 20
"""Texts, or persons, of a side below which nothing can be told."""
SIGNIFICANT = 1e-3
"""P-value below which the sides differ (our choice)."""
MOST_STEPS = 200
"""Of the fit; one that has not ended by then is good enough."""
READ_AT_ONCE = 256


@dataclass(frozen=True)
class Blind:
    """How well words tell forget from unseen texts."""

    area: float
    """AUC on texts that the words' weights were not fitted to; 0.5 is chance."""
    p: float
    """One-sided, of so large an area where both sides come from one distribution."""

    @property
    def differ(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def note(self) -> str:
        """For a reader of the report, where they differ."""
        return (
            "forget and unseen texts can be told apart by their words alone, without any model "
            f"(AUC {self.area:.2f}), so that telling them apart by a model shows no membership; "
            "only comparing with retrained models does"
        )


def tell_apart(forget: Split, unseen: Split) -> Blind | None:
    """Logistic regression on which tokens occur how often and on length, fitted to one half of the
    texts and tested on the other, both ways. Texts of one person, where the data say whose they
    are, and copies of one text are all in one half: else their authors would be told apart.

    Where both sides are drawn from one distribution, the scores of a half that was not fitted to
    are too, so that their AUC has mean ½ and a known variance (:func:`auc_noise`). The two ways are
    corrected for (Bonferroni): they are not independent, and nor would more folds be.

    Args:
        forget, unseen: of the latter, texts of the forget classes alone are compared.

    Returns:
        None where the examples are no texts, or too few, or of too few persons.
    """
    data = [forget.dataset, unseen.dataset]
    comparable = unseen.rows[np.isin(unseen.labels, np.unique(forget.labels))]
    sides = [_some(rows) for rows in (forget.rows, comparable)]
    if not all(isinstance(one, TextDataset) for one in data) or min(map(len, sides)) < LEAST:
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    texts = [_tokens(one, rows) for one, rows in zip(data, sides, strict=True)]
    units = _units(data, sides, texts)
    if min(len(np.unique(own)) for own in units) < LEAST:
        return None
    known, group = _features(texts), np.concatenate(units)
    side = np.repeat([1, 0], [len(rows) for rows in sides])
    areas, p_values = [], []
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=0)
    for fit, test in halves.split(known, side, group):
        model = LogisticRegression(class_weight="balanced", max_iter=MOST_STEPS)
        scores = model.fit(known[fit], side[fit]).decision_function(known[test])
        forgotten = side[test] == 1
        own, other = scores[forgotten], scores[~forgotten]
        variance, df = auc_noise(own, other, (group[test][forgotten], group[test][~forgotten]))
        areas.append(auc(own, other))
        p_values.append(tail_p(areas[-1] - 0.5, [variance], [df]))
    return Blind(float(np.mean(areas)), min(1.0, 2.0 * min(p_values)))


def _some(rows: IntArray) -> IntArray:
    """At most :data:`MOST`, spread evenly."""
    if len(rows) <= MOST:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)]


def _tokens(data: Dataset, rows: IntArray) -> list[IntArray]:
    """Of each text."""
    assert isinstance(data, TextDataset)
    return [
        ids[ids != PADDING].numpy()
        for batch in data.narrow_batches(rows, READ_AT_ONCE)
        for ids in batch
    ]


def _units(
    data: Sequence[Dataset], sides: Sequence[IntArray], texts: Sequence[Sequence[IntArray]]
) -> list[npt.NDArray[np.str_]]:
    """Of each text of either side, whose it is, or what it says."""
    groups = [one.groups for one in data if one.groups is not None]
    if len(groups) == len(data):
        return [names[rows] for names, rows in zip(groups, sides, strict=True)]
    return [
        np.array([blake2b(tokens.tobytes(), digest_size=8).hexdigest() for tokens in own])
        for own in texts
    ]


def _features(sides: Sequence[Sequence[IntArray]]) -> sparse.csr_array:
    """(n, tokens + 1): log(1 + how often each token occurs), and the logarithm of the length in
    standard deviations."""
    texts = [tokens for side in sides for tokens in side]
    lengths = np.array([len(tokens) for tokens in texts])
    every, row = np.concatenate(texts), np.repeat(np.arange(len(texts)), lengths)
    counts = sparse.coo_array((np.ones(len(every)), (row, every))).tocsr()
    counts.data = np.log1p(counts.data)
    logs = np.log(lengths)
    scaled = (logs - logs.mean()) / (logs.std() or 1.0)
    return sparse.hstack([counts, sparse.csr_array(scaled[:, None])], format="csr")
