"""What can be detected is what simulated attacks detect, with the arithmetic of the attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from attacks.black_box import _likelihood
from unaudit.shadows import power
from unaudit.shadows.power import Power, median_variance, power_of, score_variance


def rejections(
    found: Power, remembered: float, uneven: float, rounds: int, rng: np.random.Generator
) -> float:
    """Share of simulated audits in which the t-test rejects.

    Args:
        found: numbers of models and examples; its shift is that of the shadow models.
        remembered: shift of the subject's forget examples.
        uneven: squared coefficient of variation of the examples' variances, log-normal.
    """
    models, count = found.models, found.forget + found.unseen
    forget = np.arange(count) < found.forget
    hits = 0
    for _ in range(rounds):
        spread = np.exp(rng.normal(size=count) * math.sqrt(math.log1p(uneven)) / 2)
        half = rng.random((models // 2, count)) < 0.5
        member = np.stack([half, ~half], axis=1).reshape(models, count)
        scores = (rng.normal(size=(models, count)) + found.shift * member) * spread
        own = (rng.normal(size=count) + remembered * forget) * spread
        ratios = _likelihood.likelihood_ratios(own[None], scores[:, None], member, ~member)
        pressed = _likelihood.bounded(ratios, 5.0)
        test = ttest_ind(pressed[forget], pressed[~forget], alternative="greater")
        hits += test.pvalue <= found.alpha
    return hits / rounds


@pytest.mark.parametrize(
    ("models", "forget", "unseen", "uneven"),
    [(16, 100, 300, 1.0), (32, 60, 60, 1.0), (64, 40, 100, 0.0), (64, 40, 100, 1.0)],
)
def test_the_shift_is_detected_as_often_as_promised(
    models: int, forget: int, unseen: int, uneven: float
) -> None:
    found = power_of(models, forget, unseen, 0.05)
    assert found is not None
    rng = np.random.default_rng(0)
    detected = rejections(found, found.shift, uneven, 300, rng)
    # a pooled variance is better than promised, as scores beyond 5 nats are pressed together
    assert 0.72 < detected < (0.92 if models < 64 else 0.88)
    assert rejections(found, 0.0, uneven, 300, rng) < 0.09
    assert rejections(found, found.shift / 2, uneven, 300, rng) < 0.6


def test_the_attack_takes_its_variance_where_it_is_said_to() -> None:
    assert power.PER_EXAMPLE == _likelihood.PER_EXAMPLE_MODELS


@pytest.mark.parametrize("arm", [16, 64])
def test_scores_vary_as_much_as_simulated_ones(arm: int) -> None:
    rng = np.random.default_rng(1)
    shift, count = 0.5, 40_000
    member = np.repeat([True, False], arm)[:, None] & np.ones(count, dtype=bool)
    spread = np.exp(rng.normal(size=count) * math.sqrt(math.log(2.0)) / 2) if arm < 32 else 1.0
    scores = (rng.normal(size=(2 * arm, count)) + shift * member) * spread
    own = rng.normal(size=count) * spread
    ratios = _likelihood.likelihood_ratios(own[None], scores[:, None], member, ~member)
    assert ratios.var() == pytest.approx(score_variance(shift, arm), rel=0.15)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 9, 16, 32, 101])
def test_the_variance_of_a_median(n: int) -> None:
    drawn = np.random.default_rng(n).normal(size=(40_000, n))
    assert median_variance(n) == pytest.approx(np.median(drawn, axis=1).var(), rel=0.05)


def test_with_endless_models_it_is_the_t_test_of_known_distributions() -> None:
    """Of which the score is linear in the confidence: 2.49 standard errors."""
    found = power_of(2_000_000, 5000, 5000, 0.05)
    assert found is not None
    assert found.shift == pytest.approx((1.6449 + 0.8416) * math.sqrt(2 / 5000), rel=0.01)


def test_more_of_anything_shows_more() -> None:
    def shift(models: int, forget: int, unseen: int, alpha: float) -> float:
        found = power_of(models, forget, unseen, alpha)
        assert found is not None
        return found.shift

    by_models = [shift(models, 200, 600, 0.05) for models in (4, 8, 16, 32, 60, 64, 128, 1024)]
    assert by_models == sorted(by_models, reverse=True)
    assert len(set(by_models)) == len(by_models)
    assert shift(64, 300, 600, 0.05) < shift(64, 200, 600, 0.05) < shift(64, 200, 400, 0.05)
    assert shift(64, 200, 600, 0.1) < shift(64, 200, 600, 0.05)


def test_without_anything_to_compare_there_is_none() -> None:
    assert power_of(64, 200, 0, 0.05) is None
    assert power_of(64, 0, 200, 0.05) is None
    assert power_of(64, 1, 1, 0.05) is None
    assert power_of(64, 1, 2, 0.05) is None
    assert power_of(64, 1, 5, 0.05) is not None


def test_it_is_said_in_a_sentence() -> None:
    found = Power(models=64, forget=200, unseen=597, alpha=0.05, shift=0.327)
    assert str(found) == (
        "64 shadow models and 200 forget examples can detect a mean shift of 0.33 standard "
        "deviations (80 % power at α = 5 %)"
    )
    assert found.least_fpr == 1 / 597
