"""Clustering: whether the forget set is a lump of its own among the features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._devices import in_double
from attacks.white_box._features import of_training
from attacks.white_box._rows import proportional, unlabeled
from attacks.white_box._softmax import Scaling
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

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox

MIN_FORGET = 100
"""Forget examples that are kept, where there are so many, however few they are among D."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of a table of counts."""

    value: float
    influence: FloatArray
    """(k, 2): how far one more example of a cell would move it, times n; weighted mean 0."""


@dataclass(frozen=True)
class ClusterProbe(ABC):
    """k-means on the features of D with one cluster per class, held against forget or retain.

    The value is averaged over the starts. Its standard error joins the spread over starts, by which
    k-means is uncertain, with the noise of the examples given the clusters (delta method).
    """

    card: ClassVar[ProbeCard]

    starts: int = 10
    """Independent starts of k-means."""
    max_examples: int = 10_000
    """Examples of D to cluster, forget and retain in proportion, at least 100 forget examples."""

    def __post_init__(self) -> None:
        require_whole(self, "starts", 2)
        require_whole(self, "max_examples", 2 * MIN_EXAMPLES)

    @abstractmethod
    def statistic(self, counts: FloatArray) -> Estimate:
        """From (k, 2) counts of retain and forget examples per cluster."""

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view) or unlabeled(view)) is not None:
            return skip
        if view.scenario not in self.card.scenarios:
            return Skipped(
                "clusters of features are classes, and forget examples of all classes make none"
            )
        import torch

        from attacks.white_box._kmeans import cluster

        sizes = {split: len(view.labels(split)) for split in ("forget", "retain")}
        for split, size in sizes.items():
            if size < MIN_EXAMPLES:
                return too_few(size, f"{split} examples")
        in_forget = np.arange(sum(sizes.values())) < sizes["forget"]
        rows = proportional(in_forget.astype(np.int64), self.max_examples, rng, MIN_FORGET)
        features = of_training(view, rows)
        scaled = torch.as_tensor(
            Scaling.of(features)(features), dtype=torch.float32, device=in_double(view.device)
        )
        k = min(view.n_classes, len(rows))
        assignments = cluster(scaled, k, self.starts, rng)
        tables = [count(assigned, in_forget[rows], k) for assigned in assignments]
        estimates = [self.statistic(table) for table in tables]
        values = np.array([estimate.value for estimate in estimates])
        over_starts = float(values.std(ddof=1))
        # the same examples in every start, so their noise does not average out
        of_examples = float(
            np.mean([_variance(e, table) for e, table in zip(estimates, tables, strict=True)])
        )
        return Scalar(
            value=float(values.mean()),
            stderr=float(np.sqrt(over_starts**2 / self.starts + of_examples)),
            detail={
                "clusters": k,
                "examples": len(rows),
                "forget_examples": int(in_forget[rows].sum()),
                "spread_over_starts": over_starts,
                "nmi": float(np.mean([nmi(table).value for table in tables])),
                "f1": float(np.mean([best_f1(table).value for table in tables])),
            },
        )


def count(assigned: IntArray, in_forget: np.ndarray, k: int) -> FloatArray:
    """(k, 2) float64: retain and forget examples in each cluster."""
    table = np.bincount(2 * assigned + in_forget, minlength=2 * k)
    return table.reshape(k, 2).astype(np.float64)


def nmi(counts: FloatArray) -> Estimate:
    """I(K; X) / min(H(K), H(X)) of (k, 2) counts; 0 where one of them does not vary."""
    p = counts / counts.sum()
    rows, columns = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    surprise_of_cluster, surprise_of_kind = (_minus_log(side) for side in (rows, columns))
    pointwise = surprise_of_cluster + surprise_of_kind - _minus_log(p)
    information = float((p * pointwise).sum())
    entropies = [
        float((rows * surprise_of_cluster).sum()),
        float((columns * surprise_of_kind).sum()),
    ]
    least = min(entropies)
    if least <= 0.0:
        return Estimate(0.0, np.zeros_like(counts))
    value = max(0.0, information / least)
    surprise = surprise_of_cluster if least == entropies[0] else surprise_of_kind
    return Estimate(value, (pointwise - value * surprise) / least + np.zeros_like(counts))


def best_f1(counts: FloatArray) -> Estimate:
    """Largest over clusters of 2 |cluster ∩ forget| / (|cluster| + |forget|)."""
    n, forget = counts.sum(), counts[:, 1].sum()
    sizes = counts.sum(axis=1)
    f1 = 2.0 * counts[:, 1] / (sizes + forget)
    best = int(f1.argmax())
    influence = np.zeros_like(counts)
    influence[:, 1] -= f1[best]
    influence[best] -= f1[best]
    influence[best, 1] += 2.0
    return Estimate(float(f1[best]), influence * n / (sizes[best] + forget))


def _variance(estimate: Estimate, counts: FloatArray) -> float:
    n = counts.sum()
    return float((counts * estimate.influence**2).sum() / n**2)


def _minus_log(p: FloatArray) -> FloatArray:
    """−ln p, and 0 at 0, where it is weighted with 0."""
    return -np.log(p, out=np.zeros_like(p), where=p > 0.0)


_BLIND_SPOTS = (
    "Does not apply to forget sets spread over the classes: features cluster by class.",
    "A class that retrained models keep apart from the others as well cannot be judged.",
    "Ruin is not forgetting: after gradient ascent the index lies anywhere from 1 to below 0, by "
    "how far it went (0 to .6 on the digits); read it beside the utility.",
)


@PROBES.register("cluster-nmi")
@dataclass(frozen=True)
class ClusterInformation(ClusterProbe):
    """Mutual information of clusters with 1[forget], over the smaller of both entropies."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="cluster-nmi",
        title="Clustering, NMI",
        family="representation",
        measures=(
            "Mutual information of k-means clusters on the features of the training data with "
            "whether an example is a forget example, over the smaller entropy of the two: 1 = the "
            "clusters give the forget set away, 0 = they know nothing of it."
        ),
        source="MUDA, appendix B, NMI (minimum normalization)",
        cost="no forward pass beyond the shared one; ten runs of k-means on 10,000 examples",
        blind_spots=_BLIND_SPOTS,
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
        scenarios=frozenset({"class", "partial-class"}),
    )

    def statistic(self, counts: FloatArray) -> Estimate:
        return nmi(counts)


@PROBES.register("cluster-f1")
@dataclass(frozen=True)
class ClusterF1(ClusterProbe):
    """F1 score of the cluster that fits the forget set best."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="cluster-f1",
        title="Clustering, best F1",
        family="representation",
        measures=(
            "F1 score, against the forget set, of the k-means cluster of features that fits it "
            "best: 1 = one cluster is the forget set, low = it is scattered or drowned."
        ),
        source="MUDA, appendix B, F1 score",
        cost="no forward pass beyond the shared one; ten runs of k-means on 10,000 examples",
        blind_spots=(
            *_BLIND_SPOTS,
            "Jumps where k-means splits a cluster in two: noisier than the NMI.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
        scenarios=frozenset({"class", "partial-class"}),
    )

    def statistic(self, counts: FloatArray) -> Estimate:
        return best_f1(counts)
