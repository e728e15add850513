"""A subject that was trained on the examples that stand for never seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from unaudit.case import Case
from unaudit.contamination import known_unseen
from unaudit.stats import p_below
from unaudit.views import BlackBox, Marks


def view(gap: float, canaries: int = 0) -> BlackBox:
    """Mean loss 0.1 on retained examples, ``gap`` more on unseen ones, 20 more on canaries."""
    losses = {"retain": np.full(9, 0.1), "unseen": np.full(9, 0.1 + gap)}
    losses["unseen"][:canaries] += 20.0
    outputs = {name: SimpleNamespace(log_confidence=-own) for name, own in losses.items()}
    marks = Marks({"unseen": np.arange(9) < canaries} if canaries else {})
    return cast(BlackBox, SimpleNamespace(predictions=outputs.__getitem__, marks=marks))


def doubts(subject: float, retrained: list[float], canaries: int = 0) -> tuple[str, ...]:
    named = [SimpleNamespace(label=f"retrained {at}") for at in range(len(retrained))]
    case: Any = SimpleNamespace(
        splits={"unseen": None, "retain": None},
        subject=SimpleNamespace(label="subject"),
        retrained=tuple(named),
    )
    gaps = dict(zip((c.label for c in named), retrained, strict=True)) | {"subject": subject}
    return known_unseen(
        cast(Case, case), {label: view(gap, canaries) for label, gap in gaps.items()}
    )


def test_a_closed_gap_is_doubted() -> None:
    (line,) = doubts(0.01, [0.30, 0.33, 0.28, 0.31, 0.30])
    assert "trained on them" in line


def test_held_out_canaries_do_not_keep_the_gap_open() -> None:
    retrained = [0.30, 0.33, 0.28, 0.31, 0.30]
    assert doubts(0.01, retrained, canaries=3) == doubts(0.01, retrained)


@pytest.mark.parametrize(
    ("subject", "retrained"),
    [
        (0.25, [0.30, 0.33, 0.28, 0.31, 0.30]),  # less, by far not nothing
        (0.01, [0.30, 0.33]),  # two references: the spread is hardly known
        (0.0, [0.01, -0.02, 0.0, 0.01, -0.01]),  # nobody overfits
        (0.05, [0.30]),
    ],
)
def test_what_chance_can_do_is_not(subject: float, retrained: list[float]) -> None:
    assert doubts(subject, retrained) == ()


def test_p_below_is_the_prediction_interval_of_student() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 5))
    p = np.array([p_below(row[0], row[1:]) for row in draws])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert p_below(-1.0, [0.0, 0.0]) == 0.0
    assert p_below(0.0, [0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="fewer than two"):
        p_below(0.0, [1.0])
