"""Recipe fidelity: accuracies are compared where the request changes nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from unaudit.case import Case
from unaudit.evidence import IntArray, Scenario, Task
from unaudit.fidelity import LIMIT, MADE, Fidelity, fidelity
from unaudit.recording.fidelity import fidelity_part
from unaudit.views import BlackBox

LABELS: Mapping[str, IntArray] = {
    "forget": np.full(30, 2),
    "retain": np.repeat([0, 1], 100),
    "unseen": np.repeat([0, 1, 2], 100),
}


class View:
    """Right on as large a share of each class as said."""

    def __init__(self, labels: Mapping[str, IntArray], right: Mapping[str, Mapping[int, float]]):
        self.labels, self.right = labels, right

    def predictions(self, split: str) -> Any:
        labels = self.labels[split]
        correct = np.zeros(len(labels), dtype=bool)
        for label, share in self.right[split].items():
            rows = np.flatnonzero(labels == label)
            correct[rows[: round(share * len(rows))]] = True
        return SimpleNamespace(labels=labels, hit_rate=correct.astype(np.float64))


def model(label: str, made: bool) -> Any:
    notes = (MADE,) if made else ()
    return SimpleNamespace(
        label=label, model=SimpleNamespace(provenance=SimpleNamespace(notes=notes))
    )


def found(
    original: Mapping[str, Mapping[int, float]],
    *retrained: Mapping[str, Mapping[int, float]],
    scenario: Scenario = "class",
    labels: Mapping[str, IntArray] = LABELS,
    made: Sequence[str] = ("retrained",),
    swapped: tuple[int, int] | None = None,
    task: Task = "classification",
) -> Fidelity | None:
    models = [model(f"retrained {i}", "retrained" in made) for i in range(1, len(retrained) + 1)]
    first = model("original", "original" in made)
    case = SimpleNamespace(
        original=first,
        retrained=tuple(models),
        splits={n: SimpleNamespace(labels=own) for n, own in labels.items()},
        scenario=scenario,
        swapped=swapped,
        task=task,
        forget_classes=tuple(np.unique(labels["forget"]).tolist()),
    )
    views = {"original": View(labels, original)}
    views |= {one.label: View(labels, r) for one, r in zip(models, retrained, strict=True)}
    return fidelity(cast(Case, case), cast("Mapping[str, BlackBox]", views))


def accuracy(kept: float, forgotten: float = 0.0) -> Mapping[str, Mapping[int, float]]:
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
    labels = {name: np.zeros(100, dtype=np.int64) for name in LABELS}
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
    assert "next-token accuracies differ by 3.0 points at most" in near.reason
    assert not far.ok
    assert "unseen next-token accuracy is 40.0% for the original and 30.0% for" in far.reason


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
    labels = {name: np.repeat([0, 1], 50) for name in LABELS}
    both = {name: {0: 0.9, 1: 0.9} for name in LABELS}
    result = sure(found(both, both, scenario="partial-class", labels=labels))
    assert not result.kept_classes_only
    assert [part.original for part in result.splits] == pytest.approx([0.9, 0.9])


def test_models_that_were_handed_in_need_no_recipe() -> None:
    assert found(accuracy(0.9, 0.9), accuracy(0.1), made=()) is None


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
