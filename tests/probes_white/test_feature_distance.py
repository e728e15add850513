"""Feature distances of RFA-LoRA, as formula and as text."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.white_box.feature_distance import (
    FeatureDistance,
    LayerDistance,
    RelativeFeatureDistance,
)
from tests.probes_white.arrays import FeatureWorld, view_of
from unaudit.errors import UsageError
from unaudit.evidence import Scores, Skipped
from unaudit.white_box import FEATURES, WhiteBox

KINDS: tuple[type[LayerDistance], ...] = (FeatureDistance, RelativeFeatureDistance)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.card.name)


def compare(probe: LayerDistance, view: WhiteBox, reference: WhiteBox) -> Scores:
    evidence = probe(view, reference, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    return evidence


def pair() -> tuple[WhiteBox, WhiteBox]:
    world = FeatureWorld("sample")
    return world.train("forget", "retain"), world.train("retain")


def by_hand(view: WhiteBox, reference: WhiteBox) -> tuple[list[float], dict[str, float]]:
    """Σ over layers and units of |x^a − x^b| by example, by a plain loop, and relative sizes."""
    layers = ("block", FEATURES)
    totals = []
    for i in range(len(view.labels("forget"))):
        total = 0.0
        for layer in layers:
            own, other = (
                model.activations("forget", layer)[i].ravel() for model in (view, reference)
            )
            for a, b in zip(own.tolist(), other.tolist(), strict=True):
                total += abs(a - b)
        totals.append(total)
    relative = {}
    for layer in layers:
        own, other = (model.activations("forget", layer) for model in (view, reference))
        relative[layer] = float(np.abs(own - other).sum() / np.abs(other).sum())
    return totals, relative


def test_sum_is_the_formula() -> None:
    view, reference = pair()
    totals, _ = by_hand(view, reference)
    scores = compare(FeatureDistance(), view, reference)
    np.testing.assert_allclose(scores.forget, totals, rtol=1e-5)
    assert sum(scores.detail["by_layer"].values()) == pytest.approx(scores.forget.mean())


def test_relative_is_the_text() -> None:
    view, reference = pair()
    _, relative = by_hand(view, reference)
    scores = compare(RelativeFeatureDistance(), view, reference)
    assert scores.detail["by_layer"] == pytest.approx(relative, rel=1e-5)
    assert scores.forget.mean() == pytest.approx(np.mean(list(relative.values())), rel=1e-5)


@every_kind
def test_same_activations_are_at_distance_0(kind: type[LayerDistance]) -> None:
    view, _ = pair()
    assert (compare(kind(), view, view).forget == 0).all()


@every_kind
def test_units_in_another_order_are_far_apart(kind: type[LayerDistance]) -> None:
    # the blind spot: the same network with its units renamed
    view, reference = pair()
    renamed = view_of(
        {split: view.features(split)[:, ::-1].copy() for split in view.splits},
        {split: view.labels(split) for split in view.splits},
        "sample",
        blocks={"block": view.activations("forget", "block").copy()},
    )
    own = compare(kind(), renamed, view).detail["by_layer"]
    assert own["block"] == 0
    assert own[FEATURES] > 0.3 * compare(kind(), view, reference).detail["by_layer"][FEATURES]


@every_kind
def test_silent_reference_is_finite(kind: type[LayerDistance]) -> None:
    view, _ = pair()
    silent = view_of(
        {split: np.zeros_like(view.features(split)) for split in view.splits},
        {split: view.labels(split) for split in view.splits},
        "sample",
        blocks={"block": np.zeros_like(view.activations("forget", "block"))},
    )
    assert np.isfinite(compare(kind(), view, silent).forget).all()


@every_kind
def test_other_layers_are_declined(kind: type[LayerDistance]) -> None:
    view, _ = pair()
    labels = {split: view.labels(split) for split in view.splits}
    features = {split: view.features(split).copy() for split in view.splits}
    without_block = view_of(features, labels, "sample")
    wider = view_of(
        features, labels, "sample", blocks={"block": np.zeros((300, 7), dtype=np.float32)}
    )
    for other in (without_block, wider):
        evidence = kind()(view, other, np.random.default_rng(0))
        assert isinstance(evidence, Skipped)
        assert "layers" in evidence.reason


@every_kind
def test_large_forget_sets_are_sampled(kind: type[LayerDistance]) -> None:
    view, reference = pair()
    whole = compare(kind(), view, reference)
    part = compare(kind(max_examples=100), view, reference)
    rows = part.rows["forget"]
    assert part.forget.shape == rows.shape == (100,)
    assert (np.diff(rows) > 0).all()
    if kind is FeatureDistance:
        np.testing.assert_allclose(part.forget, whole.forget[rows])
    narrow = compare(kind(max_elements=12 * 30), view, reference)
    assert len(narrow.forget) == 30


@pytest.mark.parametrize(("field", "value"), [("max_examples", 5), ("max_elements", 0)])
def test_bad_parameters_are_named(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"probes.feature-distance.{field} must be"):
        FeatureDistance(**{field: value})
