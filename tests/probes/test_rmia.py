"""RMIA: agreement with Privacy Meter and with plain pairs, behavior under known truth, extremes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from attacks.black_box import _likelihood
from attacks.black_box.rmia import (
    RobustMembershipAttack,
    log_confidence,
    mean_log_confidence,
    offline_mean,
    online_mean,
    pairwise_shares,
)
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scores, Skipped, SplitName
from unaudit.views import BlackBox

from .shadow_worlds import REMEMBERS, RETRAINED, ShadowWorld, halves
from .worlds import auc

SEEDS = st.integers(0, 2**32 - 1)


def run(attack: RobustMembershipAttack, view: BlackBox) -> Scores:
    evidence = attack(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "auc"
    return evidence


def plain_gain(own: float, out: FloatArray, trained: FloatArray | None, a: float) -> float:
    """p(x|θ)/p(x) from logit-scaled confidences, in probabilities."""
    p_out = float(np.mean(expit(out)))
    if trained is None:
        return float(expit(own)) / ((1 + a) / 2 * p_out + (1 - a) / 2)
    return float(expit(own)) / ((p_out + float(np.mean(expit(trained)))) / 2)


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_agrees_with_privacy_meter(a: float) -> None:
    """Its function, offline and gamma 1: reference models that the population was never in.

    Of the references of z it keeps the half with the highest confidence; given the other half
    only, as here, it keeps all and so averages those that x's are averaged over.
    """
    rng = np.random.default_rng(0)
    m, n, k = 8, 120, 90
    member = halves(m, n, rng)
    of_x, of_z = rng.normal(1, 2, (m, 1, n)), rng.normal(1, 2, (m // 2, 1, k))
    own_x, own_z = rng.normal(1.5, 2, n), rng.normal(1, 2, k)
    ratio_x = np.array([plain_gain(own_x[j], of_x[~member[:, j], 0, j], None, a) for j in range(n)])
    ratio_z = np.array([plain_gain(own_z[j], of_z[:, 0, j], None, a) for j in range(k)])
    expected = (ratio_x[:, None] / ratio_z > 1.0).mean(axis=1)

    mean_x = offline_mean(mean_log_confidence(of_x, ~member), a)[0]
    mean_z = offline_mean(mean_log_confidence(of_z, np.ones((m // 2, k), np.bool_)), a)[0]
    found = pairwise_shares(log_confidence(own_x) - mean_x, log_confidence(own_z) - mean_z)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_confidence(own_x) - mean_x), ratio_x, rtol=1e-12)


@pytest.mark.parametrize("variant", ["online", "offline"])
@pytest.mark.parametrize(("gamma", "queries"), [(0.5, 1), (1.0, 1), (2.0, 3)])
def test_scores_are_those_of_plain_pairs(variant: Any, gamma: float, queries: int) -> None:
    """Every x against every z but itself, in probabilities; over queries the geometric mean."""
    world = ShadowWorld(
        np.random.default_rng(1),
        models=6,
        queries=queries,
        examples={"forget": 40, "unseen": 50, "retain": 30},
    )
    view = world.model(REMEMBERS)
    evidence = run(RobustMembershipAttack(variant=variant, gamma=gamma), view)

    def gain(split: SplitName, j: int) -> float:
        known = world.shadows.splits[split]
        own, inside = view.queries(split)[:, j], known.member[:, j]
        each = known.scores[:, :, j].astype(np.float64)
        product = 1.0
        for query in range(queries):
            trained = each[inside, query] if variant == "online" else None
            product *= plain_gain(own[query], each[~inside, query], trained, 0.3)
        return float(product ** (1.0 / queries))

    unseen = [gain("unseen", j) for j in range(50)]
    splits: tuple[tuple[SplitName, FloatArray | None], ...] = (
        ("forget", evidence.forget),
        ("unseen", evidence.unseen),
        ("retain", evidence.retain),
    )
    for split, scores in splits:
        assert scores is not None
        for j, score in enumerate(scores):
            others = [z for i, z in enumerate(unseen) if (split, i) != ("unseen", j)]
            own = gain(split, j)
            assert score == pytest.approx(np.mean([own / z > gamma for z in others]), abs=1e-12)


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=12),
    st.lists(st.integers(-3, 3), min_size=2, max_size=12),
    st.sampled_from([-1.0, 0.0, 1.0]),
)
def test_sorting_is_comparing_every_pair(
    left: list[int], right: list[int], log_gamma: float
) -> None:
    """With many ties, which do not count as above."""
    gains, population = np.array(left, float), np.array(right, float)
    gamma = float(np.exp(log_gamma))
    expected = [np.mean([x - z > np.log(gamma) for z in population]) for x in gains]
    np.testing.assert_allclose(pairwise_shares(gains, population, gamma), expected, atol=1e-15)
    expected = [
        np.mean([x - z > np.log(gamma) for i, z in enumerate(population) if i != j])
        for j, x in enumerate(population)
    ]
    found = pairwise_shares(population, population, gamma, same=True)
    np.testing.assert_allclose(found, expected, atol=1e-15)


@given(SEEDS)
def test_mean_confidence_is_that_of_the_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, arm = rng.normal(0, 5, (9, 2, 30)), halves(9, 30, rng)
    found = mean_log_confidence(scores, arm)
    for query in range(2):
        for j in range(30):
            expected = np.log(np.mean(expit(scores[arm[:, j], query, j])))
            assert found[query, j] == pytest.approx(expected, rel=1e-12)
    columns = np.flatnonzero(rng.random(30) < 0.5)
    of_some = mean_log_confidence(scores, arm, columns=columns)
    np.testing.assert_allclose(of_some, found[:, columns], rtol=1e-14)


def test_mean_confidence_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    scores, arm = rng.normal(0, 5, (8, 2, 100)).astype(np.float32), halves(8, 100, rng)
    whole = mean_log_confidence(scores, arm)
    monkeypatch.setattr(_likelihood, "CHUNK_ELEMENTS", 8 * 7)
    np.testing.assert_allclose(mean_log_confidence(scores, arm), whole, rtol=1e-14)


def test_confidences_that_underflow_keep_their_order() -> None:
    scores = np.array([-np.inf, -1e30, -1e4, -800.0, 0.0, 40.0, 1e4, np.inf])
    found = log_confidence(scores)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert found[2] == -1e4
    assert found[4] == pytest.approx(-np.log(2))
    assert found[5] == pytest.approx(-np.exp(-40.0))
    arm = np.ones((3, 1), np.bool_)
    sure = mean_log_confidence(np.array([-np.inf, -1e5, -1e5])[:, None, None], arm)
    assert sure.item() == pytest.approx(-1e5 + np.log(2 / 3))
    assert online_mean(sure, sure).item() == pytest.approx(sure.item())
    assert offline_mean(sure, 0.0).item() == pytest.approx(-np.log(2))


def test_a_shadow_model_that_answers_nan_is_named() -> None:
    scores = np.zeros((4, 2, 10))
    scores[2, 1, 7] = np.nan
    with pytest.raises(ValueError, match="shadow model 3 answers NaN"):
        mean_log_confidence(scores, np.ones((4, 10), np.bool_))


def test_two_shadow_models_are_enough() -> None:
    world = ShadowWorld(np.random.default_rng(3), models=2, lift=3.0)
    evidence = run(RobustMembershipAttack(), world.model(REMEMBERS))
    assert evidence.unseen is not None
    assert auc(evidence.forget, evidence.unseen) > 0.65
    assert evidence.detail["models_per_arm"] == [1.0, 1.0]


@pytest.mark.parametrize("variant", ["online", "offline"])
def test_chance_on_retrained_models_and_above_for_members(variant: Any) -> None:
    chance, members = [], []
    attack = RobustMembershipAttack(variant=variant)
    for seed in range(30):
        world = ShadowWorld(np.random.default_rng(seed), models=8, lift=2.0)
        for views, measures in ((RETRAINED, chance), (REMEMBERS, members)):
            evidence = run(attack, world.model(views))
            assert evidence.unseen is not None
            measures.append(auc(evidence.forget, evidence.unseen))
    spread = float(np.std(chance, ddof=1))
    assert abs(float(np.mean(chance)) - 0.5) < 3.0 * spread / np.sqrt(30)
    assert min(members) > 0.5 + 3.0 * spread


def test_the_mean_score_of_forget_is_the_auc_of_the_gains() -> None:
    """So at gamma 1 nothing is lost by the AUC of the scores."""
    evidence = run(RobustMembershipAttack(), ShadowWorld(np.random.default_rng(4)).model(REMEMBERS))
    assert evidence.unseen is not None
    assert auc(evidence.forget, evidence.unseen) == pytest.approx(
        float(evidence.forget.mean()), abs=0.01
    )


def test_the_variant_is_named() -> None:
    world = ShadowWorld(np.random.default_rng(5), models=4, queries=3)
    view = world.model(REMEMBERS)
    detail = run(RobustMembershipAttack(), view).detail
    assert detail["variant"] == "online, gamma = 1, 4 shadows, 3 queries"
    assert detail["population"] == 250
    offline = RobustMembershipAttack(variant="offline", gamma=2.0)
    assert run(offline, view).detail["variant"] == (
        "offline, a = 0.3, gamma = 2, 4 shadows, 3 queries"
    )


def test_examples_without_a_model_per_arm_are_left_out() -> None:
    world = ShadowWorld(np.random.default_rng(6), models=4)
    splits = dict(world.shadows.splits)
    member = splits["forget"].member.copy()
    member[:, 9] = True
    splits["forget"] = replace(splits["forget"], member=member)
    world.shadows = replace(world.shadows, splits=splits)
    evidence = run(RobustMembershipAttack(), world.model(REMEMBERS))
    assert evidence.detail["forget_left_out"] == 1
    np.testing.assert_array_equal(evidence.rows["forget"], np.delete(np.arange(150), 9))


def test_one_shadow_model_is_a_skip_that_names_the_remedy() -> None:
    world = ShadowWorld(np.random.default_rng(7), models=1)
    evidence = RobustMembershipAttack()(world.model(REMEMBERS), np.random.default_rng(0))
    assert evidence == Skipped(
        "needs at least 1 forget example with at least 1 shadow model in each arm, found 0; "
        "train more shadow models (--shadows N)"
    )


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"variant": "both"}, "variant must be 'online' or 'offline'"),
        ({"gamma": 0.0}, "gamma must be a finite number above 0"),
        ({"a": 1.5}, "a must be a number from 0 to 1"),
        ({"a": "much"}, "a must be a number from 0 to 1"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.rmia\.{key} \(got "):
        RobustMembershipAttack(**parameters)
