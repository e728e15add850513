"""Polls among neighbors, and the two attacks that rest on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.white_box._votes import Poll, poll
from attacks.white_box.miars import ForgetNeighborAttack, NeighborAttack, TrainNeighborAttack
from tests.probes_white.arrays import FeatureWorld, make_labels, view_of
from unaudit.errors import UsageError
from unaudit.evidence import Scenario, Scores, Skipped, SplitName
from unaudit.stats import auc

Points = npt.NDArray[np.float32]
CPU = torch.device("cpu")


def run(members: Points, others: Points, counts: tuple[int, ...], seed: int = 0) -> Poll:
    nobody = np.empty((0, members.shape[1]), dtype=np.float32)
    return poll(members, others, nobody, counts, 10_000, np.random.default_rng(seed), CPU)


def cloud(rng: np.random.Generator, n: int, width: int, scale: float = 1.0) -> Points:
    return (scale * rng.standard_normal((n, width))).astype(np.float32)


def by_hand(
    members: Points, others: Points, counts: tuple[int, ...], seed: int
) -> npt.NDArray[np.float64]:
    """Shares of members for the members, with the same draws, by a plain loop."""
    rng = np.random.default_rng(seed)
    pairs = min(len(members), len(others))
    order = [rng.permutation(len(side))[:pairs] for side in (members, others)]
    absent = rng.integers(pairs, size=len(members))
    absent[order[0]] = np.arange(pairs)
    shares = np.empty((len(members), len(counts)))
    for i, query in enumerate(members):
        voters = [
            (float(np.linalg.norm(side[j].astype(np.float64) - query)), vote)
            for side, chosen, vote in zip((members, others), order, (1, 0), strict=True)
            for pair, j in enumerate(chosen)
            if pair != absent[i]
        ]
        votes = [vote for _, vote in sorted(voters)]
        shares[i] = [np.mean(votes[:count]) for count in counts]
    return shares


@pytest.mark.parametrize(("n", "m"), [(30, 30), (40, 25), (25, 40)])
def test_shares_agree_with_a_plain_loop(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    members, others = cloud(rng, n, 4), cloud(rng, m, 4) + 0.5
    np.testing.assert_allclose(
        run(members, others, (1, 5, 15), 3).members, by_hand(members, others, (1, 5, 15), 3)
    )


def test_more_neighbors_than_voters_ask_them_all() -> None:
    rng = np.random.default_rng(0)
    found = run(cloud(rng, 10, 2), cloud(rng, 10, 2), (5, 1000))
    # without its own pair, as many members as others are left
    np.testing.assert_allclose(found.members[:, 1], 0.5)
    np.testing.assert_allclose(found.others[:, 1], 0.5)


def test_unbiased_where_nothing_tells_the_sides_apart() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        answer = run(cloud(rng, 20, 3), cloud(rng, 20, 3), (5,), int(rng.integers(1 << 30)))
        found.append(auc(answer.members[:, 0], answer.others[:, 0]))
    stderr = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 0.5) < 4 * stderr < 0.03


def test_leaving_out_only_the_query_would_be_biased() -> None:
    # why pairs are left out: 19 members against 20 others pull members below 0.5
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        points = cloud(rng, 40, 3).astype(np.float64)
        gaps = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        np.fill_diagonal(gaps, np.inf)
        votes = (np.argsort(gaps, axis=1)[:, :5] < 20).mean(axis=1)
        found.append(auc(votes[:20], votes[20:]))
    assert np.mean(found) < 0.5 - 4 * np.std(found) / np.sqrt(len(found))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 30), m=st.integers(2, 30), extra=st.integers(0, 5), most=st.integers(2, 40))
def test_any_sizes(n: int, m: int, extra: int, most: int) -> None:
    rng = np.random.default_rng(0)
    sides = [cloud(rng, size, 3) for size in (n, m, extra)]
    answer = poll(*sides, (1, 5, 15), most, rng, CPU)
    assert answer.pairs == min(n, m, most)
    for shares, size in zip(
        (answer.members, answer.others, answer.bystanders), (n, m, extra), strict=True
    ):
        assert shares.shape == (size, 3)
        assert ((shares >= 0) & (shares <= 1)).all()


def test_identical_examples_do_not_favor_a_side() -> None:
    same = np.ones((200, 3), dtype=np.float32)
    found = [run(same, same, (5,), seed) for seed in range(20)]
    assert abs(np.mean([answer.members for answer in found]) - 0.5) < 0.15
    assert abs(np.mean([auc(a.members[:, 0], a.others[:, 0]) for a in found]) - 0.5) < 0.05


ATTACKS: tuple[type[NeighborAttack], ...] = (ForgetNeighborAttack, TrainNeighborAttack)
every_attack = pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.card.name)


def ask(probe: NeighborAttack, view: object, seed: int = 0) -> Scores:
    evidence = probe(view, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert isinstance(evidence, Scores)
    return evidence


def measure(scores: Scores) -> float:
    assert scores.unseen is not None
    return auc(scores.forget, scores.unseen)


@every_attack
def test_class_composition_alone_is_not_seen(kind: type[NeighborAttack]) -> None:
    # forget examples are nearly all of class 0, unseen ones nearly all of the others
    rng = np.random.default_rng(0)
    sizes: dict[SplitName, int] = {"forget": 400, "retain": 800, "unseen": 400}
    labels = make_labels("sample", rng, sizes)
    labels["forget"] = np.where(rng.random(400) < 0.8, 0, labels["forget"])
    labels["unseen"] = np.where(labels["unseen"] == 0, rng.integers(0, 5, 400), labels["unseen"])
    features: dict[SplitName, Points] = {
        split: (6.0 * np.eye(5, 8)[own] + cloud(rng, len(own), 8)).astype(np.float32)
        for split, own in labels.items()
    }
    found = measure(ask(kind(), view_of(features, labels, "sample")))
    assert abs(found - 0.5) < 0.08
    everything = np.concatenate([features["forget"], features["unseen"]])
    gaps = ((everything[:, None] - everything[None]) ** 2).sum(axis=2)
    np.fill_diagonal(gaps, np.inf)
    votes = (np.argsort(gaps, axis=1)[:, :5] < 400).mean(axis=1)
    assert auc(votes[:400], votes[400:]) > 0.75  # what would be seen without that care


@pytest.mark.parametrize(
    ("kind", "scenario"),
    [(kind, scenario) for kind in ATTACKS for scenario in sorted(kind.card.scenarios)],
    ids=lambda value: value if isinstance(value, str) else value.card.name,
)
def test_sees_training_and_its_absence(kind: type[NeighborAttack], scenario: Scenario) -> None:
    world = FeatureWorld(scenario)
    original, retrained = world.train("forget", "retain"), world.train("retain")
    assert measure(ask(kind(), original)) > 0.65
    assert abs(measure(ask(kind(), retrained)) - 0.5) < 0.1


@every_attack
def test_detail_reports_each_k(kind: type[NeighborAttack]) -> None:
    view = FeatureWorld("sample").train("forget", "retain")
    scores = ask(kind(k=7), view)
    by_k = scores.detail["by_k"]
    assert list(by_k) == ["1", "5", "7", "15"]
    assert by_k["7"]["auc"] == pytest.approx(measure(scores))
    assert by_k["5"]["auc"] == pytest.approx(measure(ask(kind(k=5), view)))
    for answers in by_k.values():
        assert set(answers["called_members"]) >= {"forget", "unseen"}


@every_attack
def test_scaling_and_metric(kind: type[NeighborAttack]) -> None:
    view = FeatureWorld("sample").train("forget", "retain")
    unit = ask(kind(), view)
    cosine = ask(kind(scaling="none", metric="cosine"), view)
    np.testing.assert_array_equal(unit.forget, cosine.forget)
    assert not np.array_equal(unit.forget, ask(kind(scaling="none"), view).forget)


@every_attack
def test_small_classes_are_left_out(kind: type[NeighborAttack]) -> None:
    world = FeatureWorld("sample")
    for split, own in world.labels.items():
        if split == "unseen" or split in kind.card.needs | {kind.members}:
            at = np.flatnonzero(own == 3)
            own[at[9:]] = 4
    scores = ask(kind(), world.train("forget", "retain"))
    assert scores.detail["classes_left_out"] == [3]
    kept = np.flatnonzero(world.labels["forget"] != 3)
    assert len(scores.forget) == len(kept)
    if len(kept) < len(world.labels["forget"]):
        np.testing.assert_array_equal(scores.rows["forget"], kept)


def test_forget_classes_without_retain_examples_are_declined() -> None:
    view = FeatureWorld("class").train("retain")
    evidence = TrainNeighborAttack()(view, np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "retain" in evidence.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [("k", 0), ("k", True), ("scaling", "l1"), ("metric", "manhattan"), ("max_pairs", 3)],
)
def test_bad_parameters_are_named(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"probes.miars-1.{field} must be"):
        ForgetNeighborAttack(**{field: value})  # type: ignore[arg-type]
