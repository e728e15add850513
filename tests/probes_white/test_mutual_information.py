"""Estimates of mutual information: against closed forms, the literal InfoNCE, and themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from attacks.white_box import _critics
from attacks.white_box._critics import Critic, Pool, Training, fit_convex
from attacks.white_box._infonce import entropy, frequencies, infonce
from attacks.white_box._mutual_information import (
    Design,
    Layer,
    curve_of,
    make_design,
    of_features,
    of_layer,
    shortfall,
)
from unaudit.evidence import FloatArray, IntArray
from unaudit.loading.networks import mlp
from unaudit.training import initialize
from unaudit.white_box import Tail, examine
from unaudit.white_box.cutting import cut

TRAINING = Training(lr=5e-3, batch=128, max_epochs=60, patience=3)
CPU = torch.device("cpu")


def design_of(
    labels: IntArray,
    *,
    training: Training = TRAINING,
    folds: int = 3,
    repeats: int = 2,
    warm_start: bool = True,
) -> Design:
    return make_design(
        labels,
        labels,
        folds=folds,
        repeats=repeats,
        training=training,
        warm_start=warm_start,
        device=CPU,
        rng=np.random.default_rng(5),
    )


def information(means: list[float], sds: list[float], prior: list[float]) -> float:
    """I(Z; Y) of a mixture of Gaussians on the line, by quadrature."""
    parts = [norm(mean, sd) for mean, sd in zip(means, sds, strict=True)]

    def density(z: float) -> float:
        each = np.array([p * part.pdf(z) for p, part in zip(prior, parts, strict=True)])
        total = each.sum()
        seen = each[each > 0]
        return float((seen * np.log(seen / total)).sum())

    posterior = quad(density, -25, 25, limit=400, points=sorted(means))[0]
    return float(-(np.array(prior) * np.log(prior)).sum() + posterior)


def draw(
    means: list[float], sds: list[float], prior: list[float], n: int, width: int, seed: int = 0
) -> tuple[FloatArray, IntArray]:
    """(n, width) of which one direction is the mixture, and labels with exact shares."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(prior)), np.round(np.array(prior) * n).astype(int))
    line = rng.normal(np.array(means)[labels], np.array(sds)[labels])
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    rest = rng.normal(size=(len(labels), width - 1))
    return np.column_stack([line, rest]) @ rotation, labels


def tail_of(width: int) -> Tail:
    """An untrained tail with two hidden layers behind ``width`` activations."""
    network = initialize(mlp((3, width, 32, 16, 4)), torch.Generator().manual_seed(0)).eval()
    inputs = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    return cut(network, examine(network, inputs), "relu1", inputs)


def literal(scores: FloatArray, labels: IntArray) -> float:
    """InfoNCE as printed: every example against every label of the batch."""
    total = 0.0
    for k, own in enumerate(labels):
        others = [np.exp(scores[k, other]) for other in labels]
        total += np.log(np.exp(scores[k, own]) / np.mean(others))
    return float(total / len(labels))


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), n_labels=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_infonce_is_the_printed_sum_over_the_batch(seed: int, n: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(0, n_labels, n), return_inverse=True)[1]
    scores = rng.normal(0, 3, (n, int(labels.max()) + 1))
    assert infonce(scores, labels) == pytest.approx(literal(scores, labels), abs=1e-10)
    assert infonce(scores, labels) <= entropy(frequencies(labels)) + 1e-12


@pytest.mark.parametrize(
    ("means", "prior"),
    [([0.0, 2.0], [0.5, 0.5]), ([0.0, 3.0], [0.9, 0.1]), ([-2.0, 0.0, 2.5], [0.3, 0.5, 0.2])],
)
def test_convex_critic_finds_the_information_of_a_gaussian_mixture(
    means: list[float], prior: list[float]
) -> None:
    sds = [1.0] * len(means)
    features, labels = draw(means, sds, prior, 20_000, 4)
    layer, _ = of_features(features, design_of(labels))
    curve = curve_of([layer], design_of(labels))
    assert curve.total == pytest.approx(information(means, sds, prior), abs=0.02)
    assert curve.mi_train[0] == pytest.approx(information(means, sds, prior), abs=0.02)


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.8, 0.2]])
def test_trained_critic_finds_what_no_linear_one_can(prior: list[float]) -> None:
    means, sds = [0.0, 0.0], [0.4, 2.5]
    activations, labels = draw(means, sds, prior, 6_000, 2)
    design = design_of(labels, repeats=2, folds=2)
    truth = information(means, sds, prior)
    linear, convex = of_features(activations, design)
    assert curve_of([linear], design).total < 0.05 < truth - 0.15
    width = 16
    weak = [replace(one, weight=np.zeros((2, width))) for one in convex]
    critic = Critic(tail_of(2), width, 2)
    pool = Pool([activations.astype(np.float32)], CPU)
    found, _ = of_layer(critic, pool, design, weak, [None] * 4, np.arange(4))
    curve = curve_of([found], design)
    assert curve.total == pytest.approx(truth, abs=0.02)
    assert curve.total_stderr < 0.02
    assert found.converged


def test_convex_critic_agrees_with_infonce_trained_as_printed() -> None:
    features, labels = draw([0.0, 1.5], [1.0, 1.0], [0.8, 0.2], 400, 5, seed=3)
    own = np.arange(400)
    prior = frequencies(labels)
    convex = fit_convex(features, labels, own, own, prior)
    generator = torch.Generator().manual_seed(0)
    f = nn.Linear(5, 8)
    g = nn.Parameter(torch.randn(2, 8, generator=generator) * 0.3)
    initialize(f, generator)
    z, y = torch.from_numpy(features).float(), torch.from_numpy(labels)
    optimizer = torch.optim.LBFGS([*f.parameters(), g], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        every: torch.Tensor = f(z) @ g[y].T  # (K, K): example k against the label of example k'
        value = torch.mean(every.logsumexp(dim=1) - np.log(400) - every.diagonal())
        value.backward()
        return value

    optimizer.step(loss)
    trained = (f(z) @ g.T).detach().double().numpy()
    scores = features @ convex.weight.T + convex.bias
    assert infonce(scores, labels) == pytest.approx(infonce(trained, labels), abs=2e-3)
    assert infonce(scores, labels) == pytest.approx(-loss().item(), abs=2e-3)


def test_partitions_are_disjoint_and_cover_everything_once() -> None:
    labels = np.repeat([0, 1], [90, 30])
    design = design_of(labels, folds=3, repeats=2)
    for row in design.partitions:
        assert sorted(np.concatenate([part.evaluate for part in row])) == list(range(120))
        for part in row:
            together = np.concatenate([part.fit, part.stop, part.evaluate])
            assert sorted(together) == list(range(120))
            for rows in (part.fit, part.stop, part.evaluate):
                assert labels[rows].mean() == pytest.approx(0.25, abs=0.05)
    first, second = design.partitions
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.evaluate, other.evaluate)
        assert not np.array_equal(one.stop, other.stop)


def test_untrained_critic_is_named_and_widens_the_interval() -> None:
    activations, labels = draw([0.0, 3.0], [1.0, 1.0], [0.5, 0.5], 600, 16)
    lazy = Training(lr=1e-9, batch=128, max_epochs=1, patience=1)
    design = design_of(labels, training=lazy, warm_start=False)
    features, convex = of_features(activations, design)
    critic = Critic(tail_of(16), 16, 2)
    pool = Pool([activations.astype(np.float32)], CPU)
    lost, lineage = of_layer(critic, pool, design, convex, [None] * 6, np.arange(6))
    assert not lost.converged
    assert lineage == [None] * 6
    gap = shortfall(lost, features, design)
    assert gap > 0.3
    curve = curve_of([lost, features], design)
    assert curve.undertrained == (0,)
    assert curve.total_stderr >= gap
    assert curve.stderr[0] >= gap > curve.stderr[1]
    assert curve_of([features, lost], design).undertrained == ()


def test_warm_start_is_no_worse_than_the_later_critic() -> None:
    """Untrained, the composition gives the very losses of the critic that it is composed with."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    activations = rng.normal(labels[:, None] * 0.8, 1.0, (400, 16)).astype(np.float32)
    tail = tail_of(16)
    with torch.no_grad():
        features = tail.features(torch.from_numpy(activations)).double().numpy()
    still = Training(lr=1e-12, batch=128, max_epochs=1, patience=1)
    design = design_of(labels, training=still)
    later, convex = of_features(features, design)
    critic = Critic(tail, features.shape[1], 2)
    pool = Pool([activations], CPU)
    found, lineage = of_layer(critic, pool, design, convex, [None] * 6, np.arange(6))
    assert found.warm == 1.0
    np.testing.assert_allclose(found.losses, later.losses, atol=1e-5)
    again, _ = of_layer(critic, pool, design, convex, lineage, np.arange(6))
    np.testing.assert_allclose(again.losses, later.losses, atol=1e-5)


def test_standard_error_is_the_spread_over_fresh_examples() -> None:
    totals, errors = [], []
    for seed in range(40):
        features, labels = draw([0.0, 2.0], [1.0, 1.0], [0.8, 0.2], 300, 3, seed=seed)
        design = design_of(labels)
        curve = curve_of([of_features(features, design)[0]], design)
        totals.append(curve.total)
        examples = curve.influence.var(ddof=1) / len(labels)
        errors.append(float(np.hypot(curve.total_stderr, np.sqrt(examples))))
    assert np.std(totals, ddof=1) == pytest.approx(np.mean(errors), rel=0.35)


def test_standard_error_carries_the_noise_of_training() -> None:
    labels = np.repeat([0, 1], 50)
    design = design_of(labels)
    same = np.full((2, 100), 0.3)
    shift = np.zeros((2, 100))
    for part in design.partitions[0]:
        shift[:, part.evaluate] = np.array([[0.1], [-0.1]])
    quiet, noisy = (
        curve_of([Layer(losses, 0.3, 0.3, 1.0, 0.0, True)], design)
        for losses in (same, same + shift)
    )
    assert quiet.total_stderr == pytest.approx(0.0, abs=1e-12)
    assert noisy.total_stderr > 0.02


def test_pool_on_disk_gives_what_it_gives_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [np.arange(24, dtype=np.float32).reshape(4, 2, 3), np.ones((3, 2, 3), np.float32)]
    inside = Pool(parts, CPU)
    monkeypatch.setattr(_critics, "RESIDENT_BYTES", 0)
    outside = Pool(parts, CPU)
    rows = np.array([6, 0, 3, 4])
    torch.testing.assert_close(inside.batch(rows), outside.batch(rows))
    assert len(inside) == len(outside) == 7
    whole = np.concatenate(parts)
    assert outside.scale(np.arange(7)) == pytest.approx(float(np.sqrt(np.square(whole).mean())))
