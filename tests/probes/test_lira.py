"""LiRA as a probe: behavior under known truth, what is scored, what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from attacks.black_box._likelihood import bounded, likelihood_ratios
from attacks.black_box.lira import LikelihoodRatioAttack
from unaudit.errors import UsageError
from unaudit.evidence import Scores, Skipped
from unaudit.shadows import ShadowScores
from unaudit.stats import group_sums
from unaudit.views import BlackBox

from .shadow_worlds import REMEMBERS, RETRAINED, Mask, ShadowWorld
from .worlds import auc, measure, without


def test_combined_evidence_is_stronger_than_that_of_one_record() -> None:
    world = ShadowWorld(np.random.default_rng(6), examples={"forget": 400, "unseen": 400})
    evidence = run(LikelihoodRatioAttack(), world.model(REMEMBERS))
    assert evidence.unseen is not None
    groups = np.arange(400) // 8
    people = [group_sums(scores, groups).sums for scores in (evidence.forget, evidence.unseen)]
    assert auc(people[0], people[1]) > 0.96
    assert auc(evidence.forget, evidence.unseen) < 0.85
    assert evidence.detail["unit"] == "nats"


def test_scores_that_are_no_likelihood_ratios_do_not_add_up() -> None:
    view = ShadowWorld(np.random.default_rng(6), models=16).model(REMEMBERS)
    assert "unit" not in run(LikelihoodRatioAttack(variant="offline"), view).detail


def run(attack: LikelihoodRatioAttack, view: BlackBox) -> Scores:
    evidence = attack(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "mean-difference"
    return evidence


VARIANTS = [
    LikelihoodRatioAttack(),
    LikelihoodRatioAttack(center="mean", variance="pooled"),
    LikelihoodRatioAttack(variant="offline"),
]
every_variant = pytest.mark.parametrize("attack", VARIANTS, ids=["online", "mean", "offline"])


@every_variant
def test_unbiased_on_models_that_never_saw_the_forget_set(attack: LikelihoodRatioAttack) -> None:
    """Over worlds the mean-difference averages to 0, and a member stands out in each of them."""
    measures, members = [], []
    for seed in range(30):
        world = ShadowWorld(np.random.default_rng(seed), models=32)
        measures.append(measure(run(attack, world.model(RETRAINED))))
        members.append(measure(run(attack, world.model(REMEMBERS))))
    spread = float(np.std(measures, ddof=1))
    assert abs(float(np.mean(measures))) < 3.0 * spread / np.sqrt(30)
    assert min(members) > float(np.mean(measures)) + 3.0 * spread


def test_the_variant_is_named() -> None:
    world = ShadowWorld(np.random.default_rng(9), models=10, queries=2)
    view = world.model(REMEMBERS)
    named = {
        run(attack, view).detail["variant"]
        for attack in (
            LikelihoodRatioAttack(),
            LikelihoodRatioAttack(variance="global", center="mean"),
            LikelihoodRatioAttack(variant="offline", tail="density", variance="per-example"),
        )
    }
    assert named == {
        "online, median, pooled variance, 10 shadows, 2 queries",
        "online, mean, global variance, 10 shadows, 2 queries",
        "offline, density, median, per-example variance, 10 shadows, 2 queries",
    }
    assert run(LikelihoodRatioAttack(), view).detail["models_per_arm"] == [5.0, 5.0]


def test_scores_are_the_array_functions() -> None:
    world = ShadowWorld(np.random.default_rng(10), models=20, queries=3, classes=3)
    view = world.model(REMEMBERS)
    evidence = run(LikelihoodRatioAttack(variance="per-example"), view)
    for split, scores in (
        ("forget", evidence.forget),
        ("unseen", evidence.unseen),
        ("retain", evidence.retain),
    ):
        known = world.shadows.splits[split]  # type: ignore[index]
        ratios = likelihood_ratios(
            view.queries(split),  # type: ignore[arg-type]
            known.scores,
            known.member,
            ~known.member,
            variance="per-example",
        )
        alike = np.flatnonzero(world.labels[split] == 0)  # type: ignore[index]
        assert scores is not None
        np.testing.assert_array_equal(scores, bounded(ratios, 5.0)[alike])
        if split == "forget":
            assert split not in evidence.rows
        else:
            np.testing.assert_array_equal(evidence.rows[split], alike)  # type: ignore[index]


def test_only_examples_that_shadow_models_speak_of_are_scored() -> None:
    world = ShadowWorld(np.random.default_rng(11), models=20)
    known = world.shadows.splits["retain"]
    part = ShadowScores(np.arange(5, 105, 2), known.scores[:, :, 5:105:2], known.member[:, 5:105:2])
    shadows = replace(world.shadows, splits={**world.shadows.splits, "retain": part})
    world.shadows = shadows
    evidence = run(LikelihoodRatioAttack(variance="per-example"), world.model(REMEMBERS))
    np.testing.assert_array_equal(evidence.rows["retain"], np.arange(5, 105, 2))
    assert evidence.retain is not None
    assert len(evidence.retain) == 50
    world.shadows = replace(
        shadows, splits={name: shadows.splits[name] for name in ("forget", "unseen")}
    )
    assert run(LikelihoodRatioAttack(), world.model(REMEMBERS)).retain is None


def with_members(world: ShadowWorld, member: Mask) -> BlackBox:
    """The same answers, but other members of forget."""
    splits = dict(world.shadows.splits)
    splits["forget"] = replace(splits["forget"], member=member)
    world.shadows = replace(world.shadows, splits=splits)
    return world.model(REMEMBERS)


def test_examples_without_two_models_per_arm_are_left_out() -> None:
    world = ShadowWorld(np.random.default_rng(12), models=8)
    member = world.shadows.splits["forget"].member.copy()
    member[:, 3] = np.arange(8) == 0
    member[:, 7] = np.arange(8) != 0
    view = with_members(world, member)
    evidence = run(LikelihoodRatioAttack(), view)
    np.testing.assert_array_equal(evidence.rows["forget"], np.delete(np.arange(150), [3, 7]))
    assert evidence.detail["forget_left_out"] == 2
    offline = run(LikelihoodRatioAttack(variant="offline"), view)
    assert offline.detail["forget_left_out"] == 1
    assert offline.detail["models_per_arm"] == [pytest.approx((598 * 4 + 7) / 599, abs=0.005)]
    assert offline.detail["models_per_arm"] != [4.0]


def test_too_few_models_are_a_skip_that_names_the_remedy() -> None:
    world = ShadowWorld(np.random.default_rng(13), models=2)
    evidence = LikelihoodRatioAttack()(world.model(REMEMBERS), np.random.default_rng(0))
    assert evidence == Skipped(
        "needs at least 1 forget example with at least 2 shadow models in each arm, found 0; "
        "train more shadow models (--shadows N)"
    )


def test_too_few_unseen_examples_are_a_skip() -> None:
    world = ShadowWorld(np.random.default_rng(14), examples={"forget": 30, "unseen": 19})
    evidence = LikelihoodRatioAttack()(world.model(REMEMBERS), np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert evidence.reason.startswith("needs at least 20 unseen examples of the forget classes")


def test_without_shadow_models_or_unseen_examples_it_is_skipped() -> None:
    world = ShadowWorld(np.random.default_rng(15), models=8)
    view = world.model(REMEMBERS)
    evidence = LikelihoodRatioAttack()(without(view, "unseen"), np.random.default_rng(0))
    assert evidence == Skipped("needs unseen examples, which were not handed in")
    bare = BlackBox(
        {"forget": lambda: view.outputs("forget"), "unseen": lambda: view.outputs("unseen")},
        scenario="sample",
        forget_classes=(0,),
        n_classes=2,
    )
    evidence = LikelihoodRatioAttack()(bare, np.random.default_rng(0))
    assert evidence == Skipped("needs shadow models; add --shadows N")


def test_scores_beyond_the_clip_keep_their_rates() -> None:
    world = ShadowWorld(np.random.default_rng(18), lift=4.0)
    view = world.model(REMEMBERS)
    tight, loose = (run(LikelihoodRatioAttack(clip=clip), view) for clip in (1.0, 1e6))
    np.testing.assert_array_equal(rankdata(tight.forget), rankdata(loose.forget))


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"variant": "of-line"}, "variant must be 'online' or 'offline'"),
        ({"center": "mode"}, "center must be 'median' or 'mean'"),
        ({"variance": 3}, "variance must be 'auto', 'per-example', 'pooled' or 'global'"),
        ({"tail": "two-sided"}, "tail must be 'one-sided' or 'density'"),
        ({"clip": 0.0}, "clip must be a finite number above 0"),
        ({"epsilon": -1.0}, "epsilon must be a finite number above 0"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.lira\.{key} \(got "):
        LikelihoodRatioAttack(**parameters)
