"""MIA-I, margin and modified entropy: definitions, restriction to the forget classes, power."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from attacks.black_box._threshold import ThresholdAttack
from attacks.black_box.loss import LossAttack
from attacks.black_box.margin import MarginAttack
from attacks.black_box.modified_entropy import ModifiedEntropyAttack, modified_entropy
from unaudit import views
from unaudit.errors import UsageError
from unaudit.evidence import IntArray, Scenario, Scores, Skipped, SplitName
from unaudit.views import BlackBox, Outputs

from .worlds import auc, make_view, make_world, without

ATTACKS = [LossAttack, MarginAttack, ModifiedEntropyAttack]
every_attack = pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.__name__)


def run(attack: ThresholdAttack, view: BlackBox, seed: int = 0) -> Scores:
    evidence = attack(view, np.random.default_rng(seed))
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "auc"
    return evidence


def view_of(logits: npt.NDArray[np.float32], labels: IntArray) -> BlackBox:
    return make_view({"forget": logits}, {"forget": labels}, "sample")


def naive_modified_entropy(p: np.ndarray, label: int) -> float:
    """As printed in the paper; breaks down where p rounds to 1."""
    value = -(1 - p[label]) * math.log(p[label])
    for other in range(len(p)):
        if other != label:
            value -= p[other] * math.log(1 - p[other])
    return float(value)


def test_modified_entropy_is_the_papers_formula() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (300, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 300)
    p = softmax(logits.astype(np.float64), axis=1)
    expected = [naive_modified_entropy(*row) for row in zip(p, labels, strict=True)]
    np.testing.assert_allclose(modified_entropy(Outputs(logits, labels)), expected, rtol=1e-9)


def test_modified_entropy_of_certain_answers() -> None:
    """Closed forms at logits (1000, 0, 0), where the naive formula takes the logarithm of 0."""
    logits = np.array([[1000.0, 0.0, 0.0]] * 2, np.float32)
    right, wrong = modified_entropy(Outputs(logits, np.array([0, 1])))
    assert right == 0.0
    # (1 − p_y)(1000) + p_0 (1000 − ln 2), since 1 − p_0 = 2 exp(−1000)
    assert wrong == pytest.approx(1000.0 + 1000.0 - math.log(2), rel=1e-12)


def test_modified_entropy_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(100, 4)).astype(np.float32), rng.integers(0, 4, 100)
    whole = modified_entropy(Outputs(logits, labels))
    monkeypatch.setattr(views, "CHUNK_ELEMENTS", 4 * 7)
    np.testing.assert_array_equal(modified_entropy(Outputs(logits, labels)), whole)


def test_loss_is_the_cross_entropy_and_clipped() -> None:
    logits = np.array([[2.0, 1.0], [500.0, 0.0]], np.float32)
    score = LossAttack().score(view_of(logits, np.array([1, 1])), "forget")
    assert score[0] == pytest.approx(math.log(1 / (1 + math.e)))
    assert score[1] == -100.0


def test_margin_is_own_logit_minus_best_rival() -> None:
    logits = np.array([[2.0, 5.25, 1.0], [2.0, 5.25, 1.0]], np.float32)
    score = MarginAttack().score(view_of(logits, np.array([1, 2])), "forget")
    np.testing.assert_array_equal(score, [3.25, -4.25])


def test_mia_1_is_a_naive_loop_over_pairs_of_the_forget_classes() -> None:
    view = make_world("partial-class", retrained=1).original

    def losses(split: SplitName) -> list[float]:
        outputs = view.outputs(split)
        p = softmax(outputs.logits.astype(np.float64), axis=1)
        rows = zip(p, outputs.labels.tolist(), strict=True)
        return [-math.log(row[label]) for row, label in rows if label == 0]

    forget, unseen = losses("forget"), losses("unseen")
    wins = [float(own < other) + 0.5 * float(own == other) for own in forget for other in unseen]
    evidence = run(LossAttack(), view)
    assert evidence.unseen is not None
    assert auc(evidence.forget, evidence.unseen) == pytest.approx(float(np.mean(wins)), abs=1e-12)


def test_mia_1_accuracy_agrees_with_a_naive_regression() -> None:
    view = make_world("sample", retrained=1).original
    evidence = run(LossAttack(), view)
    assert evidence.unseen is not None
    size = min(len(evidence.forget), len(evidence.unseen))
    rng = np.random.default_rng(3)
    signal = np.concatenate([evidence.forget, rng.choice(evidence.unseen, size, replace=False)])
    label = np.repeat([1, 0], size)
    order = rng.permutation(2 * size)
    train, test = order[:size], order[size:]
    model = LogisticRegression().fit(signal[train, None], label[train])
    naive = model.score(signal[test, None], label[test])
    assert evidence.detail["attack_accuracy"] == pytest.approx(naive, abs=0.06)
    assert evidence.detail["fitted_per_side"] == size // 2


def test_mia_1_accuracy_is_chance_for_a_retrained_model() -> None:
    view = make_world("sample", retrained=1).retrained[0]
    assert run(LossAttack(), view).detail["attack_accuracy"] == pytest.approx(0.5, abs=0.06)


@every_attack
@pytest.mark.parametrize("scenario", ["sample", "partial-class", "class"])
def test_compares_within_the_forget_classes(
    kind: type[ThresholdAttack], scenario: Scenario
) -> None:
    view = make_world(scenario, retrained=1).original
    evidence = run(kind(), view)
    unseen = np.flatnonzero(np.isin(view.outputs("unseen").labels, view.forget_classes))
    assert evidence.unseen is not None
    assert len(evidence.unseen) == len(unseen)
    if scenario == "sample":
        assert not evidence.rows
        assert evidence.retain is not None
    else:
        np.testing.assert_array_equal(evidence.rows["unseen"], unseen)
        # a removed class has no retain examples that could be compared
        assert (evidence.retain is None) == (scenario == "class")
    expected = kind().score(view, "unseen")[unseen]
    np.testing.assert_array_equal(evidence.unseen, expected)


@every_attack
def test_retain_is_as_far_from_unseen_as_an_unforgotten_forget_set(
    kind: type[ThresholdAttack],
) -> None:
    evidence = run(kind(), make_world("sample", retrained=1).original)
    assert evidence.unseen is not None
    assert evidence.retain is not None
    control = roc_auc_score(
        np.repeat([1, 0], [len(evidence.retain), len(evidence.unseen)]),
        np.concatenate([evidence.retain, evidence.unseen]),
    )
    assert auc(evidence.forget, evidence.unseen) == pytest.approx(control, abs=0.05)


@every_attack
def test_too_few_unseen_examples_of_the_forget_classes_are_a_skip(
    kind: type[ThresholdAttack],
) -> None:
    world = make_world(
        "class", retrained=1, sizes={"forget": 50, "retain": 100, "unseen": 60}
    ).original
    found = int((world.outputs("unseen").labels == 0).sum())
    assert found < 20
    evidence = kind()(world, np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert evidence.reason == (
        f"needs at least 20 unseen examples of the forget classes, found {found}"
    )


@every_attack
def test_runs_without_retain(kind: type[ThresholdAttack]) -> None:
    view = make_world("sample", retrained=1).original
    whole, less = run(kind(), view), run(kind(), without(view, "retain"))
    assert less.retain is None
    np.testing.assert_array_equal(whole.forget, less.forget)


def test_few_forget_examples_have_no_regression_but_an_auc() -> None:
    world = make_world("sample", retrained=1, sizes={"forget": 19, "retain": 99, "unseen": 99})
    evidence = run(LossAttack(), world.original)
    assert not evidence.detail
    assert len(evidence.forget) == 19


@pytest.mark.parametrize(
    ("parameters", "key"), [({"clip": 0.0}, "clip"), ({"max_fit": 3}, "max_fit")]
)
def test_loss_refuses_parameters(parameters: dict[str, float], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.loss\.{key} must be"):
        LossAttack(**parameters)  # type: ignore[arg-type]


def test_forget_classes_come_from_the_view_not_from_the_scenario() -> None:
    """A sample forget set that happens to touch two classes is compared within those two."""
    rng = np.random.default_rng(0)
    labels = {
        "forget": rng.integers(0, 2, 50),
        "unseen": rng.integers(0, 4, 200),
    }
    logits = {
        split: rng.normal(size=(len(own), 4)).astype(np.float32) for split, own in labels.items()
    }
    evidence = run(MarginAttack(), make_view(logits, labels, "sample"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(evidence.rows["unseen"], np.flatnonzero(labels["unseen"] < 2))
