"""KLoM: the paper's measure against a plain loop, and its form for one subject."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy, norm

from attacks.black_box import _likelihood
from attacks.black_box.klom import MarginDivergence, klom, standardized
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scalar, Skipped
from unaudit.views import BlackBox

from .shadow_worlds import REMEMBERS, RETRAINED, ShadowWorld, halves
from .worlds import without

EDGES = norm.ppf(np.arange(1, 20) / 20)


def plain_klom(unlearned: FloatArray, oracles: FloatArray) -> list[float]:
    """One example at a time, with numpy's histogram."""
    found = []
    for own, other in zip(unlearned.T, oracles.T, strict=True):
        own, other = np.clip(own, -100, 100), np.clip(other, -100, 100)
        low, high = min(own.min(), other.min()), max(own.max(), other.max())
        edges = np.linspace(low, high if high > low else low + 1, 21)
        p = np.histogram(own, edges)[0] / len(own)
        q = np.histogram(other, edges)[0] / len(other)
        found.append(sum(a * np.log(a / max(b, 1e-5)) for a, b in zip(p, q, strict=True) if a > 0))
    return found


@pytest.mark.parametrize("scale", [1.0, 80.0, 0.0])
def test_klom_is_the_plain_loop(scale: float) -> None:
    rng = np.random.default_rng(0)
    unlearned = scale * rng.normal(1.0, 1.2, (37, 25))
    oracles = scale * rng.normal(0.0, 1.0, (50, 25))
    np.testing.assert_allclose(
        klom(unlearned, oracles), plain_klom(unlearned, oracles), rtol=1e-12, atol=1e-15
    )


def test_klom_is_scipys_where_no_bin_is_empty() -> None:
    rng = np.random.default_rng(1)
    unlearned, oracles = rng.uniform(0, 1, (3000, 4)), rng.beta(1.2, 1, (4000, 4))
    for own, other, found in zip(unlearned.T, oracles.T, klom(unlearned, oracles), strict=True):
        edges = np.linspace(min(own.min(), other.min()), max(own.max(), other.max()), 21)
        p, q = np.histogram(own, edges)[0], np.histogram(other, edges)[0]
        assert q.min() > 0
        assert found == pytest.approx(entropy(p, q), rel=1e-9)


def test_klom_of_equal_samples_is_0_and_of_far_ones_bounded() -> None:
    rng = np.random.default_rng(2)
    margins = rng.normal(size=(100, 10))
    np.testing.assert_array_equal(klom(margins, margins[::-1]), 0.0)
    assert klom(margins + 1e6, margins) == pytest.approx(np.log(1e5))
    np.testing.assert_array_equal(klom(np.full((3, 2), 1e9), np.full((5, 2), 2e9)), 0.0)


def test_klom_falls_as_unlearned_models_come_closer() -> None:
    rng = np.random.default_rng(3)
    oracles = rng.normal(size=(100, 200))
    means = [klom(rng.normal(shift, 1, (100, 200)), oracles).mean() for shift in (2.0, 1.0, 0.0)]
    assert means[0] > 1.5 * means[1] > 2.0 * means[2]


def run(view: BlackBox, attack: MarginDivergence | None = None) -> Scalar:
    evidence = (attack or MarginDivergence())(view, np.random.default_rng(0))
    assert isinstance(evidence, Scalar)
    return evidence


def plain_bins(world: ShadowWorld, view: BlackBox) -> tuple[FloatArray, FloatArray]:
    """Bin of each forget example as one-hot rows, and shares of its oracles."""
    known = world.shadows.splits["forget"]
    own = view.outputs("forget").logit_confidence
    subject, shares = np.zeros((len(own), 20)), np.zeros((len(own), 20))
    for j, margin in enumerate(own):
        oracles = known.scores[~known.member[:, j], 0, j].astype(np.float64)
        z = (margin - oracles.mean()) / oracles.std(ddof=1)
        subject[j, np.sum(z >= EDGES)] = 1.0
        for i, one in enumerate(oracles):
            others = np.delete(oracles, i)
            distance = (one - others.mean()) / others.std(ddof=1)
            shares[j, np.sum(distance >= EDGES)] += 1.0 / len(oracles)
    return subject, shares


def divergence(p: FloatArray, q: FloatArray) -> float:
    return sum(a * float(np.log(a / max(b, 1e-5))) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("remembers", [REMEMBERS, RETRAINED], ids=["original", "retrained"])
def test_the_value_is_that_of_a_plain_loop(remembers: dict[str, float]) -> None:
    world = ShadowWorld(np.random.default_rng(4), models=32)
    view = world.model(remembers)
    evidence = run(view)
    subject, shares = plain_bins(world, view)
    p, q = subject.mean(axis=0), shares.mean(axis=0)
    assert evidence.value == pytest.approx(divergence(p, q), rel=1e-9)
    assert evidence.detail["share_by_bin"] == pytest.approx(p, abs=1e-4)
    json.dumps(dict(evidence.detail))


def test_influences_are_derivatives() -> None:
    """Weighing one example a little more moves the value by its influence."""
    world = ShadowWorld(np.random.default_rng(5), models=40)
    view = world.model(REMEMBERS)
    evidence = run(view)
    influence = evidence.influences["forget"]
    assert evidence.stderr == 0.0
    subject, shares = plain_bins(world, view)
    n, step = len(subject), 1e-4
    for j in range(0, n, 15):
        moved = []
        for sign in (1.0, -1.0):
            weights = np.ones(n)
            weights[j] += sign * step * n
            weights /= weights.sum()
            moved.append(divergence(weights @ subject, weights @ shares))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert influence[j] == pytest.approx(slope, rel=1e-3, abs=1e-4)
    assert float(influence.mean()) == pytest.approx(0.0, abs=1e-12)


def test_a_retrained_subject_is_spread_as_shadow_models_are() -> None:
    """Its value is the bias of 20 bins, 19/(2n), and a member's is far above."""
    values = []
    for seed in range(20):
        world = ShadowWorld(np.random.default_rng(seed), models=32, examples={"forget": 500})
        values.append(run(world.model(RETRAINED)).value)
        assert run(world.model(REMEMBERS)).value > 5 * 19 / 1000
    spread = float(np.std(values, ddof=1)) / np.sqrt(20)
    assert float(np.mean(values)) == pytest.approx(19 / 1000, abs=3 * spread)


def test_unsigned() -> None:
    world = ShadowWorld(np.random.default_rng(6), models=40)
    low, null, high = (run(world.model({"forget": share})).value for share in (-1.0, 0.0, 1.0))
    assert min(low, high) > 3 * null
    assert MarginDivergence.card.unsigned


def test_no_unseen_examples_are_needed() -> None:
    world = ShadowWorld(np.random.default_rng(7), models=40)
    view = world.model(REMEMBERS)
    assert run(without(without(view, "unseen"), "retain")).value == run(view).value


def test_examples_with_too_few_oracles_are_left_out() -> None:
    world = ShadowWorld(np.random.default_rng(8), models=24)
    splits = dict(world.shadows.splits)
    member = splits["forget"].member.copy()
    member[np.flatnonzero(~member[:, 5])[0], 5] = True
    splits["forget"] = replace(splits["forget"], member=member)
    world.shadows = replace(world.shadows, splits=splits)
    evidence = run(world.model(REMEMBERS))
    np.testing.assert_array_equal(evidence.rows["forget"], np.delete(np.arange(150), 5))
    assert evidence.detail["forget_left_out"] == 1
    assert evidence.detail["models_per_example"] == 12.0


@pytest.mark.parametrize(("models", "forget", "found"), [(20, 150, 0), (64, 19, 19)])
def test_too_little_is_a_skip_that_names_the_remedy(models: int, forget: int, found: int) -> None:
    world = ShadowWorld(np.random.default_rng(9), models=models, examples={"forget": forget})
    evidence = MarginDivergence()(world.model(REMEMBERS), np.random.default_rng(0))
    assert evidence == Skipped(
        "needs at least 20 forget examples with at least 12 shadow models that were never trained "
        f"on them, found {found}; train more shadow models (--shadows N)"
    )


def test_without_shadow_models_it_is_skipped() -> None:
    world = ShadowWorld(np.random.default_rng(10), models=4)
    view = world.model(REMEMBERS)
    bare = BlackBox(
        {"forget": lambda: view.outputs("forget")},
        scenario="sample",
        forget_classes=(0,),
        n_classes=2,
    )
    evidence = MarginDivergence()(bare, np.random.default_rng(0))
    assert evidence == Skipped("needs shadow models; add --shadows N")
    world.shadows = replace(world.shadows, splits={"unseen": world.shadows.splits["unseen"]})
    evidence = MarginDivergence()(world.model(REMEMBERS), np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "found 0" in evidence.reason


def test_equal_oracles_and_margins_beyond_the_cut() -> None:
    """Where oracles do not differ, an equal subject is in the middle and another one outside."""
    scores = np.full((20, 1, 4), 0.1, np.float32)
    scores[:, :, 1] = 3e38
    own = np.array([np.float64(np.float32(0.1)), 1e300, 0.2, -np.inf])
    never = np.ones((20, 4), np.bool_)
    subject, shares = standardized(own, scores, never, np.arange(4), 1e-30, EDGES)
    assert subject.tolist() == [10, 10, 19, 0]
    np.testing.assert_array_equal(shares[:, 10], 1.0)
    # means of equal numbers that are not quite the number
    margins = np.random.default_rng(13).normal(size=50)
    scores, never = np.tile(margins, (11, 1, 1)), np.ones((11, 50), np.bool_)
    subject, shares = standardized(margins, scores, never, np.arange(50), 1e-30, EDGES)
    np.testing.assert_array_equal(subject, 10)
    np.testing.assert_array_equal(shares[:, 10], 1.0)


def test_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ShadowWorld(np.random.default_rng(11), models=40)
    view = world.model(REMEMBERS)
    whole = run(view)
    monkeypatch.setattr(_likelihood, "CHUNK_ELEMENTS", 40 * 7)
    assert run(view).value == whole.value


def test_a_shadow_model_that_answers_nan_is_named() -> None:
    rng = np.random.default_rng(12)
    scores = rng.normal(size=(16, 1, 30))
    scores[6, 0, 3] = np.nan
    with pytest.raises(ValueError, match="shadow model 7 answers NaN"):
        standardized(np.zeros(30), scores, halves(16, 30, rng), np.arange(30), 1e-30, EDGES)


@pytest.mark.parametrize(
    ("parameters", "key"),
    [({"least_models": 3}, "least_models"), ({"epsilon": 0.0}, "epsilon")],
)
def test_refuses_parameters(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.klom\.{key} must be"):
        MarginDivergence(**parameters)
