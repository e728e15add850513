"""Controls, residual indices and pooling, on scores of known truth."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.worlds import ScoreWorld, case_of, measurement_of, probe_of
from unaudit.calibration import Calibrated, calibrate, choose_mode
from unaudit.columns import measure_of
from unaudit.evidence import Scalar, Scores
from unaudit.measuring import Measurement, Reading
from unaudit.pooling import pool

if TYPE_CHECKING:
    from unaudit.case import Case

ALPHA, TAU = 0.05, 0.5


def run(measurements: list[Measurement], case: Case | None = None) -> list[Calibrated]:
    return calibrate(
        measurements,
        case or case_of(),
        alpha=ALPHA,
        tau=TAU,
        replicates=400,
        rng=np.random.default_rng(7),
    )


def world_of(seed: int = 0, **settings: float) -> ScoreWorld:
    return ScoreWorld(np.random.default_rng(seed), **settings)  # type: ignore[arg-type]


def measured(
    world: ScoreWorld, subject: float, retrained: int = 5, name: str = "toy"
) -> Measurement:
    return measurement_of(
        world.model(subject, "mean-difference"),
        world.model(1.0, "mean-difference"),
        [world.model(0.0, "mean-difference") for _ in range(retrained)],
        probe_of(name),
    )


@pytest.mark.parametrize(("remembered", "index"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_the_index_says_how_much_is_left(remembered: float, index: float) -> None:
    world = world_of(effect=1.5, spread=0.02, noise=0.05)
    (found,) = run([measured(world, remembered, retrained=10)])
    assert found.informative
    assert found.index is not None
    assert found.index.estimate == pytest.approx(index, abs=0.12)
    assert found.index.low is not None
    assert found.index.high is not None
    assert found.index.low < index < found.index.high


def test_a_probe_that_cannot_see_the_original_is_not_informative() -> None:
    (found,) = run([measured(world_of(effect=0.0), 0.0)])
    assert not found.informative
    assert found.positive == "failed"
    assert found.reason == "cannot tell the original from the retrained models on this data"


def test_a_probe_that_flags_a_held_out_retrained_model_is_not_informative() -> None:
    world = world_of(effect=3.0, spread=0.01, noise=0.01)
    odd_one_out = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.7]
    measurement = measurement_of(
        world.model(0.0), world.model(1.0), [world.model(r) for r in odd_one_out]
    )
    (found,) = run([measurement])
    assert found.negative == "failed"
    assert found.reason == "flags a retrained model that was held out"


@pytest.mark.parametrize(("m", "control"), [(2, "not-run"), (3, "passed"), (5, "passed")])
def test_the_negative_control_needs_three_retrained_models(m: int, control: str) -> None:
    world = world_of(effect=2.0, spread=0.02, noise=0.05)
    (found,) = run([measured(world, 0.0, retrained=m)], case_of(retrained=m))
    assert found.negative == control


def test_one_retrained_model_is_said_to_be_too_few() -> None:
    measurement = measured(world_of(), 0.0, retrained=1)
    mode, reason = choose_mode(measurement, case_of(retrained=1, scenario="class"))
    assert mode is None
    assert reason is not None
    assert "one retrained model has no spread" in reason


def test_without_references_retain_is_the_positive_control() -> None:
    world = world_of(seed=1, effect=1.0, noise=0.1)
    case = case_of(retrained=0, original=False)
    alone = measurement_of(world.model(0.0), None, [])
    (found,) = run([alone], case)
    assert found.mode == "in-model"
    assert found.informative
    assert found.index is not None
    assert found.index.estimate == pytest.approx(0.0, abs=0.2)
    (still_there,) = run([measurement_of(world.model(1.0), None, [])], case)
    assert still_there.index is not None
    assert still_there.index.estimate == pytest.approx(1.0, abs=0.2)


def test_without_references_the_class_scenario_is_not_identified() -> None:
    case = case_of(retrained=0, original=False, scenario="class")
    (found,) = run([measurement_of(world_of().model(0.0), None, [])], case)
    assert found.mode is None
    assert found.reason == (
        "needs an original and at least two retrained models; add --original, --retrained"
    )


def test_a_blind_in_model_control_says_so() -> None:
    case = case_of(retrained=0, original=False)
    (found,) = run([measurement_of(world_of(effect=0.0).model(0.0), None, [])], case)
    assert found.reason == "cannot tell retained from unseen examples on this data"


def test_a_scalar_brings_its_own_standard_error() -> None:
    def reading(value: float) -> Reading:
        return Reading((Scalar(value, stderr=0.1),))

    measurement = Measurement(
        probe_of(), reading(0.0), reading(1.0), tuple(reading(v) for v in (0.0, 0.0, 0.0))
    )
    (found,) = run([measurement])
    assert found.scale is not None
    spread = found.scale.deviations.std(axis=0)
    assert spread == pytest.approx(0.1, rel=0.15)
    exact = Measurement(
        probe_of(), *(Reading((Scalar(v),)) for v in (0.0, 1.0)), (Reading((Scalar(0.0),)),) * 3
    )
    (unknown,) = run([exact])
    assert not unknown.informative


def test_equal_scores_are_not_known_beyond_one_example() -> None:
    """Two forget examples, all correct or all wrong, are no evidence of anything."""

    def flags(value: float) -> Reading:
        return Reading((Scores(np.full(2, value)),))

    measurement = Measurement(probe_of(), flags(0.0), flags(1.0), (flags(0.0), flags(0.0)))
    (found,) = run([measurement], case_of(forget=2, retrained=2))
    assert found.index is None or found.index.high is None or found.index.high > TAU


@pytest.mark.parametrize("m", [3, 5])
def test_agreement_of_a_few_retrained_models_is_not_certainty(m: int) -> None:
    """An attacker that says 0 of all references and ½ of a fresh retrained model must not fail it:
    seen with a confidence attack on CIFAR-10."""

    def said(value: float) -> Reading:
        return Reading((Scores(np.full(5000, value)),))

    measurement = Measurement(probe_of(), said(0.5), said(0.5134), (said(0.0),) * m)
    (found,) = run([measurement], case_of(forget=5000, retrained=m))
    assert found.index is not None
    # doubled for the two sides of membership and for the probes' half of alpha, over 7 probes
    assert found.index.p_residual * 2 * 2 * 7 > ALPHA


def test_scalars_of_a_model_share_their_noise() -> None:
    """Sixteen copies of one noisy scalar are known no better than one."""

    def reading(value: float) -> Reading:
        return Reading((Scalar(value, stderr=0.1),))

    measurement = Measurement(
        probe_of(), reading(0.0), reading(1.0), tuple(reading(v) for v in (0.0, 0.2, -0.2, 0.1))
    )
    case = case_of(retrained=4)
    (single,), copies = run([measurement], case), run([measurement] * 16, case)
    pooled = pool(copies, ALPHA)
    assert pooled is not None
    assert single.index is not None
    assert pooled.index(ALPHA, TAU).high == pytest.approx(single.index.high, abs=0.02)


def test_a_family_of_blind_probes_rarely_claims_to_see() -> None:
    informative = 0
    for seed in range(60):
        blind = [measured(world_of(seed=1000 * seed + k, effect=0.0), 0.0) for k in range(10)]
        informative += any(found.informative for found in run(blind))
    assert informative <= 60 * ALPHA + 3 * np.sqrt(60 * ALPHA * (1 - ALPHA))


def test_measures_follow_their_statistic() -> None:
    forget, unseen = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert measure_of(Scores(forget)) == 2.0
    assert measure_of(Scores(forget, unseen, statistic="mean-difference")) == 1.0
    # of 6 pairs 4 are ordered and 1 is tied
    assert measure_of(Scores(forget, unseen, statistic="auc")) == pytest.approx(4.5 / 6)
    with pytest.raises(ValueError, match="needs scores of unseen"):
        measure_of(Scores(forget, statistic="auc"))


def test_deviations_are_those_of_a_plain_paired_bootstrap() -> None:
    """The linear joint bootstrap against resampling examples and computing the AUC again."""
    world = world_of(seed=3)
    models = [world.model(r) for r in (0.3, 1.0, 0.0, 0.0, 0.0)]
    (found,) = run([measurement_of(models[0], models[1], models[2:])], case_of(retrained=3))
    assert found.scale is not None
    rng = np.random.default_rng(0)
    plain = []
    for _ in range(400):
        f, u = rng.integers(0, 200, 200), rng.integers(0, 400, 400)
        again = []
        for scores in models:
            assert scores.unseen is not None
            pair = scores.forget[f][:, None] - scores.unseen[u][None, :]
            again.append((pair > 0).mean() + 0.5 * (pair == 0).mean())
        plain.append(again)
    covariance = np.cov(np.array(plain).T)
    assert np.cov(found.scale.deviations.T) == pytest.approx(covariance, rel=0.35, abs=2e-5)


def test_the_pool_of_copies_of_one_probe_is_that_probe() -> None:
    """Correlated probes must not count twice: ten copies carry no more than one."""
    one = measured(world_of(seed=5), 0.2)
    (single,) = run([one])
    copies = run([one] * 10)
    pooled = pool(copies, ALPHA)
    assert pooled is not None
    assert single.index is not None
    index = pooled.index(ALPHA, TAU)
    assert index.estimate == pytest.approx(single.index.estimate)
    assert index.low == pytest.approx(single.index.low, abs=0.01)
    assert index.high == pytest.approx(single.index.high, abs=0.01)


def test_the_pool_leaves_out_what_cannot_see() -> None:
    world = world_of(seed=6, effect=1.5, spread=0.05)
    good = measured(world, 0.0)
    blind = measured(world_of(seed=6, effect=0.0), 1.0)
    seeing, unseeing = run([good, blind])
    assert seeing.informative
    assert not unseeing.informative
    pooled = pool([seeing, unseeing], ALPHA)
    assert pooled is not None
    assert pooled.index(ALPHA, TAU).estimate == pytest.approx(seeing.index.estimate)  # type: ignore[union-attr]
    assert pool([unseeing], ALPHA) is None


def test_comparative_spread_is_that_of_a_fresh_model() -> None:
    """d(i, j) = a_i + a_j: the averages over the others must not understate the spread of the a."""
    rng = np.random.default_rng(2)
    false_alarms = 0
    for _ in range(200):
        a = rng.normal(size=6)  # five retrained models and a sixth, the subject
        pairs = a[:, None] + a[None, :]

        def reading(i: int, others: list[int], pairs: np.ndarray = pairs) -> Reading:
            return Reading(tuple(Scalar(float(pairs[i, j])) for j in others))

        original = Reading(tuple(Scalar(float(30 + a[j])) for j in range(5)))
        measurement = Measurement(
            probe_of(comparative=True),
            reading(5, list(range(5))),
            original,
            tuple(reading(i, [j for j in range(5) if j != i]) for i in range(5)),
        )
        (found,) = run([measurement])
        assert found.scale is not None
        assert found.scale.retrained.std() == pytest.approx(a[:5].std())
        index = found.scale.index(ALPHA, 0.0)
        false_alarms += index.p_residual <= ALPHA
    # 5 % of 200 with three binomial standard errors
    assert false_alarms <= 200 * ALPHA + 3 * np.sqrt(200 * ALPHA * (1 - ALPHA))


def test_a_clear_control_of_a_part_lends_no_weight_to_the_family() -> None:
    """Step-up correction is more lenient beside small p-values; only pooled probes stand side by
    side."""
    weak = [measured(world_of(seed, effect=0.2), 0.0, name=f"weak-{seed}") for seed in range(8)]

    def seeing(asks: str | None) -> int:
        """Weak probes that are informative beside clear ones."""
        clear = [measured(world_of(90 + n, effect=2.0), 0.0, name=f"clear-{n}") for n in range(6)]
        for measurement in clear:
            kind = type(measurement.probe)
            kind.card = dataclasses.replace(kind.card, asks=asks)  # type: ignore[arg-type]
        return sum(found.informative for found in run([*weak, *clear])[:8])

    assert seeing("canaries") == sum(found.informative for found in run(weak)) == 0
    assert seeing(None) > 0


def test_what_is_lost_on_one_probe_does_not_pay_for_what_is_kept_on_another() -> None:
    """Indices 1 and −5, equally precise: their mean is −2; with a floor of −τ it is ¼."""
    world = world_of(effect=1.5, spread=0.02, noise=0.05)
    calibrated = run([measured(world, 1.0, name="kept"), measured(world, -5.0, name="lost")])
    pooled, guarded = pool(calibrated, ALPHA), pool(calibrated, ALPHA, -TAU)
    assert pooled is not None
    assert guarded is not None
    assert pooled.subject == pytest.approx(-2.0, abs=0.2)
    assert guarded.subject == pytest.approx(0.25, abs=0.1)
    assert (pooled.deviations == guarded.deviations).all()
