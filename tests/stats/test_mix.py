"""Homogeneity of two mixes of classes, against a permutation test."""

from __future__ import annotations

import numpy as np
import pytest

from unaudit.stats import same_mix_p


def test_one_class_or_none_cannot_differ() -> None:
    assert same_mix_p(np.array([[5], [9]])) == 1.0
    assert same_mix_p(np.array([[5, 0], [9, 0]])) == 1.0


def test_agrees_with_a_permutation_test() -> None:
    rng = np.random.default_rng(0)
    table = np.array([[30, 50, 20], [40, 90, 70]])
    labels = np.concatenate([np.repeat([0, 1, 2], row) for row in table])

    def statistic(shuffled: np.ndarray) -> float:
        counts = np.array([np.bincount(part, minlength=3) for part in np.split(shuffled, [100])])
        expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
        return float(((counts - expected) ** 2 / expected).sum())

    seen = statistic(labels)
    permuted = [statistic(rng.permutation(labels)) for _ in range(4000)]
    assert same_mix_p(table) == pytest.approx(np.mean(np.array(permuted) >= seen), abs=0.015)


def test_false_alarms_are_as_rare_as_the_level() -> None:
    rng = np.random.default_rng(1)
    p = [
        same_mix_p(np.array([rng.multinomial(200, [0.1] * 10), rng.multinomial(600, [0.1] * 10)]))
        for _ in range(600)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
