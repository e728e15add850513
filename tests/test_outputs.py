"""The signals that probes share: against scipy and torch, at the edges, and in chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from unaudit import views
from unaudit.evidence import SplitName
from unaudit.views import BlackBox, Outputs

SIGNALS = (
    "predicted",
    "correct",
    "log_confidence",
    "log_doubt",
    "logit_confidence",
    "entropy",
    "margin",
)


def sample(n: int = 200, n_classes: int = 6, scale: float = 3.0) -> Outputs:
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, scale, (n, n_classes)).astype(np.float32)
    return Outputs(logits, rng.integers(0, n_classes, n))


def test_signals_are_those_of_scipy_and_torch() -> None:
    outputs = sample()
    wide = outputs.logits.astype(np.float64)
    p = softmax(wide, axis=1)
    own = p[np.arange(len(p)), outputs.labels]
    loss = torch.nn.functional.cross_entropy(
        torch.tensor(wide), torch.tensor(outputs.labels), reduction="none"
    )
    np.testing.assert_allclose(outputs.log_confidence, -loss.numpy(), rtol=1e-12)
    np.testing.assert_allclose(outputs.log_doubt, np.log1p(-own), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(outputs.logit_confidence, np.log(own / (1 - own)), rtol=1e-8)
    np.testing.assert_allclose(outputs.entropy, entropy(p, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(outputs.predicted, p.argmax(axis=1))
    np.testing.assert_array_equal(outputs.correct, p.argmax(axis=1) == outputs.labels)
    for row, label, margin in zip(wide, outputs.labels, outputs.margin, strict=True):
        assert margin == row[label] - max(np.delete(row, label))


@pytest.mark.parametrize("gap", [1.0, 40.0, 1000.0, 20_000.0])
def test_log_doubt_survives_certainty(gap: float) -> None:
    """1 − p_y = 2 e^−gap / (1 + 2 e^−gap); as a float64 difference it is 0 from gap 40 on."""
    outputs = Outputs(np.array([[gap, 0.0, 0.0]], np.float32), np.array([0]))
    expected = math.log(2) - gap - math.log1p(2 * math.exp(-gap))
    assert outputs.log_doubt[0] == pytest.approx(expected, rel=1e-12)
    assert outputs.logit_confidence[0] == pytest.approx(gap - math.log(2), rel=1e-12)


@given(
    logits=arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)),
    label=st.integers(0, 3),
)
def test_signals_stay_finite_and_in_range(logits: np.ndarray, label: int) -> None:
    outputs = Outputs(logits, np.full(5, label))
    for signal in SIGNALS:
        assert np.isfinite(getattr(outputs, signal)).all()
    assert (outputs.log_confidence <= 0).all()
    assert (outputs.log_doubt <= 1e-12).all()
    assert (outputs.entropy >= 0).all()
    assert (outputs.entropy <= math.log(4) + 1e-12).all()
    # confidence and doubt are the two parts of 1
    total = np.exp(outputs.log_confidence) + np.exp(outputs.log_doubt)
    np.testing.assert_allclose(total, 1.0, rtol=1e-9)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("rows", [1, 7, 199, 200, 201])
def test_chunks_do_not_show(signal: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = getattr(sample(), signal)
    monkeypatch.setattr(views, "CHUNK_ELEMENTS", rows * 6)
    outputs = sample()
    assert len(outputs.chunks()) == math.ceil(200 / rows)
    np.testing.assert_array_equal(getattr(outputs, signal), whole)
    assert getattr(outputs, signal).dtype == whole.dtype


def test_a_row_wider_than_a_chunk_is_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "CHUNK_ELEMENTS", 2)
    assert len(sample(n=3).chunks()) == 3


def test_log_probabilities_of_some_rows() -> None:
    outputs = sample()
    expected = log_softmax(outputs.logits.astype(np.float64), axis=1)[10:20]
    np.testing.assert_allclose(outputs.log_probabilities(slice(10, 20)), expected, rtol=1e-12)


def test_nothing_is_written_to_the_logits() -> None:
    outputs = sample()
    outputs.logits.setflags(write=False)
    before = outputs.logits.copy()
    for signal in SIGNALS:
        getattr(outputs, signal)
    np.testing.assert_array_equal(outputs.logits, before)


def test_empty_outputs_have_empty_signals() -> None:
    outputs = Outputs(np.empty((0, 3), np.float32), np.empty(0, np.int64))
    for signal in SIGNALS:
        assert len(getattr(outputs, signal)) == 0


def test_a_view_loads_each_split_once_and_only_when_asked() -> None:
    loads: list[SplitName] = []

    def load(split: SplitName) -> Outputs:
        loads.append(split)
        return sample()

    view = BlackBox(
        {"forget": lambda: load("forget"), "unseen": lambda: load("unseen")},
        scenario="sample",
        forget_classes=(0, 1),
        n_classes=6,
    )
    assert view.splits == ("forget", "unseen")
    assert not loads
    assert view.outputs("forget") is view.outputs("forget")
    assert loads == ["forget"]
