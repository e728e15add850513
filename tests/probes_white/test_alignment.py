"""Dimensional alignment and linear CKA against direct formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.white_box import cka as cka_module
from attacks.white_box import dimensional_alignment as alignment_module
from attacks.white_box.cka import CenteredKernelAlignment, alignment, gram
from attacks.white_box.dimensional_alignment import DimensionalAlignment
from tests.probes_white.arrays import FeatureWorld, view_of
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scalar, Skipped, SplitName
from unaudit.white_box import WhiteBox


def da(view: WhiteBox, **parameters: float) -> Scalar:
    probe = DimensionalAlignment(**parameters)  # type: ignore[arg-type]
    evidence = probe(view, np.random.default_rng(0))
    assert isinstance(evidence, Scalar)
    return evidence


@pytest.mark.parametrize("energy", [0.5, 0.95, 1.0])
def test_da_is_the_trace_ratio(energy: float) -> None:
    view = FeatureWorld("class").train("forget", "retain")
    forget, retain = (view.features(s).astype(np.float64) for s in ("forget", "retain"))
    values, vectors = np.linalg.eigh(retain.T @ retain / len(retain))
    order = np.argsort(values)[::-1]
    carried = np.cumsum(values[order]) / values.sum()
    k = int((carried < energy - 1e-12).sum()) + 1
    leading = vectors[:, order[:k]]
    moment = forget.T @ forget / len(forget)
    wanted = np.trace(leading @ leading.T @ moment) / np.trace(moment)
    answer = da(view, energy=energy)
    assert answer.detail["directions"] == k
    assert answer.detail["alignment"] == pytest.approx(wanted)
    assert answer.value == pytest.approx(1 - wanted)


def test_da_of_a_direction_of_its_own() -> None:
    # published DA is low where the forget class has a space of its own: 1 − DA is high
    labels = {"forget": np.zeros(30, dtype=np.int64), "retain": np.ones(50, dtype=np.int64)}
    own = np.tile([0.0, 3.0, 4.0], (30, 1)).astype(np.float32)
    retain = np.tile([0.0, 2.0, 0.0], (50, 1)).astype(np.float32)
    answer = da(view_of({"forget": own, "retain": retain}, labels, "class"))  # type: ignore[arg-type]
    assert answer.value == pytest.approx(16 / 25)
    assert answer.stderr == pytest.approx(0.0, abs=1e-12)


def test_da_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    view = FeatureWorld("class").train("forget", "retain")
    whole = da(view)
    monkeypatch.setattr(alignment_module, "ROWS_AT_ONCE", 17)
    pieces = da(view)
    assert pieces.value == pytest.approx(whole.value, abs=1e-12)
    assert pieces.stderr == pytest.approx(whole.stderr, abs=1e-12)


def test_da_standard_error_covers_fresh_forget_examples() -> None:
    rng = np.random.default_rng(0)
    retain = (rng.standard_normal((300, 6)) * [3, 2, 1, 0.1, 0.1, 0.1]).astype(np.float32)

    def fresh() -> Scalar:
        shift = np.array([0, 1, 0, 0, 2, 0])
        forget = (rng.standard_normal((60, 6)) + shift).astype(np.float32)
        labels = {"forget": np.zeros(60, dtype=np.int64), "retain": np.ones(300, dtype=np.int64)}
        return da(view_of({"forget": forget, "retain": retain}, labels, "class"))  # type: ignore[arg-type]

    answers = [fresh() for _ in range(150)]
    spread = np.std([answer.value for answer in answers])
    stated = np.mean([answer.stderr or 0.0 for answer in answers])
    assert stated == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("scenario", ["partial-class", "sample"])
def test_da_is_declined_within_kept_classes(scenario: str) -> None:
    view = FeatureWorld(scenario).train("retain")  # type: ignore[arg-type]
    assert isinstance(DimensionalAlignment()(view, np.random.default_rng(0)), Skipped)


def test_da_of_a_silent_network() -> None:
    world = FeatureWorld("class")
    silent: dict[SplitName, np.ndarray] = {
        split: np.zeros((len(own), 3), dtype=np.float32) for split, own in world.labels.items()
    }
    assert da(view_of(silent, world.labels, "class")).value == 0.0


def hsic(one: FloatArray, other: FloatArray) -> float:
    """Song et al. 2012, equation 5, as it stands."""
    k, m, n = one @ one.T, other @ other.T, len(one)
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    ones = np.ones(n)
    total = np.trace(k @ m)
    total += (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    total -= 2 * (ones @ k @ m @ ones) / (n - 2)
    return float(total / (n * (n - 3)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(5, 40),
    width=st.integers(1, 20),
    shared=st.sampled_from([0.0, 1.0, 5.0]),
)
def test_cka_is_the_direct_formula(seed: int, n: int, width: int, shared: float) -> None:
    rng = np.random.default_rng(seed)
    common = shared * rng.standard_normal((n, width))
    one = rng.standard_normal((n, width)) + common
    other = rng.standard_normal((n, 7)) + common @ rng.standard_normal((width, 7))
    wanted = hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))
    assert alignment(gram(one), gram(other)) == pytest.approx(wanted, rel=1e-8, abs=1e-8)


def test_gram_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).standard_normal((30, 100)) + 5.0
    centered = features - features.mean(axis=0)
    monkeypatch.setattr(cka_module, "UNITS_AT_ONCE", 7)
    np.testing.assert_allclose(gram(features), centered @ centered.T, atol=1e-10)


def test_cka_ignores_names_turns_and_scale_of_units() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 8)) * np.arange(1, 9)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert alignment(gram(features), gram(3.0 * features @ turn + 1.0)) == pytest.approx(1.0)
    shuffled = features[:, rng.permutation(8)]
    assert alignment(gram(features), gram(shuffled)) == pytest.approx(1.0)


def test_cka_of_unrelated_networks_is_unbiased() -> None:
    # without the correction, 40 examples in 200 dimensions look alike whatever they are
    rng = np.random.default_rng(0)
    found = [
        alignment(*(gram(rng.standard_normal((40, 200))) for _ in range(2))) for _ in range(60)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(60)
    one, other = (rng.standard_normal((40, 200)) for _ in range(2))
    centered = [x - x.mean(axis=0) for x in (one, other)]
    k, m = (x @ x.T for x in centered)
    assert (k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)) > 0.7


def test_cka_of_a_silent_network_is_zero() -> None:
    features = np.random.default_rng(0).standard_normal((30, 4))
    assert alignment(gram(np.full((30, 4), 3.0)), gram(features)) == 0.0


def compare(view: WhiteBox, reference: WhiteBox, **parameters: int) -> Scalar:
    evidence = CenteredKernelAlignment(**parameters)(view, reference, np.random.default_rng(0))
    assert isinstance(evidence, Scalar)
    return evidence


def test_cka_of_a_model_with_itself() -> None:
    view = FeatureWorld("sample").train("retain")
    answer = compare(view, view)
    assert answer.value == pytest.approx(0.0, abs=1e-12)
    assert answer.stderr == pytest.approx(0.0, abs=1e-12)
    assert answer.detail["by_layer"] == pytest.approx({"block": 0.0, "features": 0.0}, abs=1e-12)


def test_cka_tells_the_original_from_another_retrained_model() -> None:
    world = FeatureWorld("sample")
    reference, other = world.train("retain"), world.train("retain")
    original = world.train("forget", "retain")
    far, near = compare(original, reference), compare(other, reference)
    assert far.value > near.value + 3 * ((far.stderr or 0) ** 2 + (near.stderr or 0) ** 2) ** 0.5


def test_cka_standard_error_covers_fresh_examples() -> None:
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((5, 5))

    def fresh() -> Scalar:
        common = rng.standard_normal((100, 5))
        labels = {"forget": np.zeros(100, dtype=np.int64)}
        views = [
            view_of(
                {"forget": (x + rng.standard_normal((100, 5))).astype(np.float32)}, labels, "class"
            )
            for x in (common, common @ turn)
        ]
        return compare(*views)

    answers = [fresh() for _ in range(80)]
    spread = np.std([answer.value for answer in answers])
    stated = np.mean([answer.stderr or 0.0 for answer in answers])
    assert 0.7 * spread < stated < 1.6 * spread


def test_wide_layers_are_compared_on_fewer_examples() -> None:
    world = FeatureWorld("sample")
    asked: list[int] = []

    class Watched:
        def __init__(self, view: WhiteBox) -> None:
            self.view = view

        def __getattr__(self, name: str) -> object:
            return getattr(self.view, name)

        def activations(self, split: SplitName, layer: str, rows: np.ndarray) -> np.ndarray:
            if layer == "block":
                asked.append(len(rows))
            return self.view.activations(split, layer, rows)

    view, reference = (Watched(world.train("retain")) for _ in range(2))
    compare(view, reference, max_elements=6 * 40)  # type: ignore[arg-type]
    assert set(asked) == {1, 40}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (DimensionalAlignment, "energy", 0.0),
        (DimensionalAlignment, "max_examples", 5),
        (CenteredKernelAlignment, "max_examples", 5),
        (CenteredKernelAlignment, "max_elements", 0),
    ],
)
def test_bad_parameters_are_named(kind: type, field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"probes.{kind.card.name}.{field} must be"):  # type: ignore[attr-defined]
        kind(**{field: value})
