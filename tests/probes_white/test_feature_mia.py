"""The activation attack and the geometry that it looks at."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.white_box._geometry import Geometry
from attacks.white_box.feature_mia import ActivationAttack
from tests.probes_white.arrays import FeatureWorld, make_labels, view_of
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scenario, Scores, Skipped, SplitName
from unaudit.stats import auc
from unaudit.white_box import WhiteBox


def make(seed: int = 0) -> dict[int, FloatArray]:
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal((4, 4))
    return {
        label: rng.standard_normal((60, 4)) @ shape + 5.0 * rng.standard_normal(4)
        for label in (0, 2, 7)
    }


def test_signals_are_distances_in_round_coordinates() -> None:
    by_class = make()
    geometry = Geometry.of(by_class)
    around = np.concatenate([x - x.mean(axis=0) for x in by_class.values()])
    covariance = around.T @ around / len(around)
    covariance += 0.1 * np.trace(covariance) / 4 * np.eye(4)
    precision = np.linalg.inv(covariance)
    queries = np.concatenate(list(by_class.values()))[::7]
    labels = np.repeat([0, 2, 7], 60)[::7]
    found = geometry.signals(queries, labels)
    for row, query, label in zip(found, queries, labels, strict=True):
        squares = {
            other: float((query - x.mean(axis=0)) @ precision @ (query - x.mean(axis=0)))
            for other, x in by_class.items()
        }
        own = squares.pop(int(label))
        other = min(squares.values())
        np.testing.assert_allclose(
            row, [np.sqrt(own), np.sqrt(other), own - other, own < other], rtol=1e-6, atol=1e-8
        )


def test_signals_ignore_turns_and_scale() -> None:
    by_class = make()
    turn = 3.0 * np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    labels = np.full(60, 2)
    one = Geometry.of(by_class).signals(by_class[2], labels)
    turned = {label: x @ turn for label, x in by_class.items()}
    np.testing.assert_allclose(one, Geometry.of(turned).signals(turned[2], labels), rtol=1e-6)


def test_collapsed_classes_are_finite() -> None:
    points = {0: np.zeros((5, 3)), 1: np.ones((5, 3))}
    signals = Geometry.of(points).signals(np.zeros((2, 3)), np.array([0, 1]))
    assert np.isfinite(signals).all()
    assert signals[0, 0] == 0


def ask(view: WhiteBox, seed: int = 0, **parameters: float) -> Scores:
    evidence = ActivationAttack(**parameters)(view, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert isinstance(evidence, Scores)
    return evidence


def measure(scores: Scores) -> float:
    assert scores.unseen is not None
    return auc(scores.forget, scores.unseen)


@pytest.mark.parametrize("scenario", ["class", "partial-class", "sample"])
def test_sees_training_and_its_absence(scenario: Scenario) -> None:
    world = FeatureWorld(scenario)
    assert measure(ask(world.train("forget", "retain"))) > 0.8
    assert abs(measure(ask(world.train("retain"))) - 0.5) < 0.08
    assert abs(measure(ask(world.train())) - 0.5) < 0.1


@pytest.mark.parametrize("scenario", ["class", "sample"])
def test_unbiased_where_nothing_tells_the_sides_apart(scenario: Scenario) -> None:
    sizes: dict[SplitName, int] = {"forget": 60, "retain": 200, "unseen": 150}
    found = [measure(ask(FeatureWorld(scenario, seed, sizes).train(), seed)) for seed in range(40)]
    stderr = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 0.5) < 3.5 * stderr < 0.06


def test_class_composition_alone_is_not_seen() -> None:
    # classes differ in spread, and the forget set holds them in other proportions
    rng = np.random.default_rng(0)
    labels = make_labels("sample", rng)
    labels["forget"] = np.where(rng.random(300) < 0.8, 0, labels["forget"])
    features = {}
    for split, own in labels.items():
        spread = 0.3 + 0.3 * own[:, None]
        points = 3 * np.eye(5, 8)[own] + spread * rng.standard_normal((len(own), 8))
        features[split] = points.astype(np.float32)
    assert abs(measure(ask(view_of(features, labels, "sample"))) - 0.5) < 0.07


def test_retain_is_the_positive_control() -> None:
    scores = ask(FeatureWorld("sample").train("retain"))
    assert scores.retain is not None
    assert scores.unseen is not None
    assert scores.detail["retain_auc"] == pytest.approx(auc(scores.retain, scores.unseen))
    assert scores.detail["retain_auc"] > 0.8
    assert len(scores.retain) == len(scores.rows["retain"])


def test_class_scenario_shows_forget_classes_only() -> None:
    world = FeatureWorld("class")
    scores = ask(world.train("retain"))
    assert scores.retain is None
    np.testing.assert_array_equal(
        scores.rows["unseen"], np.flatnonzero(world.labels["unseen"] == 0)
    )


def test_one_class_is_not_enough() -> None:
    labels = {split: np.zeros(40, dtype=np.int64) for split in ("forget", "retain", "unseen")}
    features = {split: np.ones((40, 2), dtype=np.float32) for split in labels}
    view = view_of(features, labels, "partial-class")  # type: ignore[arg-type]
    evidence = ActivationAttack()(view, np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "two classes" in evidence.reason


@pytest.mark.parametrize(("field", "value"), [("l2", -1.0), ("max_fit", 5)])
def test_bad_parameters_are_named(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"probes.feature-mia.{field} must be"):
        ActivationAttack(**{field: value})  # type: ignore[arg-type]
