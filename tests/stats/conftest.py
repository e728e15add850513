"""Judging rates that were measured by simulation, with the simulation's own error allowed for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy.stats import binomtest

SURE = 1e-3
"""A simulation contradicts a claim if it would come out like this less often than that."""


def rate_within(hits: int, repeats: int, *, at_least: float = 0.0, at_most: float = 1.0) -> bool:
    """Whether ``hits`` in ``repeats`` is compatible with a true rate in [at_least, at_most]."""
    low = binomtest(hits, repeats, at_least, alternative="less").pvalue
    high = binomtest(hits, repeats, at_most, alternative="greater").pvalue
    return bool(low > SURE and high > SURE)


@pytest.fixture
def compatible() -> Callable[..., bool]:
    return rate_within
