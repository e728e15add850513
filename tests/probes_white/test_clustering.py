"""k-means, and what its clusters say of the forget set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import f1_score, normalized_mutual_info_score

from attacks.white_box._kmeans import cluster
from attacks.white_box.clustering import (
    ClusterF1,
    ClusterInformation,
    ClusterProbe,
    best_f1,
    count,
    nmi,
)
from tests.probes_white.arrays import FeatureWorld, view_of
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scalar, Skipped, SplitName


def inertia(x: FloatArray, assigned: np.ndarray) -> float:
    return float(
        sum(((x[assigned == c] - x[assigned == c].mean(axis=0)) ** 2).sum() for c in set(assigned))
    )


def blobs(n: int = 400, k: int = 6, width: int = 5, apart: float = 1.5) -> FloatArray:
    rng = np.random.default_rng(0)
    centers = apart * rng.standard_normal((k, width))
    return centers[rng.integers(0, k, n)] + rng.standard_normal((n, width))


def test_kmeans_is_as_good_as_sklearns() -> None:
    x = blobs()
    own = cluster(torch.tensor(x, dtype=torch.float32), 6, 20, np.random.default_rng(0))
    oracle = [KMeans(6, n_init=1, random_state=seed).fit_predict(x) for seed in range(20)]
    own_inertia = [inertia(x, assigned) for assigned in own]
    wanted = [inertia(x, assigned) for assigned in oracle]
    assert min(own_inertia) == pytest.approx(min(wanted), rel=1e-3)
    assert np.mean(own_inertia) < 1.03 * np.mean(wanted)


def test_kmeans_ends_where_no_example_wants_to_move() -> None:
    x = blobs()
    for assigned in cluster(torch.tensor(x, dtype=torch.float32), 6, 3, np.random.default_rng(0)):
        centers = np.stack([x[assigned == c].mean(axis=0) for c in range(6)])
        gaps = ((x[:, None] - centers) ** 2).sum(axis=2)
        assert (gaps.argmin(axis=1) == assigned).all()


def test_kmeans_finds_far_clusters() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    x = 100.0 * np.eye(4)[truth] + rng.standard_normal((300, 4))
    for assigned in cluster(torch.tensor(x, dtype=torch.float32), 4, 5, rng):
        assert normalized_mutual_info_score(truth, assigned) == pytest.approx(1.0)


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_kmeans_with_fewer_points_than_clusters(distinct: int) -> None:
    x = torch.arange(30).remainder(distinct).float()[:, None]
    for assigned in cluster(x, 5, 3, np.random.default_rng(0)):
        groups = [set(assigned[x[:, 0].numpy() == value]) for value in range(distinct)]
        assert all(len(group) == 1 for group in groups)
        assert len(set.union(*groups)) == distinct


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 80), k=st.integers(1, 6))
def test_nmi_and_f1_are_sklearns(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    assigned, in_forget = rng.integers(0, k, n), rng.random(n) < 0.3
    in_forget[:2] = True, False
    table = count(assigned, in_forget, k)
    assert table.sum() == n
    wanted = normalized_mutual_info_score(in_forget, assigned, average_method="min")
    assert nmi(table).value == pytest.approx(wanted, abs=1e-9)
    wanted = max(f1_score(in_forget, assigned == c, zero_division=0.0) for c in range(k))
    assert best_f1(table).value == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("statistic", [nmi, best_f1])
def test_influence_is_the_derivative(statistic: object) -> None:
    counts = np.array([[40.0, 3.0], [5.0, 21.0], [17.0, 2.0]])
    found = statistic(counts)  # type: ignore[operator]
    assert (counts * found.influence).sum() == pytest.approx(0.0, abs=1e-9)
    step = 1e-6
    for cell in np.ndindex(counts.shape):
        moved = counts * (1 - step)
        moved[cell] += step * counts.sum()
        slope = (statistic(moved).value - found.value) / step  # type: ignore[operator]
        assert slope == pytest.approx(found.influence[cell], abs=1e-3)


KINDS: tuple[type[ClusterProbe], ...] = (ClusterInformation, ClusterF1)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.card.name)


def ask(probe: ClusterProbe, view: object, seed: int = 0) -> Scalar:
    evidence = probe(view, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert isinstance(evidence, Scalar)
    return evidence


@every_kind
def test_a_lump_and_a_scatter(kind: type[ClusterProbe]) -> None:
    world = FeatureWorld("class")
    assert ask(kind(), world.train("forget", "retain")).value > 0.99
    assert ask(kind(), world.train("retain")).value < 0.95


@every_kind
def test_both_statistics_are_in_the_detail(kind: type[ClusterProbe]) -> None:
    answer = ask(kind(), FeatureWorld("class").train("retain"))
    key = "nmi" if kind is ClusterInformation else "f1"
    assert answer.detail[key] == pytest.approx(answer.value)
    assert answer.detail["clusters"] == 5


@every_kind
def test_standard_error_covers_fresh_examples_and_starts(kind: type[ClusterProbe]) -> None:
    def fresh(seed: int) -> Scalar:
        rng = np.random.default_rng(seed)
        labels = {
            "forget": np.zeros(80, dtype=np.int64),
            "retain": rng.integers(1, 5, 320),
        }
        features = {
            split: (1.2 * np.eye(5, 6)[own] + rng.standard_normal((len(own), 6)) * 0.6).astype(
                np.float32
            )
            for split, own in labels.items()
        }
        return ask(kind(), view_of(features, labels, "class"), seed)  # type: ignore[arg-type]

    answers = [fresh(seed) for seed in range(40)]
    spread = np.std([answer.value for answer in answers])
    stated = np.mean([answer.stderr or 0.0 for answer in answers])
    assert 0.6 * spread < stated < 2.0 * spread


@every_kind
def test_subsets_keep_the_proportion(kind: type[ClusterProbe]) -> None:
    world = FeatureWorld("class")
    answer = ask(kind(max_examples=500), world.train("retain"))
    assert 480 <= answer.detail["examples"] <= 520
    assert answer.detail["forget_examples"] == 100
    few = FeatureWorld("class", sizes={"forget": 60, "retain": 1500, "unseen": 30})
    assert ask(kind(max_examples=500), few.train("retain")).detail["forget_examples"] == 60


@every_kind
def test_spread_over_classes_is_declined(kind: type[ClusterProbe]) -> None:
    view = FeatureWorld("sample").train("retain")
    assert isinstance(kind()(view, np.random.default_rng(0)), Skipped)


@every_kind
def test_collapsed_features_are_finite(kind: type[ClusterProbe]) -> None:
    world = FeatureWorld("class")
    same: dict[SplitName, np.ndarray] = {
        split: np.ones((len(own), 3), dtype=np.float32) for split, own in world.labels.items()
    }
    answer = ask(kind(), view_of(same, world.labels, "class"))
    assert np.isfinite([answer.value, answer.stderr or 0.0]).all()
    if kind is ClusterInformation:
        assert answer.value == 0.0


@pytest.mark.parametrize(("field", "value"), [("starts", 1), ("max_examples", 10)])
def test_bad_parameters_are_named(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"probes.cluster-nmi.{field} must be"):
        ClusterInformation(**{field: value})
