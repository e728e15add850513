"""U-LiRA: its arms, the paper's design on arrays, behavior under known truth, what it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from attacks.black_box._likelihood import likelihood_ratios, posterior
from attacks.black_box.u_lira import UnlearningLikelihoodRatio
from unaudit.errors import UsageError
from unaudit.evidence import Scores, Skipped
from unaudit.views import BlackBox

from .shadow_worlds import RETRAINED, ShadowWorld
from .worlds import auc, measure

UNLEARNED = {"forget": 0.5, "retain": 1.0}
"""What the stated unlearner leaves: half."""


def run(attack: UnlearningLikelihoodRatio, view: BlackBox) -> Scores:
    evidence = attack(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "mean-difference"
    return evidence


def test_scores_are_the_papers_by_a_plain_loop() -> None:
    """Per example p_in/(p_in + p_out) of two fitted normals, after unlearning in both."""
    world = ShadowWorld(np.random.default_rng(0), models=24)
    view = world.model(UNLEARNED)
    evidence = run(UnlearningLikelihoodRatio(center="mean", variance="per-example"), view)
    known = world.shadows.splits["forget"]
    assert known.unlearned is not None
    assert known.erased is not None
    own = view.queries("forget")[0]
    for j in range(150):
        answers = known.unlearned[:, 0, j].astype(np.float64)
        erased, never = answers[known.erased[:, j]], answers[~known.member[:, j]]
        p_in = norm.pdf(own[j], erased.mean(), erased.std())
        p_out = norm.pdf(own[j], never.mean(), never.std())
        assert evidence.forget[j] == pytest.approx(p_in / (p_in + p_out), rel=1e-9, abs=1e-12)


def test_models_that_kept_the_example_are_in_neither_arm() -> None:
    world = ShadowWorld(np.random.default_rng(1))
    expected = run(UnlearningLikelihoodRatio(), world.model(UNLEARNED))
    splits = dict(world.shadows.splits)
    for name, known in splits.items():
        assert known.unlearned is not None
        assert known.erased is not None
        kept = (known.member & ~known.erased)[:, None]
        splits[name] = replace(
            known, unlearned=np.where(kept, 1e6, known.unlearned), scores=known.scores - 5.0
        )
    twin = ShadowWorld(np.random.default_rng(1))
    twin.shadows = replace(twin.shadows, splits=splits)
    found = run(UnlearningLikelihoodRatio(), twin.model(UNLEARNED))
    np.testing.assert_array_equal(found.forget, expected.forget)


def test_the_papers_design_needs_masks_alone() -> None:
    """Bases × forget sets: models unlearned from one base share what it was trained on.

    The scores agree with those of the three-state design, which unlearns each base once.
    """
    rng = np.random.default_rng(2)
    n, bases, sets = 400, 128, 6
    worth, noise = rng.normal(0, 2, n), rng.uniform(0.5, 1.5, n)

    def unlearned(member: np.ndarray, erased: np.ndarray) -> np.ndarray:
        share = np.where(erased, 0.7, member)
        return (worth + share + noise * rng.normal(size=member.shape))[:, None]

    member = rng.random((bases, n)) < 0.5
    many = np.repeat(member, sets, axis=0)
    of_many = many & (rng.random(many.shape) < 0.5)
    once = member & (rng.random(member.shape) < 0.5)
    own = worth + noise * rng.normal(size=(1, n)) + 0.7 * (np.arange(n) < n // 2)
    paper, ours = (
        posterior(likelihood_ratios(own, unlearned(held, gone), gone, ~held))
        for held, gone in ((many, of_many), (member, once))
    )
    assert spearmanr(paper, ours).statistic > 0.85
    powers = [auc(scores[: n // 2], scores[n // 2 :]) for scores in (paper, ours)]
    assert powers[0] == pytest.approx(powers[1], abs=0.04)


def test_unbiased_on_retrained_models_and_fires_where_a_trace_is_left() -> None:
    measures, left = [], []
    for seed in range(30):
        world = ShadowWorld(np.random.default_rng(seed), lift=2.0)
        measures.append(measure(run(UnlearningLikelihoodRatio(), world.model(RETRAINED))))
        left.append(measure(run(UnlearningLikelihoodRatio(), world.model(UNLEARNED))))
    spread = float(np.std(measures, ddof=1))
    assert abs(float(np.mean(measures))) < 3.0 * spread / np.sqrt(30)
    assert min(left) > 3.0 * spread


def test_blind_where_unlearning_leaves_nothing() -> None:
    """Then both arms are one, and even a model that never unlearned cannot be told."""
    world = ShadowWorld(np.random.default_rng(3), kept=0.0)
    measures = [
        measure(run(UnlearningLikelihoodRatio(variance="pooled"), world.model({"forget": share})))
        for share in (0.0, 0.5)
    ]
    assert abs(measures[1] - measures[0]) < 0.05


def test_what_was_done_is_told() -> None:
    world = ShadowWorld(np.random.default_rng(4), models=16, queries=2)
    evidence = run(UnlearningLikelihoodRatio(), world.model(UNLEARNED))
    accuracy = (np.mean(evidence.forget > 0.5) + np.mean(evidence.unseen <= 0.5)) / 2  # type: ignore[operator]
    detail = dict(evidence.detail)
    erased, never = detail.pop("models_per_arm")
    assert never == 8.0
    assert 3.0 < erased < 5.0
    assert detail == {
        "variant": "median, pooled variance, 16 shadows, 2 queries",
        "statistic": "p_in / (p_in + p_out)",
        "unlearner": "half-forget",
        "arms": ["trained on and unlearned", "never trained on, unlearner run on others"],
        "accuracy": pytest.approx(accuracy),
        **({"forget_left_out": detail["forget_left_out"]} if "forget_left_out" in detail else {}),
    }


def test_answers_beyond_all_densities_stay_between_0_and_1() -> None:
    world = ShadowWorld(np.random.default_rng(5), lift=50.0)
    for share in (-100.0, 0.0, 1.0, 100.0):
        evidence = run(UnlearningLikelihoodRatio(), world.model({"forget": share}))
        assert evidence.forget.min() >= 0.0
        assert evidence.forget.max() <= 1.0


def test_shadow_models_that_did_not_unlearn_are_a_skip() -> None:
    world = ShadowWorld(np.random.default_rng(6))
    world.shadows = replace(world.shadows, unlearner=None)
    evidence = UnlearningLikelihoodRatio()(world.model(UNLEARNED), np.random.default_rng(0))
    assert evidence == Skipped("needs the unlearning method that was used; add --unlearner METHOD")


@pytest.mark.parametrize("models", [2, 3])
def test_too_few_models_are_a_skip_that_names_the_remedy(models: int) -> None:
    world = ShadowWorld(np.random.default_rng(7), models=models)
    evidence = UnlearningLikelihoodRatio()(world.model(UNLEARNED), np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "at least 2 shadow models in each arm" in evidence.reason
    assert "--shadows" in evidence.reason


def test_a_split_that_was_not_unlearned_is_not_scored() -> None:
    world = ShadowWorld(np.random.default_rng(8))
    retain = replace(world.shadows.splits["retain"], unlearned=None, erased=None)
    world.shadows = replace(world.shadows, splits={**world.shadows.splits, "retain": retain})
    assert run(UnlearningLikelihoodRatio(), world.model(UNLEARNED)).retain is None


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"center": "mode"}, "center must be 'median' or 'mean'"),
        ({"variance": "fixed"}, "variance must be 'auto', "),
        ({"epsilon": 0}, "epsilon must be a finite number above 0"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.u-lira\.{key}"):
        UnlearningLikelihoodRatio(**parameters)
