"""New heads on frozen features: the solver, linear probing, head recovery."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from attacks.white_box._softmax import Scaling, fit_head
from attacks.white_box.head_recovery import HeadRecovery
from attacks.white_box.linear_probe import LinearProbe
from tests.probes_white.arrays import FeatureWorld, make_labels, view_of
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, IntArray, Scores, SplitName


def make(n: int, width: int, k: int, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Overlapping classes in features of very unequal variance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    features = rng.standard_normal((k, width))[labels] + rng.standard_normal((n, width))
    return Scaling.of(features)(features * np.logspace(0, -2, width)), labels


@pytest.mark.parametrize(("n", "width", "k"), [(300, 12, 10), (60, 40, 3), (500, 5, 2)])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_solution_is_sklearns(n: int, width: int, k: int, l2: float) -> None:
    features, labels = make(n, width, k)
    head = fit_head(features, labels, l2)
    assert head.converged
    # scikit-learn sums losses; with two classes it fits one row, which here share the difference
    strength = 1 / (n * l2) if k > 2 else 2 / (n * l2)
    oracle = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(features, labels)
    centered = head.weight - head.weight.mean(axis=0)
    if k == 2:
        np.testing.assert_allclose(head.weight[1] - head.weight[0], oracle.coef_[0], atol=2e-3)
    else:
        np.testing.assert_allclose(centered, oracle.coef_ - oracle.coef_.mean(axis=0), atol=2e-3)
    assert (head.predict(features) == oracle.predict(features)).mean() > 0.995


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 40), k=st.integers(1, 5))
def test_gradient_vanishes(seed: int, n: int, k: int) -> None:
    features, labels = make(n, 6, k, seed)
    head = fit_head(features, labels, 0.01)
    logits = head.scores(features)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    residual = (p - (labels[:, None] == head.classes)) / n
    assert np.abs(residual.T @ features + 0.01 * head.weight).max() < 1e-5
    assert np.abs(residual.sum(axis=0)).max() < 1e-5


def test_absent_classes_are_not_predicted() -> None:
    features, labels = make(200, 5, 4)
    head = fit_head(features, labels * 10, 1e-2)
    assert set(head.predict(features)) <= {0, 10, 20, 30}


def test_scaling_ignores_the_basis() -> None:
    features, _ = make(100, 6, 3)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    one = Scaling.of(features)(features) @ turned
    other = Scaling.of(7.0 * features @ turned + 3.0)(7.0 * features @ turned + 3.0)
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert np.square(one).mean() == pytest.approx(1.0)


def test_scaling_of_equal_examples() -> None:
    assert (Scaling.of(np.ones((4, 3)))(np.ones((4, 3))) == 0).all()
    assert (Scaling.by_column(np.ones((4, 3)))(np.ones((4, 3))) == 0).all()


def linear_probe(view: object, **parameters: object) -> Scores:
    evidence = LinearProbe(**parameters)(view, np.random.default_rng(0))  # type: ignore[arg-type]
    assert isinstance(evidence, Scores)
    return evidence


def recover(view: object, **parameters: object) -> Scores:
    evidence = HeadRecovery(**parameters)(view, np.random.default_rng(0))  # type: ignore[arg-type]
    assert isinstance(evidence, Scores)
    return evidence


def pure_noise() -> object:
    """Many features that know nothing: a head can learn its own examples by heart, no others."""
    rng = np.random.default_rng(0)
    sizes: dict[SplitName, int] = {"forget": 100, "retain": 150, "unseen": 400}
    labels = make_labels("sample", rng, sizes)
    features = {
        split: rng.standard_normal((len(own), 300)).astype(np.float32)
        for split, own in labels.items()
    }
    return view_of(features, labels, "sample")


def test_linear_probe_is_judged_out_of_sample() -> None:
    scores = linear_probe(pure_noise(), l2=1e-5)
    assert scores.unseen is not None
    assert scores.forget.mean() < 0.4  # chance is 0.2, by heart it would be 1
    assert scores.unseen.mean() < 0.3
    assert scores.detail["lp_retain"] < 0.5


def test_head_recovery_is_judged_on_others() -> None:
    scores = recover(pure_noise(), share=1.0, l2=1e-5)
    assert scores.forget.mean() < 0.4
    # no draw takes more than half of a class
    assert scores.detail["fitted_on"] <= 125


def test_linear_probe_reads_what_is_there() -> None:
    world = FeatureWorld("class")
    original, retrained = world.train("forget", "retain"), world.train("retain")
    assert linear_probe(original).forget.mean() > 0.99
    low = linear_probe(retrained)
    assert low.forget.mean() < 0.97
    assert low.detail["lp_forget"] == pytest.approx(low.forget.mean())
    assert low.detail["lp_retain"] > 0.97
    assert low.detail["lp_forget_unseen"] == pytest.approx(low.forget.mean(), abs=0.08)
    assert low.detail["converged"]


@pytest.mark.parametrize("probe", [linear_probe, recover])
def test_the_basis_does_not_matter(probe: object) -> None:
    world = FeatureWorld("class")
    view = world.train("retain")
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    turned = view_of(
        {s: (5 * view.features(s) @ turn + 1).astype(np.float32) for s in view.splits},
        world.labels,
        "class",
    )
    one, other = probe(view).forget, probe(turned).forget  # type: ignore[operator]
    assert (one != other).mean() < 0.01  # float32 may tip an example on the boundary


def test_fitting_on_a_part_still_judges_every_forget_example() -> None:
    view = FeatureWorld("class").train("retain")
    scores = linear_probe(view, max_fit=200)
    assert 190 <= scores.detail["fitted_on"] <= 210
    assert scores.forget.shape == (300,)


def test_head_recovery_draws_classes_alike() -> None:
    labels = np.repeat([0, 1, 2], [400, 40, 4])
    draws = HeadRecovery(share=0.1, draws=6)._draw(labels, np.random.default_rng(0))
    for rows in draws:
        counts = np.bincount(labels[rows], minlength=3)
        assert counts.tolist() == [15, 15, 2]
        assert len(np.unique(rows)) == len(rows)
    used = sum(np.isin(np.arange(len(labels)), rows).astype(int) for rows in draws)
    assert (used < 6).all()  # every example is held out at least once


def test_head_recovery_fits_on_a_bounded_number() -> None:
    assert recover(FeatureWorld("class").train("retain"), max_fit=20).detail["fitted_on"] == 20


def test_head_recovery_scores_are_shares_of_draws() -> None:
    scores = recover(FeatureWorld("class").train("retain"), draws=4)
    assert len(scores.detail["accuracy_by_draw"]) == 4
    assert np.mean(scores.detail["accuracy_by_draw"]) == pytest.approx(
        scores.forget.mean(), abs=0.01
    )
    spread = np.std(scores.detail["accuracy_by_draw"], ddof=1) / 2
    assert scores.detail["stderr_of_draws"] == pytest.approx(spread)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (LinearProbe, "l2", 0.0),
        (LinearProbe, "folds", 1),
        (LinearProbe, "max_fit", 10),
        (HeadRecovery, "share", 1.5),
        (HeadRecovery, "share", True),
        (HeadRecovery, "draws", 1),
        (HeadRecovery, "l2", float("inf")),
    ],
)
def test_bad_parameters_are_named(kind: type, field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"probes.{kind.card.name}.{field} must be"):  # type: ignore[attr-defined]
        kind(**{field: value})
