"""Fidelity: models are compared where the request changes nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from unaudit.case import Case
from unaudit.evidence import IntArray, Scenario, Task
from unaudit.fidelity import LIMIT, MADE, Fidelity, fidelity, incomparable
from unaudit.recording.fidelity import fidelity_part
from unaudit.views import BlackBox, Outputs

LABELS: Mapping[str, IntArray] = {
    "forget": np.full(20, 2),
    "retain": np.repeat([0, 1], 100),
    "unseen": np.repeat([0, 1, 2], 100),
}


N_CLASSES = 4
Shares = Mapping[str, Mapping[int, float]]


class View:
    """Right on as large a share of each class as said, else taking class 3 for the truth; as good
    as sure of everything, or of a given log-odds."""

    def __init__(self, labels: Mapping[str, IntArray], right: Shares, odds: float = 50.0) -> None:
        self.labels, self.right, self.odds = labels, right, odds

    def predictions(self, split: str) -> Outputs:
        labels = self.labels[split]
        answers = np.full(len(labels), N_CLASSES - 1)
        for label, share in self.right[split].items():
            rows = np.flatnonzero(labels == label)
            answers[rows[: round(share * len(rows))]] = label
        logits = np.zeros((len(labels), N_CLASSES), dtype=np.float32)
        logits[np.arange(len(labels)), answers] = self.odds
        return Outputs(logits, labels)


class Mistaken(View):
    """Takes what it gets wrong for class 2, and would have been right next."""

    def predictions(self, split: str) -> Outputs:
        labels, answers = self.labels[split], super().predictions(split)
        logits = answers.logits[:, [0, 1, 3, 2]].copy()
        wrong = ~answers.correct
        logits[wrong, labels[wrong]] += self.odds / 2
        return Outputs(logits, labels)


def model(label: str, made: bool) -> Any:
    notes = (MADE,) if made else ()
    return SimpleNamespace(
        label=label, model=SimpleNamespace(provenance=SimpleNamespace(notes=notes))
    )


def found(original: Shares | View, *retrained: Shares | View, **settings: Any) -> Fidelity | None:
    """In a :func:`world`."""
    return fidelity(*world(original, *retrained, **settings))


def world(
    original: Shares | View,
    *retrained: Shares | View,
    scenario: Scenario = "class",
    labels: Mapping[str, IntArray] = LABELS,
    made: Sequence[str] = ("retrained",),
    swapped: tuple[int, int] | None = None,
    task: Task = "classification",
) -> tuple[Case, dict[str, BlackBox]]:
    models = [model(f"retrained {i}", "retrained" in made) for i in range(1, len(retrained) + 1)]
    first = model("original", "original" in made)
    case = SimpleNamespace(
        subject=model("subject", False),
        original=first,
        retrained=tuple(models),
        splits={n: SimpleNamespace(labels=own) for n, own in labels.items()},
        scenario=scenario,
        swapped=swapped,
        task=task,
        forget_classes=tuple(np.unique(labels["forget"]).tolist()),
    )
    named = zip(("original", *(one.label for one in models)), (original, *retrained), strict=True)
    views = {label: r if isinstance(r, View) else View(labels, r) for label, r in named}
    return cast(Case, case), cast("dict[str, BlackBox]", views)


def accuracy(kept: float, forgotten: float = 0.0) -> Shares:
    return {
        "retain": {0: 1.0, 1: 1.0, 2: forgotten},
        "unseen": {0: kept, 1: kept, 2: forgotten},
    }


def sure(value: Fidelity | None) -> Fidelity:
    assert value is not None
    return value


def test_a_class_that_the_retrained_models_never_saw_counts_not_against_them() -> None:
    result = sure(found(accuracy(0.95, 0.95), accuracy(0.94), accuracy(0.96)))
    assert result.ok
    assert result.kept_classes_only
    assert {part.split: part.gap for part in result.splits} == pytest.approx(
        {"retain": 0.0, "unseen": 0.0}
    )


@pytest.mark.parametrize(
    ("mean", "ok"), [(0.95, True), (0.91, True), (0.99, True), (0.88, False), (0.5, False)]
)
def test_the_gap_of_means_is_held_against_the_limit(mean: float, ok: bool) -> None:
    result = sure(found(accuracy(0.95, 0.95), accuracy(mean - 0.01), accuracy(mean + 0.01)))
    assert result.ok == ok
    assert result.splits[1].retrained == pytest.approx(mean)
    assert result.splits[1].gap == pytest.approx(abs(0.95 - mean))
    assert result.limit == LIMIT == 0.05
    assert "\n" not in result.reason
    if not ok:
        assert f"unseen accuracy is 95.0% for the original and {mean:.1%}" in result.reason
        assert "[recipe]" in result.reason


def test_language_models_are_compared_by_the_tokens_that_they_predict() -> None:
    labels = {name: np.zeros(10 if name == "forget" else 100, np.int64) for name in LABELS}
    near, far = (
        sure(
            found(
                {"retain": {0: 0.6}, "unseen": {0: 0.4}},
                {"retain": {0: 0.6}, "unseen": {0: share}},
                scenario="sample",
                labels=labels,
                task="language-modeling",
            )
        )
        for share in (0.37, 0.3)
    )
    assert near.ok
    assert "next-token accuracies and confidences differ by 3.0 points at most" in near.reason
    assert not far.ok
    assert "unseen next-token accuracy is 40.0% for the original and 30.0% for" in far.reason


@pytest.mark.parametrize(("forgotten", "ok"), [(20, False), (30, True)])
def test_who_had_much_less_to_learn_from_may_know_less_of_the_unseen(
    forgotten: int, ok: bool
) -> None:
    labels = {**LABELS, "forget": np.resize([0, 1], forgotten)}
    whole = {"retain": {0: 1.0, 1: 1.0}, "unseen": {0: 0.9, 1: 0.9, 2: 0.9}}
    less = {"retain": {0: 1.0, 1: 1.0}, "unseen": {0: 0.8, 1: 0.8, 2: 0.8}}
    assert sure(found(whole, less, scenario="sample", labels=labels)).ok is ok
    # but not of what it kept
    worse = {**less, "retain": {0: 0.9, 1: 0.9}}
    assert not sure(found(whole, worse, scenario="sample", labels=labels)).ok


def test_where_one_class_is_left_its_certainty_still_counts() -> None:
    labels = {"forget": np.ones(20, int), "retain": np.zeros(100, int), "unseen": LABELS["retain"]}
    result = sure(
        found(
            {"retain": {0: 1.0}, "unseen": {0: 1.0}},
            {"retain": {0: 0.8}, "unseen": {0: 1.0}},
            labels=labels,
        )
    )
    assert not result.ok


def test_better_than_the_original_is_not_the_same_recipe_either() -> None:
    assert not sure(found(accuracy(0.8, 0.8), accuracy(0.95))).ok


def test_retain_alone_decides_where_nothing_is_unseen() -> None:
    labels = {name: LABELS[name] for name in ("forget", "retain")}
    good = {"retain": {0: 1.0, 1: 1.0}}
    poor = {"retain": {0: 1.0, 1: 0.8}}
    result = sure(found(good, poor, labels=labels))
    assert [part.split for part in result.splits] == ["retain"]
    assert result.splits[0].retrained == pytest.approx(0.9)
    assert not result.ok
    assert "retain accuracy" in result.reason


def test_a_split_of_the_forgotten_class_alone_says_nothing() -> None:
    labels = {**LABELS, "unseen": np.full(50, 2)}
    result = sure(found(accuracy(0.9, 0.9), accuracy(0.9), labels=labels))
    assert [part.split for part in result.splits] == ["retain"]
    assert result.ok


def test_a_request_over_all_classes_leaves_none_out() -> None:
    labels = {**LABELS, "forget": np.repeat([0, 1, 2], 10), "retain": np.repeat([0, 1, 2], 90)}
    poor = accuracy(0.95, 0.5)
    result = sure(found(accuracy(0.95, 0.95), poor, scenario="sample", labels=labels))
    assert not result.kept_classes_only
    assert result.splits[1].retrained == pytest.approx(0.8)
    assert not result.ok


def test_swapped_labels_change_their_classes_by_themselves() -> None:
    labels = {
        "forget": np.repeat([0, 1], 10),
        "retain": np.repeat([0, 1, 2], 90),
        "unseen": np.repeat([0, 1, 2], 50),
    }
    confused = {name: {0: 0.6, 1: 0.6, 2: 0.95} for name in ("retain", "unseen")}
    clean = {name: {0: 0.95, 1: 0.95, 2: 0.95} for name in ("retain", "unseen")}
    result = sure(found(confused, clean, scenario="sample", labels=labels, swapped=(0, 1)))
    assert result.ok
    assert result.kept_classes_only


def test_where_every_class_is_touched_all_count() -> None:
    labels = {name: np.repeat([0, 1], 5 if name == "forget" else 50) for name in LABELS}
    both = {name: {0: 0.9, 1: 0.9} for name in LABELS}
    result = sure(found(both, both, scenario="partial-class", labels=labels))
    assert not result.kept_classes_only
    assert [part.original for part in result.splits] == pytest.approx([0.9, 0.9])


def test_models_that_were_handed_in_are_held_against_the_original_too() -> None:
    near = sure(found(accuracy(0.9, 0.9), accuracy(0.87), accuracy(0.5), made=()))
    assert (near.made, near.ok) == ((), True)
    assert near.reason == (
        "the retrained models handed in match the original: the nearest comes within 3.0 points of "
        "its accuracies and confidences, 5 are allowed"
    )
    far = sure(found(accuracy(0.9, 0.9), accuracy(0.8), accuracy(0.84), made=()))
    assert not far.ok
    assert "do not match the original: unseen accuracy is 90.0% for the original and 82.0%" in (
        far.reason
    )
    assert "[recipe]" not in far.reason


def test_models_that_were_handed_in_may_fit_better_what_they_keep() -> None:
    """They had fewer examples to learn; a recipe that unaudit ran has no such excuse."""
    original, better = (
        {"retain": {0: share, 1: share}, "unseen": {0: 0.7, 1: 0.7}} for share in (0.8, 0.95)
    )
    assert sure(found(original, better, made=())).ok
    assert not sure(found(better, original, made=())).ok
    assert not sure(found(original, better)).ok


def test_what_is_taken_for_the_forgotten_class_is_no_matter_of_recipes() -> None:
    """An original that knows class 2 can take others for it; a retrained model cannot."""
    original = Mistaken(LABELS, accuracy(0.7, 0.7))
    result = sure(found(original, accuracy(0.98), made=("original",)))
    assert (original.predictions("unseen").hit_rate[:200].mean(), result.ok) == (0.7, True)
    assert (result.splits[1].original, result.splits[1].retrained) == (1.0, 0.98)


@pytest.mark.parametrize(("odds", "ok"), [(40.0, True), (4.5, True), (2.0, False)])
def test_a_recipe_that_stops_early_shows_in_confidence_first(odds: float, ok: bool) -> None:
    """Nothing is wrong in either model; one is less sure, by a softmax over the kept classes."""
    result = sure(found(accuracy(1.0, 1.0), View(LABELS, accuracy(1.0), odds)))
    assert [part.gap for part in result.splits] == [0.0, 0.0]
    assert result.ok == ok
    if not ok:
        confidence = np.exp(odds) / (np.exp(odds) + 2)
        assert f"retain confidence is 100.0% for the original and {confidence:.1%}" in result.reason


@pytest.mark.parametrize("share", [0.88, 0.93, 0.97])
def test_a_recipe_compared_with_itself_is_held_against_the_subject(share: float) -> None:
    same = accuracy(0.95, 0.95)
    case, views = world(same, accuracy(0.95), made=("original", "retrained"))
    views["subject"] = cast(BlackBox, View(LABELS, accuracy(share)))
    doubt = incomparable(case, views, fidelity(case, views))
    if share > 0.9:
        assert doubt is None
        return
    assert doubt is not None
    assert "unseen accuracy is 88.0% for the subject and 95.0% for the retrained models" in doubt
    assert doubt.endswith("--original settles it")


@pytest.mark.parametrize("made", [(), ("retrained",), ("original",)])
def test_an_original_that_was_handed_in_decides_what_is_comparable(made: Sequence[str]) -> None:
    """Whatever the subject is like: the case has no view of it here."""
    for share, doubted in ((0.93, False), (0.6, True)):
        case, views = world(accuracy(0.95, 0.95), accuracy(share), made=made)
        result = fidelity(case, views)
        expected = sure(result).reason if doubted else None
        assert incomparable(case, views, result) == expected
    assert incomparable(case, views, None) is None


@pytest.mark.parametrize("gone", ["original", "retrained"])
def test_without_a_reference_there_is_nothing_to_compare(gone: str) -> None:
    case = SimpleNamespace(original=model("original", True), retrained=(model("r", True),))
    setattr(case, gone, None if gone == "original" else ())
    assert fidelity(cast(Case, case), {}) is None


def test_an_original_made_from_the_recipe_is_compared_with_what_was_handed_in() -> None:
    result = sure(found(accuracy(0.9, 0.9), accuracy(0.9), made=("original",)))
    assert (result.made, result.ok) == (("original",), True)
    assert not sure(found(accuracy(0.9, 0.9), accuracy(0.7), made=("original",))).ok


def test_a_recipe_compared_with_itself_is_not_called_faithful() -> None:
    result = sure(found(accuracy(0.9, 0.9), accuracy(0.9), made=("original", "retrained")))
    assert not result.ok
    assert "compared with itself; hand in the original with --original" in result.reason


def test_the_record_holds_the_same_numbers() -> None:
    result = sure(found(accuracy(0.95, 0.95), accuracy(0.75)))
    part = fidelity_part(result)
    assert part is not None
    assert [split.model_dump() for split in part.splits] == [
        {"split": s.split, "original": s.original, "retrained": s.retrained, "gap": s.gap}
        for s in result.splits
    ]
    assert (part.ok, part.reason, part.limit) == (result.ok, result.reason, result.limit)
    assert (part.made, part.kept_classes_only) == (result.made, result.kept_classes_only)
    assert fidelity_part(None) is None
