"""AUS and accuracy: figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.black_box.accuracy import Accuracy
from attacks.black_box.aus import AdaptiveUnlearningScore, aus
from unaudit.evidence import IntArray, Scalar, Scenario, Scores, Skipped, SplitName
from unaudit.views import BlackBox

from .worlds import Logits, make_view, make_world, without


@pytest.mark.parametrize(
    ("a_f", "a_t", "a_or", "scenario", "expected"),
    [
        (0.0, 0.9, 0.9, "class", 1.0),
        (1.0, 0.9, 0.9, "class", 0.5),
        (0.25, 0.8, 0.9, "class", 0.9 / 1.25),
        (0.9, 0.9, 0.9, "sample", 1.0),
        (1.0, 0.8, 0.9, "sample", 0.9 / 1.2),
        (0.6, 0.8, 0.9, "sample", 0.9 / 1.2),
        (1.0, 0.8, 0.9, "partial-class", 0.9 / 1.2),
        (0.0, 0.95, 0.9, "class", 1.05),
    ],
)
def test_aus_by_hand(
    a_f: float, a_t: float, a_or: float, scenario: Scenario, expected: float
) -> None:
    assert aus(a_f, a_t, a_or, scenario) == pytest.approx(expected, abs=1e-12)


def test_second_formula_scores_a_removed_class_backwards() -> None:
    """Why the scenario matters: by |A_f − A_t| the model that still knows the class comes first."""
    knows, removed = (0.9, 0.9, 0.9), (0.0, 0.9, 0.9)
    assert aus(*knows, "sample") > aus(*removed, "sample")
    assert aus(*knows, "class") < aus(*removed, "class")


def view_of(right: dict[SplitName, tuple[IntArray, np.ndarray]], scenario: Scenario) -> BlackBox:
    """A view from (labels, whether each prediction is right) per split, three classes."""
    logits: dict[SplitName, Logits] = {}
    for split, (labels, correct) in right.items():
        predicted = np.where(correct, labels, (labels + 1) % 3)
        logits[split] = np.eye(3, dtype=np.float32)[predicted]
    return make_view(logits, {split: own for split, (own, _) in right.items()}, scenario)


def ratio(right: int, total: int) -> np.ndarray:
    return np.arange(total) < right


def test_class_scenario_asks_test_examples_of_the_class() -> None:
    unseen = np.repeat([0, 1, 2], 40)

    def model(forget: int, forget_test: int, kept_test: int) -> BlackBox:
        return view_of(
            {
                "forget": (np.zeros(50, np.int64), ratio(forget, 50)),
                "unseen": (unseen, np.concatenate([ratio(forget_test, 40), ratio(kept_test, 80)])),
            },
            "class",
        )

    evidence = AdaptiveUnlearningScore()(
        model(50, 10, 64), model(0, 0, 72), np.random.default_rng(0)
    )
    assert isinstance(evidence, Scalar)
    assert evidence.detail == {
        "aus": pytest.approx((1 - (0.9 - 0.8)) / (1 + 0.25)),
        "formula": "class removal",
        "forget_accuracy": 0.25,
        "test_accuracy": 0.8,
        "retrained_test_accuracy": 0.9,
    }
    assert evidence.value == pytest.approx(1 - 0.9 / 1.25)


def test_sample_scenario_asks_the_forget_set() -> None:
    def model(forget: int, test: int) -> BlackBox:
        labels = np.arange(100) % 3
        return view_of(
            {"forget": (labels[:50], ratio(forget, 50)), "unseen": (labels, ratio(test, 100))},
            "sample",
        )

    evidence = AdaptiveUnlearningScore()(model(50, 80), model(40, 90), np.random.default_rng(0))
    assert isinstance(evidence, Scalar)
    assert evidence.value == pytest.approx(1 - 0.9 / 1.2)
    assert evidence.detail["formula"] == "homogeneous removal"


@pytest.mark.parametrize(
    ("scenario", "forget_rate"), [("class", 0.3), ("sample", 0.9), ("sample", 0.5)]
)
def test_standard_error_covers_the_spread_over_examples(
    scenario: Scenario, forget_rate: float
) -> None:
    """Redraw the examples many times: the delta method must give their standard deviation."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [150, 300])
    values, errors = [], []
    for _ in range(400):
        forget = rng.random(1000) < forget_rate
        # an example that one model gets right, the other is likely to get right as well
        easy = rng.random(450) < 0.8
        own, other = easy | (rng.random(450) < 0.1), easy | (rng.random(450) < 0.2)
        own[labels == 0] = rng.random(150) < forget_rate
        views = [
            view_of(
                {"forget": (np.zeros(1000, np.int64), forget), "unseen": (labels, right)}, scenario
            )
            for right in (own, other)
        ]
        evidence = AdaptiveUnlearningScore()(views[0], views[1], rng)
        assert isinstance(evidence, Scalar)
        assert evidence.stderr is not None
        values.append(evidence.value)
        errors.append(evidence.stderr)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_aus_needs_unseen_examples_of_the_removed_class() -> None:
    world = make_world("class", retrained=1, sizes={"forget": 50, "retain": 100, "unseen": 60})
    probe = AdaptiveUnlearningScore()
    evidence = probe(world.original, world.retrained[0], np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "unseen examples of the forget classes" in evidence.reason


def test_aus_needs_unseen_examples_of_the_reference_too() -> None:
    world = make_world("sample", retrained=1)
    reference = without(world.retrained[0], "unseen")
    evidence = AdaptiveUnlearningScore()(world.original, reference, np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "unseen" in evidence.reason


def test_accuracy_detail_by_hand() -> None:
    view = view_of(
        {
            "forget": (np.repeat([0, 1], [30, 10]), np.concatenate([ratio(15, 30), ratio(10, 10)])),
            "retain": (np.repeat([0, 1, 2], 20), ratio(45, 60)),
            "unseen": (np.repeat([0, 1, 2], 20), ratio(30, 60)),
        },
        "sample",
    )
    evidence = Accuracy()(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    assert evidence.forget.mean() == 0.625
    assert evidence.detail == {
        "unlearning_accuracy": 0.375,
        "by_class": {"0": 0.5, "1": 1.0},
        "remaining_accuracy": 0.75,
        "testing_accuracy": 0.5,
    }
    # compared on classes 0 and 1 only
    np.testing.assert_array_equal(evidence.rows["unseen"], np.arange(40))


def test_accuracy_of_kept_classes_leaves_the_removed_one_out() -> None:
    view = view_of(
        {
            "forget": (np.zeros(30, np.int64), ratio(0, 30)),
            "unseen": (np.repeat([0, 1, 2], 20), ~ratio(20, 60)),
        },
        "class",
    )
    evidence = Accuracy()(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    assert evidence.detail["testing_accuracy"] == 1.0
    assert "remaining_accuracy" not in evidence.detail
    assert evidence.unseen is not None
    assert evidence.unseen.mean() == 0.0
