"""The case: splits that are disjoint, scenarios, references that are references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unaudit.case import Case, build_case
from unaudit.data.recorded import RecordedDataset
from unaudit.engine.store import Store
from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.loading.networks import mlp
from unaudit.plan import AuditPlan
from unaudit.splits import Split, detect_scenario, mix_differs
from unaudit.training import initialize

N_TRAIN, N_UNSEEN = 60, 30


class Sized(RecordedDataset):
    """Nothing but labels."""

    def __init__(self, labels: np.ndarray) -> None:
        super().__init__("sized", tuple(map(str, range(len(labels)))), labels, "digest")


def write_model(path: Path, seed: int) -> None:
    model = initialize(mlp((4, 8, 3)), torch.Generator().manual_seed(seed))
    save_file(model.state_dict(), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three-class data with ids, ten forget ids over all classes, four models."""
    rng = np.random.default_rng(0)
    for name, n, start in (("train", N_TRAIN, 0), ("unseen", N_UNSEEN, 1000)):
        np.savez(
            tmp_path / f"{name}.npz",
            x=rng.normal(size=(n, 4)).astype(np.float32),
            y=np.arange(n) % 3,
            id=np.array([f"e{start + i}" for i in range(n)]),
        )
    (tmp_path / "forget.txt").write_text("\n".join(f"e{i}" for i in range(10)))
    for seed, name in enumerate(("subject", "original", "r1", "r2")):
        write_model(tmp_path / f"{name}.safetensors", seed)
    return tmp_path


def plan_of(folder: Path, **sections: dict[str, Any]) -> AuditPlan:
    values: dict[str, dict[str, Any]] = {
        "model": {"path": str(folder / "subject.safetensors"), "arch": "unaudit:mlp?widths=4-8-3"},
        "data": {"train": str(folder / "train.npz"), "unseen": str(folder / "unseen.npz")},
        "request": {"forget": str(folder / "forget.txt")},
        "references": {
            "original": str(folder / "original.safetensors"),
            "retrained": [str(folder / "r1.safetensors"), str(folder / "r2.safetensors")],
        },
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return AuditPlan.build(values)


def case_in(folder: Path, **sections: dict[str, Any]) -> Case:
    return build_case(plan_of(folder, **sections), Store(folder / "store"))


def rewrite(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as data:
        arrays = dict(data)
    np.savez(path, **(arrays | changes))


def test_splits_are_disjoint_and_complete(folder: Path) -> None:
    case = case_in(folder)
    forget, retain = case.splits["forget"], case.splits["retain"]
    assert forget.rows.tolist() == list(range(10))
    assert sorted([*forget.rows, *retain.rows]) == list(range(N_TRAIN))
    assert len(case.splits["unseen"]) == N_UNSEEN
    assert forget.id_of(3) == "e3"
    assert case.scenario == "sample"
    assert case.scenario_source == "detected"


@pytest.mark.parametrize(
    ("forget", "retain", "scenario"),
    [
        ([1, 1, 1], [0, 2], "class"),
        ([1, 1, 2], [0, 0], "class"),
        ([1, 1], [0, 1, 2], "partial-class"),
        ([0, 1], [0, 1, 2], "sample"),
        ([1, 1, 0], [0, 2], "sample"),
        ([0, 0], [0, 0, 0], "sample"),
    ],
)
def test_the_scenario_follows_from_the_labels(
    forget: list[int], retain: list[int], scenario: str
) -> None:
    assert detect_scenario(np.array(forget), np.array(retain)) == scenario


def test_a_stated_scenario_wins_and_is_remarked_on(folder: Path) -> None:
    case = case_in(folder, request={"scenario": "class"})
    assert (case.scenario, case.scenario_source) == ("class", "stated")
    assert "stated as 'class', the labels look like 'sample'" in case.warnings[0]


def test_copies_are_counted_and_left_out_of_unseen(folder: Path) -> None:
    """One unseen example of 200 repeats a forget example, one retain example repeats another."""
    rng = np.random.default_rng(1)
    with np.load(folder / "train.npz") as data:
        x = data["x"].copy()
    x[20] = x[2]
    rewrite(folder / "train.npz", x=x)
    unseen = rng.normal(size=(200, 4)).astype(np.float32)
    unseen[7] = x[5]
    ids = np.array([f"u{i}" for i in range(200)])
    np.savez(folder / "unseen.npz", x=unseen, y=np.arange(200) % 3, id=ids)
    case = case_in(folder)
    assert case.copies is not None
    assert case.copies.forget_retain == 1
    assert case.copies.forget_unseen == 1
    assert case.copies.retain_unseen == 0
    assert len(case.splits["unseen"]) == 199
    assert 7 not in case.splits["unseen"].rows


def test_unseen_that_overlaps_train_is_refused(folder: Path) -> None:
    with np.load(folder / "train.npz") as data:
        np.savez(folder / "unseen.npz", x=data["x"][:30], y=data["y"][:30])
    with pytest.raises(InputError, match=r"30 of 30 unseen examples are also in the training data"):
        case_in(folder)


def test_validation_that_overlaps_unseen_is_refused(folder: Path) -> None:
    with np.load(folder / "unseen.npz") as data:
        np.savez(folder / "val.npz", x=data["x"][:5], y=data["y"][:5], id=data["id"][:5])
    with pytest.raises(InputError, match="5 unseen examples are also in the validation data"):
        case_in(folder, data={"validation": str(folder / "val.npz")})


def test_forgetting_everything_is_refused(folder: Path) -> None:
    (folder / "forget.txt").write_text("\n".join(f"e{i}" for i in range(N_TRAIN)))
    with pytest.raises(InputError, match="cover all 60 training examples"):
        case_in(folder)


def test_unseen_of_another_shape_is_refused(folder: Path) -> None:
    np.savez(folder / "unseen.npz", x=np.zeros((4, 5), np.float32), y=np.zeros(4, np.int64))
    with pytest.raises(InputError, match=r"unseen examples have shape \(5,\), training"):
        case_in(folder)


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"data": {"train": None}}, "no training data given; add --train"),
        ({"request": {"forget": None}}, "no forget ids given; add --forget"),
        ({"model": {"path": None}}, "no model given"),
    ],
)
def test_what_is_missing_is_named(
    folder: Path, sections: dict[str, dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        case_in(folder, **sections)


def test_a_subject_cannot_be_its_own_reference(folder: Path) -> None:
    write_model(folder / "copy.safetensors", 0)
    paths = [str(folder / f"{name}.safetensors") for name in ("r1", "copy")]
    with pytest.raises(UsageError, match="the subject has the same weights as retrained 2"):
        case_in(folder, references={"retrained": paths})


def test_the_same_retrained_model_twice_is_refused(folder: Path) -> None:
    write_model(folder / "copy.safetensors", 2)
    paths = [str(folder / f"{name}.safetensors") for name in ("r1", "copy")]
    with pytest.raises(UsageError, match="need different seeds"):
        case_in(folder, references={"retrained": paths})


def test_an_original_that_is_a_retrained_model_is_refused(folder: Path) -> None:
    write_model(folder / "copy.safetensors", 2)
    with pytest.raises(UsageError, match="the original has the same weights as retrained 1"):
        case_in(folder, references={"original": str(folder / "copy.safetensors")})


def test_the_subject_may_be_the_original(folder: Path) -> None:
    case = case_in(folder, references={"original": str(folder / "subject.safetensors")})
    assert case.original is not None
    assert case.original.model.digest == case.subject.model.digest


def list_ids(folder: Path, *lines: str) -> None:
    (folder / "forget.txt").write_text("\n".join(lines), encoding="utf-8")


def test_without_marks_there_are_no_canaries(folder: Path) -> None:
    case = case_in(folder)
    assert case.marks.canaries == {}
    assert case.marks.swapped is None
    assert all(split.canaries is None for split in case.splits.values())


@pytest.mark.parametrize("id_type", ["key", "index"])
def test_marks_reach_the_splits(folder: Path, id_type: str) -> None:
    forget, canaries, held_out = ("3", "8", "5"), ("9", "2"), ("4", "0")
    names = {"key": "e{}", "index": "{}"}[id_type]
    unseen = {"key": "e100{}", "index": "{}"}[id_type]
    list_ids(
        folder,
        *(names.format(row) for row in forget),
        *(names.format(row) + "\tcanary" for row in canaries),
        *(unseen.format(row) + "\theld-out" for row in held_out),
    )
    case = case_in(folder, data={"id_type": id_type})
    assert case.splits["forget"].rows.tolist() == [2, 3, 5, 8, 9]
    assert case.marks.canaries["forget"].tolist() == [True, False, False, False, True]
    assert np.flatnonzero(case.marks.canaries["unseen"]).tolist() == [0, 4]
    assert set(case.marks.canaries) == {"forget", "unseen"}


def test_marks_change_neither_digest(folder: Path) -> None:
    """Nothing that was computed from the models is thrown away, and the request is the same."""
    list_ids(folder, "e3", "e7")
    before = case_in(folder)
    list_ids(folder, "e7", "e3\tcanary", "e1004\theld-out")
    after = case_in(folder)
    assert after.ids_hmac == before.ids_hmac
    assert after.data_digest == before.data_digest


def test_held_out_canaries_need_unseen_data_that_has_them(folder: Path) -> None:
    list_ids(folder, "e3", "e1004\theld-out")
    with pytest.raises(UsageError, match=r"forget\.txt: lists canaries .* add --unseen"):
        case_in(folder, data={"unseen": None})
    list_ids(folder, "e3", "e5\theld-out")
    with pytest.raises(InputError, match=r"1 held-out canary id is not in the unseen data"):
        case_in(folder)


def test_a_held_out_canary_that_was_trained_on_is_refused(folder: Path) -> None:
    rng = np.random.default_rng(1)
    with np.load(folder / "train.npz") as data:
        known = data["x"][33]
    x = rng.normal(size=(200, 4)).astype(np.float32)
    x[7] = known
    ids = np.array([f"u{i}" for i in range(200)])
    np.savez(folder / "unseen.npz", x=x, y=np.arange(200) % 3, id=ids)
    list_ids(folder, "e3", "u7\theld-out", "u8\theld-out")
    with pytest.raises(InputError, match=r"1 of 2 canaries .* training data as well \(first: 'u7'"):
        case_in(folder)


@pytest.mark.parametrize(("planted", "held_out", "differs"), [(30, 30, False), (30, 0, True)])
def test_canaries_count_as_a_class_of_their_own(
    tmp_path: Path, planted: int, held_out: int, differs: bool
) -> None:
    """Reference-free, forget against unseen says nothing if only forget has outliers."""
    data = Sized(np.arange(120) % 2)
    sides = []
    for name, count in (("forget", planted), ("unseen", held_out)):
        canaries = np.arange(120) < count
        sides.append(Split(name, data, np.arange(120), canaries if count else None))  # type: ignore[arg-type]
    assert mix_differs(sides[0], sides[1]) is differs


@pytest.mark.parametrize(
    ("swapped", "expected"), [(None, (0, 1)), ([1, 0], (0, 1)), ([0, 1], (0, 1))]
)
def test_a_relabeling_names_two_classes(
    folder: Path, swapped: list[int] | None, expected: tuple[int, int]
) -> None:
    list_ids(folder, "e0", "e1", "e3")  # labels 0, 1, 0
    request = {"kind": "relabel", "swapped": swapped}
    case = case_in(folder, request={k: v for k, v in request.items() if v is not None})
    assert case.swapped == case.marks.swapped == expected


def test_the_classes_of_a_relabeling_may_have_names(folder: Path) -> None:
    for name in ("train", "unseen"):
        with np.load(folder / f"{name}.npz") as data:
            y = np.array(["cat", "dog", "owl"])[data["y"]]
        rewrite(folder / f"{name}.npz", y=y)
    list_ids(folder, "e0", "e2")
    case = case_in(folder, request={"kind": "relabel", "swapped": ["owl", "cat"]})
    assert case.swapped == (0, 2)
    with pytest.raises(InputError, match=r"has no class 'cta' \(did you mean 'cat'\?\)"):
        case_in(folder, request={"kind": "relabel", "swapped": ["owl", "cta"]})


@pytest.mark.parametrize(
    ("ids", "swapped", "complaint"),
    [
        (("e0", "e1", "e2"), None, "has labels of 3 classes, not of two; name the two"),
        (("e0", "e3"), None, "has labels of 1 class, not of two; name the two"),
        (("e0", "e1", "e2"), [0, 1], "1 forget examples have other labels (first: 'e2')"),
        (("e0", "e1"), [0, 2], "names the classes 0 and 2, but 1 forget examples"),
    ],
)
def test_a_relabeling_that_does_not_fit_the_labels(
    folder: Path, ids: tuple[str, ...], swapped: list[int] | None, complaint: str
) -> None:
    list_ids(folder, *ids)
    request = {"kind": "relabel"} | ({} if swapped is None else {"swapped": swapped})
    with pytest.raises(UnauditError) as error:
        case_in(folder, request=request)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_labels_have_no_known_null(folder: Path) -> None:
    """Forget labels are wrong, unseen ones right: a model that saw neither tells them apart."""
    list_ids(folder, *(f"e{i}" for i in range(12) if i % 3 != 2))
    assert not case_in(folder).mix_differs
    assert case_in(folder, request={"kind": "relabel"}).mix_differs


@pytest.mark.parametrize("what", ["content", "labels", "order", "preprocessing"])
def test_the_data_digest_notices_every_change(folder: Path, what: str) -> None:
    before = case_in(folder).data_digest
    assert case_in(folder).data_digest == before
    sections: dict[str, dict[str, Any]] = {}
    with np.load(folder / "train.npz") as data:
        x, y, ids = data["x"].copy(), data["y"].copy(), data["id"].copy()
    if what == "content":
        x[0, 0] += 1e-6
    elif what == "labels":
        y[0] = (y[0] + 1) % 3
    elif what == "order":
        x, y, ids = x[::-1], y[::-1], ids[::-1]
    else:
        sections = {"preprocess": {"scale": 2.0}}
    np.savez(folder / "train.npz", x=x, y=y, id=ids)
    assert case_in(folder, **sections).data_digest != before


def test_a_class_is_forgotten_by_its_name(folder: Path) -> None:
    case = case_in(folder, request={"forget": "class:1"})
    assert case.scenario == "class"
    assert case.splits["forget"].rows.tolist() == list(range(1, N_TRAIN, 3))
    assert case.forget_classes == (1,)
