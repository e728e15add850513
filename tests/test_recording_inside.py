"""What white-box access showed is written down as it was, and nothing names an example."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import nn

from unaudit.evidence import ProbeCard, Scalar, SplitName
from unaudit.measuring import Measurement, Reading
from unaudit.recording.inside import KINDS, curves, inside
from unaudit.recording.projection import POINTS, nearness, plane, turned
from unaudit.report.record import Inside
from unaudit.training import initialize
from unaudit.white_box import WhiteBox

from .white_box.worlds import Arrays, case_of, forward_of, recorded

SIZES: Mapping[SplitName, int] = {"forget": 40, "retain": 400, "unseen": 60, "validation": 9}


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)
        initialize(self, torch.Generator().manual_seed(seed))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.encoder(inputs)))  # type: ignore[no-any-return]


def networks() -> dict[str, Any]:
    original = Network(0)
    fake = copy.deepcopy(original)
    with torch.no_grad():
        fake.head.weight.mul_(-1)
    return {
        "subject": fake,
        "original": original,
        "retrained 1": Network(1),
        "retrained 2": Network(2),
    }


def data() -> dict[SplitName, Arrays]:
    rng = np.random.default_rng(5)
    return {
        name: Arrays(
            torch.from_numpy(rng.normal(size=(size, 6)).astype(np.float32)),
            rng.integers(0, 3, size),
        )
        for name, size in SIZES.items()
    }


def look(
    folder: Path,
    models: dict[str, Any],
    splits: dict[SplitName, Arrays] | None = None,
    seed: int = 0,
) -> tuple[Inside | None, dict[str, WhiteBox]]:
    case = case_of(models, splits or data())
    forward = forward_of(case, folder)
    views = {
        candidate.label: forward.white_view(candidate)
        for candidate in case.candidates
        if not candidate.recorded
    }
    return inside(case, views, [], np.random.default_rng(seed)), views


def measured(
    name: str,
    subject: Mapping[str, Any],
    original: Mapping[str, Any] | None = None,
    *retrained: Mapping[str, Any] | list[Mapping[str, Any]],
) -> Measurement:
    class Toy:
        card: ClassVar[ProbeCard] = ProbeCard(name, name, "representation", "m", "s", "c", ())

        def __call__(self, view: object, rng: np.random.Generator) -> Scalar:
            raise NotImplementedError

    def reading(details: Mapping[str, Any] | list[Mapping[str, Any]]) -> Reading:
        several = details if isinstance(details, list) else [details]
        return Reading(tuple(Scalar(0.0, None, detail) for detail in several))

    return Measurement(
        Toy(),
        reading(subject),
        None if original is None else reading(original),
        tuple(reading(detail) for detail in retrained),
    )


def test_a_refitted_head_is_seen(tmp_path: Path) -> None:
    found, _ = look(tmp_path, networks())
    assert found is not None
    assert found.shallow is not None
    assert found.shallow.kind == "encoder weights identical"
    assert found.shallow.head_differs
    assert found.shallow.activation_difference == 0.0
    assert found.shallow.identical_share == pytest.approx(1 - 15 / 53)  # head: 15 of 53 weights
    by_name = {layer.name: layer for layer in found.shallow.layers}
    assert by_name["encoder"].relative == 0.0
    assert by_name["head"].distance > 0


def test_no_views_no_inside(tmp_path: Path) -> None:
    case = case_of(networks(), data())
    assert inside(case, {}, [], np.random.default_rng(0)) is None


def test_models_without_an_inside_are_passed_over(tmp_path: Path) -> None:
    models = networks()
    del models["original"]
    models["retrained 1"] = recorded(np.zeros((4, 3), np.float32), np.zeros(4, np.int64), "api")
    found, _ = look(tmp_path, models)
    assert found is not None
    assert found.shallow is None
    assert found.projection is not None
    assert [model.model for model in found.projection.models] == ["subject"]


def test_projection_shows_the_same_examples_of_each_group(tmp_path: Path) -> None:
    found, _ = look(tmp_path, networks())
    assert found is not None
    drawn = found.projection
    assert drawn is not None
    assert (drawn.forget, drawn.retain, drawn.unseen) == (40, POINTS // 3, 60)
    assert [model.model for model in drawn.models] == ["original", "subject", "retrained 1"]
    original, subject, retrained = drawn.models
    # the subject shares the encoder, so its plane is the original's if examples are the same
    assert (subject.x, subject.y, subject.near) == (original.x, original.y, original.near)
    assert retrained.x != original.x


def test_renamed_units_give_the_same_picture(tmp_path: Path) -> None:
    models = networks()
    renamed = copy.deepcopy(models["original"])
    order = torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(renamed.encoder, name).copy_(getattr(models["original"].encoder, name)[order])
    found, _ = look(tmp_path, {**models, "retrained 1": renamed})
    assert found is not None
    assert found.projection is not None
    original, _, retrained = found.projection.models
    assert retrained.x == pytest.approx(original.x, abs=2e-3)
    assert retrained.y == pytest.approx(original.y, abs=2e-3)


def test_the_projection_depends_on_the_generator_alone_and_leaves_it_as_it_was(
    tmp_path: Path,
) -> None:
    one, again, other = (look(tmp_path, networks(), seed=seed)[0] for seed in (0, 0, 1))
    assert one is not None
    assert other is not None
    assert one == again
    assert one.projection != other.projection
    rng = np.random.default_rng(0)
    case = case_of(networks(), data())
    forward = forward_of(case, tmp_path)
    inside(case, {"subject": forward.white_view(case.subject)}, [], rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_too_few_examples_give_no_projection(tmp_path: Path) -> None:
    few: dict[SplitName, Arrays] = {
        name: Arrays(split.inputs[:1], split.labels[:1])
        for name, split in data().items()
        if name != "validation"
    }
    found, _ = look(tmp_path, networks(), few)
    assert found is not None
    assert found.projection is None


def test_plane_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(50, 7)) * np.array([5, 3, 1, 1, 1, 0.5, 0.1]) + 4
    points, explained = plane(features)
    oracle = PCA(2).fit(features)
    assert explained == pytest.approx(oracle.explained_variance_ratio_.tolist())
    expected = oracle.transform(features)
    expected /= np.sqrt(np.square(expected).sum(axis=1).mean())
    assert np.allclose(np.abs(points), np.abs(expected))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_features_that_do_not_vary_lie_in_one_point(width: int) -> None:
    points, explained = plane(np.full((5, width), 2.0))
    assert not points.any()
    assert explained == (0.0, 0.0)


def test_one_feature_gives_a_line() -> None:
    points, explained = plane(np.arange(5.0)[:, None])
    assert explained == pytest.approx((1.0, 0.0))
    assert not points[:, 1].any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_turning_undoes_rotation_and_mirroring(mirrored: bool) -> None:
    points = np.random.default_rng(2).normal(size=(20, 2))
    turn = np.array([[np.cos(1.1), -np.sin(1.1)], [np.sin(1.1), np.cos(1.1)]])
    if mirrored:
        turn[0] *= -1
    assert np.allclose(turned(points @ turn, points), points)


def test_nearness_against_scikit_learn() -> None:
    points = np.random.default_rng(3).normal(size=(60, 2))
    _, found = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points[:25])
    assert nearness(points, 25, 5) == pytest.approx((found[:, 1:] < 25).mean())


def test_information_curves_keep_values_and_errors() -> None:
    detail = {"layers": ["a", "features"], "mi": [0.3, 0.2], "mi_stderr": [0.01, 0.02]}
    (drawn,) = curves([measured("idi", detail, {**detail, "mi": [0.4, 0.3]}, detail, detail)])
    assert drawn.x == ("a", "features")
    assert [curve.model for curve in drawn.series] == [
        "subject",
        "original",
        "retrained 1",
        "retrained 2",
    ]
    assert drawn.series[1].y == (0.4, 0.3)
    assert drawn.series[0].low == pytest.approx((0.29, 0.18))
    assert drawn.series[0].high == pytest.approx((0.31, 0.22))
    assert drawn.unit == "nats"


def test_relearning_curves_stay_between_0_and_1() -> None:
    detail = {
        "steps": [0, 1, 4],
        "forget_accuracy": [0.0, 0.5, 1.0],
        "forget_accuracy_stderr": [0.1, 0.1, 0.1],
    }
    (drawn,) = curves([measured("relearn", detail)])
    assert drawn.x == (0.0, 1.0, 4.0)
    assert drawn.series[0].low == pytest.approx((0.0, 0.4, 0.9))
    assert drawn.series[0].high == pytest.approx((0.1, 0.6, 1.0))


def test_alignment_is_averaged_over_references_and_turned_into_likeness() -> None:
    one, two = {"by_layer": {"a": 0.2, "features": 0.4}}, {"by_layer": {"a": 0.4, "features": 0.5}}
    (drawn,) = curves([measured("cka", [one, two], [one, two], [one], [two])])  # type: ignore[arg-type]
    assert drawn.series[0].y == pytest.approx((0.7, 0.55))
    assert drawn.series[0].low == pytest.approx((0.6, 0.5))
    assert drawn.series[0].high == pytest.approx((0.8, 0.6))
    assert drawn.series[2].low is None
    assert drawn.series[3].y == pytest.approx((0.6, 0.5))


def test_curves_come_in_one_order_and_other_probes_give_none() -> None:
    detail = {"steps": [0, 1], "forget_accuracy": [0.0, 0.5]}
    given = [
        measured("accuracy", detail),
        measured("relearn-fresh-head", detail),
        measured("relearn", detail),
        measured("idi", {"layers": ["a"], "mi": [0.1]}),
    ]
    found = [drawn.probe for drawn in curves(given)]
    assert found == ["idi", "relearn", "relearn-fresh-head"]
    assert curves(given[:1]) == ()


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("idi", {}),
        ("idi", {"layers": ["a"], "mi": []}),
        ("idi", {"layers": ["a", "b"], "mi": [0.1]}),
        ("relearn", {"forget_accuracy": [0.1]}),
        ("cka", {}),
        ("cka", {"by_layer": {}}),
    ],
)
def test_details_without_curves_give_none(name: str, detail: dict[str, Any]) -> None:
    assert name in KINDS
    assert curves([measured(name, detail, detail, detail)]) == ()


def test_a_model_with_other_layers_has_no_curve() -> None:
    here, there = {"layers": ["a"], "mi": [0.1]}, {"layers": ["b"], "mi": [0.1]}
    (drawn,) = curves([measured("idi", here, there, here)])
    assert [curve.model for curve in drawn.series] == ["subject", "retrained 1"]
    assert drawn.band == ""


def test_nothing_names_an_example(tmp_path: Path) -> None:
    found, _ = look(tmp_path, networks())
    assert found is not None
    values = json.loads(found.model_dump_json())
    assert set(values["projection"]) == {"forget", "retain", "unseen", "neighbors", "models"}
    assert set(values["projection"]["models"][0]) == {
        "model",
        "role",
        "explained",
        "x",
        "y",
        "near",
    }
    coordinates = values["projection"]["models"][0]["x"]
    assert all(round(value, 3) == value for value in coordinates)


def test_every_kind_of_curve_belongs_to_a_registered_probe() -> None:

    import attacks  # noqa: F401
    from unaudit.evidence import PROBES

    registered = dict(PROBES.items())
    assert set(KINDS) <= set(registered)
