"""What every registered probe must do, in every scenario that it claims."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

import attacks
from unaudit.evidence import (
    FAMILIES,
    PROBES,
    SCENARIOS,
    IntArray,
    Probe,
    Scalar,
    Scenario,
    Scores,
    Skipped,
    SplitName,
)
from unaudit.views import BlackBox, Outputs

from .worlds import (
    N_CLASSES,
    SIZES,
    Logits,
    World,
    ask,
    make_labels,
    make_shadows,
    make_view,
    make_world,
    measure,
)
from .worlds import without as view_without

ALL: tuple[type[Probe], ...] = tuple(kind for _, kind in PROBES.items())
BLACK_BOX = tuple(kind for kind in ALL if kind.card.access == "black-box")

every_probe = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.card.name)
every_case = pytest.mark.parametrize(
    ("kind", "scenario"),
    [(kind, scenario) for kind in BLACK_BOX for scenario in sorted(kind.card.scenarios)],
    ids=lambda value: value if isinstance(value, str) else value.card.name,
)


def make_for(
    kind: type[Probe],
    scenario: Scenario,
    seed: int = 0,
    retrained: int = 6,
    sizes: Mapping[SplitName, int] = SIZES,
) -> World:
    """A world with the request that the probe asks for."""
    relabel, shadows = kind.card.asks == "relabeling", kind.card.shadows is not None
    return make_world(scenario, seed, retrained, sizes, relabel, shadows)


world = cache(make_for)


def index(kind: type[Probe], world: World) -> tuple[float, float, float]:
    """Measures of the original, of the first retrained model, and the mean of the other ones.

    A comparative measure is averaged over references, a model never being its own.
    """
    held_out, *references = world.retrained

    def of(view: BlackBox) -> float:
        others = [other for other in references if other is not view]
        if not kind.card.comparative:
            others = others[:1]
        return float(np.mean([measure(ask(kind(), view, other)) for other in others]))

    return of(world.original), of(held_out), float(np.mean([of(view) for view in references]))


@every_probe
def test_card_is_complete(kind: type[Probe]) -> None:
    card = kind.card
    assert PROBES.get(card.name) is kind
    assert 0 < len(card.title) <= 28
    assert card.family in FAMILIES
    assert card.scenarios
    assert card.scenarios <= SCENARIOS
    assert "forget" not in card.needs
    assert card.measures.endswith(".")
    assert card.source
    assert card.cost
    assert card.blind_spots
    assert all(spot.endswith(".") for spot in card.blind_spots)
    assert kind.__doc__


@every_probe
def test_parameters_are_frozen_fields_with_defaults(kind: type[Probe]) -> None:
    probe = kind()
    assert dataclasses.is_dataclass(probe)
    assert kind(**dataclasses.asdict(probe)) == probe
    assert kind.__name__ in repr(probe)
    json.dumps(dataclasses.asdict(probe))
    for field in dataclasses.fields(probe):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(probe, field.name, 1)


@every_probe
def test_signature_matches_card(kind: type[Probe]) -> None:
    names = list(inspect.signature(kind.__call__).parameters)
    expected = ["self", "view", "reference", "rng"] if kind.card.comparative else None
    assert names == (expected or ["self", "view", "rng"])


def test_titles_are_distinct() -> None:
    assert len({kind.card.title for kind in ALL}) == len(ALL)


def test_every_probe_module_is_listed() -> None:
    folder = Path(attacks.__file__).parent
    found = {
        f"{path.parent.name}.{path.stem}"
        for path in folder.glob("*/*.py")
        if not path.stem.startswith("_")
    }
    assert found == set(attacks.MODULES)


def test_listing_the_probes_does_not_import_scikit_learn() -> None:
    code = "import sys, attacks; sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    root = Path(attacks.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_reports_follow_the_list() -> None:
    own = [kind.__module__ for kind in ALL if kind.__module__.startswith("attacks.")]
    order = [f"attacks.{module}" for module in attacks.MODULES]
    assert own == sorted(own, key=order.index)


@every_case
def test_original_is_above_retrained(kind: type[Probe], scenario: Scenario) -> None:
    original, _, retrained = index(kind, world(kind, scenario))
    assert original > retrained


@every_case
@pytest.mark.parametrize("seed", [0, 1])
def test_silent_on_a_retrained_model_held_out(
    kind: type[Probe], scenario: Scenario, seed: int
) -> None:
    original, held_out, retrained = index(kind, world(kind, scenario, seed))
    assert abs(held_out - retrained) < 0.5 * (original - retrained)


@every_case
def test_deterministic(kind: type[Probe], scenario: Scenario) -> None:
    first, second = (
        ask(kind(), own.original, own.retrained[0])
        for own in (make_for(kind, scenario, retrained=1), make_for(kind, scenario, retrained=1))
    )
    assert_same(first, second)


@every_case
def test_scores_are_finite_and_in_place(kind: type[Probe], scenario: Scenario) -> None:
    own = world(kind, scenario)
    evidence = ask(kind(), own.original, own.retrained[0])
    if isinstance(evidence, Scalar):
        assert np.isfinite([evidence.value, evidence.stderr or 0.0]).all()
        json.dumps(dict(evidence.detail), allow_nan=False)
        return
    assert isinstance(evidence, Scores)
    json.dumps(dict(evidence.detail), allow_nan=False)
    given = {"forget": evidence.forget, "unseen": evidence.unseen, "retain": evidence.retain}
    assert set(evidence.rows) <= {split for split, scores in given.items() if scores is not None}
    assert "forget" not in evidence.rows or kind.card.asks == "canaries"
    for split in ("forget", "unseen", "retain"):
        scores = given[split]
        if scores is None:
            continue
        size = len(own.original.outputs(split))
        rows = evidence.rows.get(split, np.arange(size))
        assert scores.dtype == np.float64
        assert scores.shape == rows.shape
        assert np.isfinite(scores).all()
        assert (np.diff(rows) > 0).all()
        assert rows[0] >= 0
        assert rows[-1] < size
    assert evidence.statistic == "mean" or evidence.unseen is not None


@every_case
def test_rows_and_draws_pair_up_across_models(kind: type[Probe], scenario: Scenario) -> None:
    own = world(kind, scenario)
    states = []
    rows = []
    for view in (own.original, own.retrained[1]):
        rng = np.random.default_rng(3)
        views = (view, own.retrained[0]) if kind.card.comparative else (view,)
        evidence = kind()(*views, rng)  # type: ignore[call-arg]
        states.append(rng.bit_generator.state)
        rows.append(evidence.rows if isinstance(evidence, Scores) else {})
    assert states[0] == states[1]
    assert rows[0].keys() == rows[1].keys()
    for split in rows[0]:
        np.testing.assert_array_equal(rows[0][split], rows[1][split])


@every_case
def test_memory_mapped_logits_give_the_same(
    kind: type[Probe], scenario: Scenario, tmp_path: Path
) -> None:
    own = world(kind, scenario)

    def reopen(path: Path, labels: IntArray) -> Outputs:
        return Outputs(np.load(path, mmap_mode="r"), labels)

    def mapped(view: BlackBox, name: str) -> BlackBox:
        loads: dict[SplitName, Callable[[], Outputs]] = {}
        for split in view.splits:
            path = tmp_path / f"{name}-{split}.npy"
            np.save(path, view.outputs(split).logits)
            loads[split] = partial(reopen, path, view.outputs(split).labels)
        return BlackBox(
            loads,
            scenario=view.scenario,
            forget_classes=view.forget_classes,
            n_classes=view.n_classes,
            marks=view.marks,
            shadows=view.shadows,
        )

    expected = ask(kind(), own.original, own.retrained[0])
    found = ask(kind(), mapped(own.original, "own"), mapped(own.retrained[0], "other"))
    assert_same(found, expected)


def huge(rng: np.random.Generator, labels: IntArray) -> Logits:
    return rng.uniform(-1e4, 1e4, (len(labels), N_CLASSES)).astype(np.float32)


def tied(rng: np.random.Generator, labels: IntArray) -> Logits:
    return np.zeros((len(labels), N_CLASSES), np.float32)


def right_beyond_doubt(rng: np.random.Generator, labels: IntArray) -> Logits:
    return np.asarray(1e4 * np.eye(N_CLASSES)[labels], np.float32)


def wrong_beyond_doubt(rng: np.random.Generator, labels: IntArray) -> Logits:
    return np.asarray(-1e4 * np.eye(N_CLASSES)[labels], np.float32)


def one_class(rng: np.random.Generator, labels: IntArray) -> Logits:
    return right_beyond_doubt(rng, np.zeros_like(labels))


@every_case
@pytest.mark.parametrize(
    "fill",
    [huge, tied, right_beyond_doubt, wrong_beyond_doubt, one_class],
    ids=lambda f: f.__name__,
)
def test_extreme_logits_stay_finite(
    kind: type[Probe],
    scenario: Scenario,
    fill: Callable[[np.random.Generator, IntArray], Logits],
) -> None:
    rng = np.random.default_rng(5)
    relabel = kind.card.asks == "relabeling"
    sizes: Mapping[SplitName, int] = {"forget": 60, "retain": 150, "unseen": 300}
    labels = make_labels(scenario, rng, sizes, relabel)
    shadows = None
    if kind.card.shadows is not None:
        shadows = make_shadows(labels, lambda split, _: fill(rng, labels[split]), rng)
    views = []
    for other in (fill, huge):
        logits = {split: other(rng, own) for split, own in labels.items()}
        views.append(make_view(logits, labels, scenario, relabel, shadows))
    evidence = ask(kind(), views[0], views[1])
    assert not isinstance(evidence, Skipped)
    assert np.isfinite(measure(evidence))
    if isinstance(evidence, Scores):
        for scores in (evidence.forget, evidence.unseen, evidence.retain):
            assert scores is None or np.isfinite(scores).all()


@every_case
@pytest.mark.parametrize("split", ["forget", "retain", "unseen"])
def test_a_missing_split_is_a_skip_that_names_it(
    kind: type[Probe], scenario: Scenario, split: SplitName
) -> None:
    own = world(kind, scenario)
    evidence = ask(kind(), view_without(own.original, split), own.retrained[0])
    if split == "forget" or split in kind.card.needs:
        assert isinstance(evidence, Skipped)
        assert split in evidence.reason
        assert "\n" not in evidence.reason
    else:
        assert np.isfinite(measure(evidence))


@every_case
@pytest.mark.parametrize(
    "sizes",
    [
        {"forget": 1, "retain": 1, "unseen": 1},
        {"forget": 1, "retain": 300, "unseen": 300},
        {"forget": 3, "retain": 300, "unseen": 19},
        {"forget": 300, "retain": 5, "unseen": 300},
        {"forget": 2, "retain": 20, "unseen": 20},
    ],
    ids=str,
)
def test_tiny_splits_are_skipped_or_finite(
    kind: type[Probe], scenario: Scenario, sizes: Mapping[SplitName, int]
) -> None:
    own = make_for(kind, scenario, retrained=1, sizes=sizes)
    evidence = ask(kind(), own.original, own.retrained[0])
    if isinstance(evidence, Skipped):
        assert "at least 20" in evidence.reason
        return
    assert np.isfinite(measure(evidence))
    detail = evidence.detail
    json.dumps(dict(detail), allow_nan=False)


def assert_same(found: object, expected: object) -> None:
    """Equal answers, bit for bit."""
    assert type(found) is type(expected)
    if isinstance(found, Scores) and isinstance(expected, Scores):
        for field in ("forget", "unseen", "retain"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
        assert found.rows.keys() == expected.rows.keys()
        for split in found.rows:
            np.testing.assert_array_equal(found.rows[split], expected.rows[split])
        assert found.detail == expected.detail
    elif isinstance(found, Scalar) and isinstance(expected, Scalar):
        assert (found.value, found.stderr) == (expected.value, expected.stderr)
        assert found.detail == expected.detail
        for field in ("influences", "rows"):
            ours, theirs = getattr(found, field), getattr(expected, field)
            assert ours.keys() == theirs.keys()
            for split in ours:
                np.testing.assert_array_equal(ours[split], theirs[split])
    else:
        assert found == expected
