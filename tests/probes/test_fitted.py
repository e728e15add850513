"""C-MIA, E-MIA and MIA-II: the attackers, their cross-fitting, and what they are fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from attacks.black_box._attackers import BoolArray, Decide, fit_logistic, fit_svc
from attacks.black_box._crossfit import FittedAttack, cross_fit
from attacks.black_box.confidence import ConfidenceAttack
from attacks.black_box.entropy import EntropyAttack
from attacks.black_box.train_vs_test import TrainVersusTestAttack
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scores, Skipped, SplitName
from unaudit.views import BlackBox

from .worlds import N_CLASSES, Logits, auc, make_labels, make_view, make_world

ATTACKS = [ConfidenceAttack, EntropyAttack, TrainVersusTestAttack]
every_attack = pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.__name__)


def run(attack: FittedAttack, view: BlackBox, seed: int = 0) -> Scores:
    evidence = attack(view, np.random.default_rng(seed))
    assert isinstance(evidence, Scores)
    return evidence


def two_groups(n: int, seed: int = 0) -> tuple[FloatArray, BoolArray]:
    rng = np.random.default_rng(seed)
    member = np.repeat([True, False], n)
    return 1 / (1 + np.exp(-rng.normal(1.0 + member, 1.5))), member


@pytest.mark.parametrize("span", [1.0, math.log(10), math.log(60_000)])
def test_interpolated_svc_decides_like_sklearns(span: float) -> None:
    signal, member = two_groups(300)
    signal = signal * span
    values = np.concatenate([np.linspace(0.0, span, 4001), signal])
    machine = SVC(C=3, kernel="rbf", gamma="auto").fit(signal[:, None], member)
    clear = np.abs(machine.decision_function(values[:, None])) > 1e-8
    assert clear.mean() > 0.99
    decided = fit_svc(signal, member, penalty=3.0, span=span)(values)
    np.testing.assert_array_equal(decided[clear], machine.predict(values[:, None])[clear])
    assert 0.0 < decided.mean() < 1.0


def test_svc_does_not_extrapolate() -> None:
    signal, member = two_groups(100)
    decide = fit_svc(signal, member, penalty=3.0, span=1.0)
    above, below = decide(np.linspace(1.0, 3.0, 50)), decide(np.linspace(-2.0, 0.0, 50))
    assert above.all()
    assert not below.any()


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
def test_attackers_survive_a_constant_signal(constant: float) -> None:
    signal, member = np.full(40, constant), np.repeat([True, False], 20)
    for decide in (fit_svc(signal, member, penalty=3.0, span=1.0), fit_logistic(signal, member)):
        assert len(set(decide(signal).tolist())) == 1


def test_logistic_decides_like_sklearns() -> None:
    signal, member = two_groups(200)
    scaler = StandardScaler().fit(signal[:, None])
    model = LogisticRegression().fit(scaler.transform(signal[:, None]), member)
    values = np.linspace(-1.0, 2.0, 1001)
    expected = model.predict(scaler.transform(values[:, None]))
    np.testing.assert_array_equal(fit_logistic(signal, member)(values), expected)


def memorizer(signal: FloatArray, member: BoolArray) -> Decide:
    """Calls members exactly the values that it was shown as members, and all that it never saw."""
    others = set(signal[~member].tolist())
    return lambda values: np.array([value not in others for value in values.tolist()], dtype=bool)


def test_nobody_is_judged_by_an_attacker_that_was_fitted_on_him() -> None:
    values = np.arange(150, dtype=np.float64)
    fitted = cross_fit(
        values[:50], values[50:120], values[120:], memorizer, 1000, np.random.default_rng(0)
    )
    # in sample the memorizer would call no other a member
    assert fitted.others.all()
    assert fitted.members.all()
    assert fitted.bystanders.all()


def test_attackers_are_fitted_on_balanced_disjoint_halves() -> None:
    seen: list[tuple[FloatArray, BoolArray]] = []

    def spy(signal: FloatArray, member: BoolArray) -> Decide:
        seen.append((signal, member))
        return lambda values: np.zeros(len(values), dtype=bool)

    values = np.arange(1000, dtype=np.float64)
    fitted = cross_fit(
        values[:700], values[700:800], values[800:], spy, 30, np.random.default_rng(0)
    )
    assert fitted.fitted_per_side == 30
    (first, member), (second, _) = seen
    assert member.sum() == 30
    assert (~member).sum() == 30
    assert (first[member] < 700).all()
    assert ((first[~member] >= 700) & (first[~member] < 800)).all()
    assert not set(first) & set(second)
    assert len(set(first) | set(second)) == 120
    # drawn from all members, not the first ones
    assert abs(first[member].mean() - 350) < 4 * 202 / math.sqrt(30)


def test_bystanders_that_are_no_members_have_auc_one_half() -> None:
    """By the mean of both attackers' votes it misses ½, here by fifteen standard errors."""

    def harsh_or_mild(signal: FloatArray, member: BoolArray) -> Decide:
        # a threshold that differs much between the halves, as a weak attacker's does
        cut = 0.5 if signal[0] > 0 else -2.0
        return lambda values: np.asarray(values > cut)

    aucs, averaged = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        members, others, bystanders = rng.normal(size=(3, 300))
        fitted = cross_fit(members, others, bystanders, harsh_or_mild, 1000, rng)
        aucs.append(auc(fitted.bystanders, fitted.others))
        averaged.append(auc(fitted.bystander_votes, fitted.others))
    error = np.std(aucs) / math.sqrt(len(aucs))
    assert abs(np.mean(aucs) - 0.5) < 4 * error
    assert abs(np.mean(averaged) - 0.5) > 4 * error


@pytest.mark.parametrize("kind", [ConfidenceAttack, EntropyAttack], ids=lambda k: k.__name__)
def test_svc_attacks_agree_with_a_naive_one(kind: type[ConfidenceAttack | EntropyAttack]) -> None:
    """Same quantity from probabilities and whole-sample SVC, without cross-fitting."""
    view = make_world("sample", retrained=1).original

    def signal(split: SplitName) -> FloatArray:
        outputs = view.outputs(split)
        p = softmax(outputs.logits.astype(np.float64), axis=1)
        if kind is EntropyAttack:
            return np.asarray(entropy(p, axis=1))
        return np.array([row[label] for row, label in zip(p, outputs.labels, strict=True)])

    rng = np.random.default_rng(1)
    members = rng.choice(signal("retain"), len(signal("unseen")), replace=False)
    both = np.concatenate([members, signal("unseen")])[:, None]
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(both, np.repeat([1, 0], len(members)))
    naive = machine.predict(signal("forget")[:, None]).mean()
    evidence = run(kind(), view)
    assert evidence.forget.mean() == pytest.approx(naive, abs=0.05)
    assert evidence.detail["forget_called_members"] == pytest.approx(naive, abs=0.05)
    assert evidence.detail["published_efficacy"] == pytest.approx(1 - naive, abs=0.05)
    assert evidence.detail["attack_accuracy"] > 0.7


def test_signals_are_the_papers_quantities() -> None:
    view = make_world("sample", retrained=1).original
    outputs = view.outputs("forget")
    p = softmax(outputs.logits.astype(np.float64), axis=1)
    own = p[np.arange(len(p)), outputs.labels]
    np.testing.assert_allclose(ConfidenceAttack().signal(view, "forget"), own, rtol=1e-9)
    np.testing.assert_allclose(
        EntropyAttack().signal(view, "forget"), entropy(p, axis=1), rtol=1e-9
    )
    np.testing.assert_allclose(
        TrainVersusTestAttack().signal(view, "forget"), p.max(axis=1), rtol=1e-9
    )


@every_attack
def test_scores_are_hard_decisions(kind: type[FittedAttack]) -> None:
    evidence = run(kind(), make_world("sample", retrained=1).original)
    for scores in (evidence.forget, evidence.unseen, evidence.retain):
        assert scores is not None
        assert set(np.unique(scores)) <= {0.0, 1.0}


@every_attack
def test_detects_members_out_of_sample_and_nothing_where_nothing_was_learned(
    kind: type[FittedAttack],
) -> None:
    world = make_world("sample", retrained=1)
    evidence = run(kind(), world.original)
    assert evidence.retain is not None
    assert evidence.unseen is not None
    assert evidence.retain.mean() - evidence.unseen.mean() > 0.4
    rng = np.random.default_rng(0)
    labels = make_labels("sample", rng)
    noise: dict[SplitName, Logits] = {
        split: rng.normal(size=(len(own), N_CLASSES)).astype(np.float32)
        for split, own in labels.items()
    }
    blind = run(kind(), make_view(noise, labels, "sample"))
    assert blind.detail["attack_accuracy"] == pytest.approx(0.5, abs=0.05)


@every_attack
def test_class_scenario_never_fits_on_the_forget_classes(kind: type[FittedAttack]) -> None:
    """Whatever a model says of unseen examples of a removed class must not train the attacker."""
    view = make_world("class", retrained=1).original
    rng = np.random.default_rng(0)
    logits: dict[SplitName, Logits] = {
        split: view.outputs(split).logits.copy() for split in view.splits
    }
    labels = {split: view.outputs(split).labels for split in view.splits}
    removed = labels["unseen"] == 0
    logits["unseen"][removed] = rng.normal(0, 50, (removed.sum(), N_CLASSES))
    before, after = run(kind(), view), run(kind(), make_view(logits, labels, "class"))
    np.testing.assert_array_equal(before.forget, after.forget)
    np.testing.assert_array_equal(before.rows["unseen"], np.flatnonzero(~removed))
    assert "retain" not in before.rows


@every_attack
def test_partial_class_fits_on_all_classes_and_shows_the_forget_class(
    kind: type[FittedAttack],
) -> None:
    view = make_world("partial-class", retrained=1).original
    evidence = run(kind(), view)
    for split in ("unseen", "retain"):
        rows = np.flatnonzero(view.outputs(split).labels == 0)
        np.testing.assert_array_equal(evidence.rows[split], rows)
    assert evidence.detail["fitted_per_side"] > len(evidence.rows["unseen"]) // 2


@every_attack
def test_max_fit_caps_the_fit(kind: type[FittedAttack]) -> None:
    view = make_world("sample", retrained=1).original
    assert run(kind(max_fit=50), view).detail["fitted_per_side"] == 50


@every_attack
def test_too_few_kept_unseen_examples_are_a_skip(kind: type[FittedAttack]) -> None:
    world = make_world("class", retrained=1, sizes={"forget": 50, "retain": 100, "unseen": 15})
    evidence = kind()(world.original, np.random.default_rng(0))
    assert isinstance(evidence, Skipped)
    assert "unseen examples of the kept classes" in evidence.reason


@every_attack
@pytest.mark.parametrize("value", [0, 9, -1, 20.0, "many", True])
def test_max_fit_must_be_a_whole_number(kind: type[FittedAttack], value: object) -> None:
    with pytest.raises(UsageError, match=rf"probes\.{kind.card.name}\.max_fit must be a whole"):
        kind(max_fit=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ConfidenceAttack, EntropyAttack], ids=lambda k: k.__name__)
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan, "3", True])
def test_penalty_must_be_positive(
    kind: type[ConfidenceAttack | EntropyAttack], value: object
) -> None:
    with pytest.raises(UsageError, match=rf"probes\.{kind.card.name}\.penalty must be a finite"):
        kind(penalty=value)  # type: ignore[arg-type]
