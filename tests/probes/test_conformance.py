"""What every registered probe must do, in every scenario and for every task that it claims."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

import attacks
from unaudit.evidence import (
    ANY_TASK,
    FAMILIES,
    PROBES,
    SCENARIOS,
    FloatArray,
    IntArray,
    Probe,
    Scalar,
    Scenario,
    Scores,
    Skipped,
    SplitName,
    Task,
)
from unaudit.shadows import Shadows
from unaudit.token_outputs import TokenOutputs
from unaudit.views import BlackBox, Outputs, Predictions

from .language_worlds import SIZES as TEXTS
from .language_worlds import VOCABULARY, Texts, make_language_world
from .language_worlds import make_view as make_token_view
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

Sizes: TypeAlias = tuple[tuple[SplitName, int], ...]


@dataclass(frozen=True)
class Setting:
    """Where a probe is tried."""

    scenario: Scenario
    task: Task

    def __str__(self) -> str:
        return self.scenario if self.task == "classification" else f"{self.scenario}-texts"


ALL: tuple[type[Probe], ...] = tuple(kind for _, kind in PROBES.items())
BLACK_BOX = tuple(kind for kind in ALL if kind.card.access == "black-box")

every_probe = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.card.name)
every_case = pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (kind, Setting(scenario, task))
        for kind in BLACK_BOX
        for task in sorted(kind.card.tasks)
        for scenario in sorted(kind.card.scenarios)
    ],
    ids=lambda value: str(value) if isinstance(value, Setting) else value.card.name,
)


def make(
    setting: Setting,
    relabel: bool,
    shadows: bool,
    seed: int = 0,
    retrained: int = 6,
    sizes: Sizes = (),
) -> World:
    if setting.task == "language-modeling":
        of_texts = dict(sizes or TEXTS.items())
        return make_language_world(setting.scenario, seed, retrained, of_texts, shadows)
    of_examples = dict(sizes or SIZES.items())
    return make_world(setting.scenario, seed, retrained, of_examples, relabel, shadows)


cached = cache(make)


def world(
    kind: type[Probe],
    setting: Setting,
    seed: int = 0,
    retrained: int = 6,
    sizes: Sizes = (),
    *,
    fresh: bool = False,
) -> World:
    """A world with the request that the probe asks for; the same for all that ask for it."""
    relabel, shadows = kind.card.asks == "relabeling", kind.card.shadows is not None
    return (make if fresh else cached)(setting, relabel, shadows, seed, retrained, sizes)


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
    assert card.tasks
    assert card.tasks <= ANY_TASK
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
def test_original_is_above_retrained(kind: type[Probe], setting: Setting) -> None:
    original, _, retrained = index(kind, world(kind, setting))
    assert original > retrained


@every_case
@pytest.mark.parametrize("seed", [0, 1])
def test_silent_on_a_retrained_model_held_out(
    kind: type[Probe], setting: Setting, seed: int
) -> None:
    original, held_out, retrained = index(kind, world(kind, setting, seed))
    assert abs(held_out - retrained) < 0.5 * (original - retrained)


@every_case
def test_deterministic(kind: type[Probe], setting: Setting) -> None:
    sizes: Sizes = (("forget", 60), ("retain", 200), ("unseen", 300))
    first, second = (
        ask(kind(), own.original, own.retrained[0])
        for own in [world(kind, setting, retrained=1, sizes=sizes, fresh=True) for _ in range(2)]
    )
    assert_same(first, second)


@every_case
def test_scores_are_finite_and_in_place(kind: type[Probe], setting: Setting) -> None:
    own = world(kind, setting)
    evidence = ask(kind(), own.original, own.retrained[0])
    if isinstance(evidence, Scalar):
        assert np.isfinite([evidence.value, evidence.stderr or 0.0]).all()
        json.dumps(dict(evidence.detail), allow_nan=False)
        return
    assert isinstance(evidence, Scores)
    json.dumps(dict(evidence.detail), allow_nan=False)
    given = {"forget": evidence.forget, "unseen": evidence.unseen, "retain": evidence.retain}
    assert set(evidence.rows) <= {split for split, scores in given.items() if scores is not None}
    whole = setting.task == "classification" and kind.card.asks != "canaries"
    assert "forget" not in evidence.rows or not whole
    for split in ("forget", "unseen", "retain"):
        scores = given[split]
        if scores is None:
            continue
        size = len(own.original.predictions(split))
        rows = evidence.rows.get(split, np.arange(size))
        assert scores.dtype == np.float64
        assert scores.shape == rows.shape
        assert np.isfinite(scores).all()
        assert (np.diff(rows) > 0).all()
        assert rows[0] >= 0
        assert rows[-1] < size
    assert evidence.statistic == "mean" or evidence.unseen is not None


@every_case
def test_rows_and_draws_pair_up_across_models(kind: type[Probe], setting: Setting) -> None:
    own = world(kind, setting)
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
def test_memory_mapped_outputs_give_the_same(
    kind: type[Probe], setting: Setting, tmp_path: Path
) -> None:
    own = world(kind, setting)

    def reopen(found: Outputs | TokenOutputs, path: Path) -> Outputs | TokenOutputs:
        fields = [field.name for field in dataclasses.fields(found)]
        kept = {name: path / f"{name}.npy" for name in fields}
        arrays = {
            name: np.load(file, mmap_mode="r") for name, file in kept.items() if file.exists()
        }
        return dataclasses.replace(found, **arrays)

    def mapped(view: BlackBox, name: str) -> BlackBox:
        loads: dict[SplitName, Callable[[], Predictions]] = {}
        for split in view.splits:
            (path := tmp_path / name / split).mkdir(parents=True)
            found = view.predictions(split)
            assert isinstance(found, Outputs | TokenOutputs)
            for field in dataclasses.fields(found):
                if isinstance(array := getattr(found, field.name), np.ndarray):
                    np.save(path / f"{field.name}.npy", array)
            loads[split] = partial(reopen, found, path)
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


Fill: TypeAlias = Callable[[np.random.Generator, IntArray, int], Logits]


def view_of(
    outputs: Mapping[SplitName, Outputs | TokenOutputs],
    scenario: Scenario,
    relabel: bool,
    shadows: Shadows | None,
) -> BlackBox:
    """A view of outputs of either kind."""
    logits: dict[SplitName, Logits] = {}
    tokens: dict[SplitName, TokenOutputs] = {}
    for split, own in outputs.items():
        if isinstance(own, TokenOutputs):
            tokens[split] = own
        else:
            logits[split] = own.logits
    if tokens:
        return make_token_view(tokens, scenario, shadows)
    labels = {split: own.labels for split, own in outputs.items()}
    return make_view(logits, labels, scenario, relabel, shadows)


def huge(rng: np.random.Generator, truth: IntArray, width: int) -> Logits:
    return rng.uniform(-1e4, 1e4, (len(truth), width)).astype(np.float32)


def tied(rng: np.random.Generator, truth: IntArray, width: int) -> Logits:
    return np.zeros((len(truth), width), np.float32)


def right_beyond_doubt(rng: np.random.Generator, truth: IntArray, width: int) -> Logits:
    return np.asarray(1e4 * np.eye(width)[truth], np.float32)


def wrong_beyond_doubt(rng: np.random.Generator, truth: IntArray, width: int) -> Logits:
    return np.asarray(-1e4 * np.eye(width)[truth], np.float32)


def one_answer(rng: np.random.Generator, truth: IntArray, width: int) -> Logits:
    return right_beyond_doubt(rng, np.zeros_like(truth), width)


@every_case
@pytest.mark.parametrize(
    "fill",
    [huge, tied, right_beyond_doubt, wrong_beyond_doubt, one_answer],
    ids=lambda f: f.__name__,
)
def test_extreme_logits_stay_finite(
    kind: type[Probe],
    setting: Setting,
    fill: Fill,
) -> None:
    rng = np.random.default_rng(5)
    relabel = kind.card.asks == "relabeling"
    sizes: Mapping[SplitName, int] = {"forget": 60, "retain": 150, "unseen": 200}
    labels = make_labels(setting.scenario, rng, sizes, relabel)
    texts = {split: Texts(own, rng, least=12) for split, own in labels.items()}

    def outputs(split: SplitName, fill: Fill) -> Outputs | TokenOutputs:
        if setting.task == "language-modeling":
            return texts[split].outputs(fill(rng, texts[split].targets, VOCABULARY))
        return Outputs(fill(rng, labels[split], N_CLASSES), labels[split])

    def shadow(split: SplitName, _: FloatArray) -> Predictions:
        if setting.task == "language-modeling":
            logits = fill(rng, texts[split].targets, VOCABULARY)
            return texts[split].likelihood(logits.astype(np.float64))
        return outputs(split, fill)

    shadows = None
    if kind.card.shadows is not None:
        shadows = make_shadows(labels, shadow, rng, 24)
    views = []
    for other in (fill, huge):
        found = {split: outputs(split, other) for split in labels}
        views.append(view_of(found, setting.scenario, relabel, shadows))
    evidence = ask(kind(), views[0], views[1])
    assert not isinstance(evidence, Skipped)
    assert np.isfinite(measure(evidence))
    if isinstance(evidence, Scores):
        for scores in (evidence.forget, evidence.unseen, evidence.retain):
            assert scores is None or np.isfinite(scores).all()


@every_case
@pytest.mark.parametrize("split", ["forget", "retain", "unseen"])
def test_a_missing_split_is_a_skip_that_names_it(
    kind: type[Probe], setting: Setting, split: SplitName
) -> None:
    own = world(kind, setting)
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
    kind: type[Probe], setting: Setting, sizes: Mapping[SplitName, int]
) -> None:
    own = world(kind, setting, retrained=1, sizes=tuple(sizes.items()))
    evidence = ask(kind(), own.original, own.retrained[0])
    if isinstance(evidence, Skipped):
        assert "at least " in evidence.reason
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
