"""Designs: every example in half of the models, everything else like the subject's training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unaudit.errors import InputError, UsageError
from unaudit.evidence import Scenario, SplitName
from unaudit.shadows.design import POOL, Design, make_design

Labels = dict[SplitName, npt.NDArray[np.int64]]
splits = st.fixed_dictionaries(
    {
        "forget": st.lists(st.integers(0, 3), min_size=4, max_size=30),
        "retain": st.lists(st.integers(0, 3), min_size=4, max_size=80),
    },
    optional={"unseen": st.lists(st.integers(0, 3), max_size=60)},
)
SCENARIOS: list[Scenario] = ["sample", "class"]


def arrays(lists: dict[Any, list[int]]) -> Labels:
    return {name: np.array(labels, dtype=np.int64) for name, labels in lists.items()}


def drawn(forget: int, retain: int, unseen: int, classes: int = 10) -> Labels:
    """Random labels, as of a sample scenario."""
    rng = np.random.default_rng(0)
    sizes = {"forget": forget, "retain": retain, "unseen": unseen}
    return arrays({name: rng.integers(classes, size=n).tolist() for name, n in sizes.items()})


def strata(design: Design, labels: Labels) -> npt.NDArray[np.int64]:
    """(3, k): split and class, class, nothing; a number for each."""
    kind = np.concatenate([labels[name][rows] for name, rows in design.rows.items()])
    origin = np.concatenate(
        [np.full(len(rows), POOL.index(name)) for name, rows in design.rows.items()]
    )
    return np.array([kind * 3 + origin, kind, np.zeros_like(kind)])


def sums(mask: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(m, groups): members of each."""
    return np.array([mask[:, groups == one].sum(axis=1) for one in np.unique(groups)]).T


@given(splits, st.integers(2, 9), st.integers(0, 99), st.integers(0, 40) | st.none())
def test_training_sets(
    lists: dict[str, list[int]], models: int, seed: int, retain: int | None
) -> None:
    labels = arrays(lists)
    design = make_design(labels, models, seed, scenario="sample", retain=retain)
    check_training_sets(design, labels, models)
    assert design.erased is None
    if retain is not None:
        assert len(design.rows.get("retain", ())) <= retain
    if 2 * len(labels["retain"]) + len(labels["forget"]) >= len(labels.get("unseen", ())):
        assert len(design.rows.get("unseen", ())) == len(labels.get("unseen", ()))


def check_training_sets(design: Design, labels: Labels, models: int) -> None:
    for name, rows in design.rows.items():
        assert (np.diff(rows) > 0).all()
        assert rows[0] >= 0
        assert rows[-1] < len(labels[name])
    assert len(design.rows["forget"]) == len(labels["forget"])
    assert design.models == models
    # each example in half of the models, which come in complementary pairs
    inside = design.member.sum(axis=0)
    assert set(inside) <= {models // 2, (models + 1) // 2}
    assert (design.member[0 : models - 1 : 2] != design.member[1::2]).all()
    # halves of the same make-up, at every level
    for groups in strata(design, labels):
        size = np.unique(groups, return_counts=True)[1]
        assert np.abs(2 * sums(design.member, groups) - size).max() <= 1
    # what is in all models is not in question, and there is as much of it as needed
    kept = design.rows.get("retain", np.empty(0, dtype=np.int64))
    assert not np.isin(design.core, kept).any()
    assert (np.diff(design.core) > 0).all()
    trained = len(labels["forget"]) + len(labels["retain"])
    sizes = len(design.core) + design.member.sum(axis=1)
    assert sizes.max() == design.train_size <= trained
    assert sizes.min() >= design.train_size - 1
    possible = len(labels["retain"]) - len(kept) + design.member.shape[1] // 2
    assert design.train_size >= min(trained, possible)


@given(splits, st.integers(4, 9), st.integers(0, 99), st.sampled_from(SCENARIOS))
def test_forget_sets(
    lists: dict[str, list[int]], models: int, seed: int, scenario: Scenario
) -> None:
    labels = arrays(lists)
    design = make_design(labels, models, seed, scenario=scenario, unlearning=True)
    check_training_sets(design, labels, models)
    erased, member = design.erased, design.member
    assert erased is not None
    assert not (erased & ~member).any()
    assert erased.any(axis=1).all()
    if scenario == "class":
        assert (erased == member).all()
        return
    # half of what a model contains, at every level
    for groups in strata(design, labels):
        assert np.abs(2 * sums(erased, groups) - sums(member, groups)).max() <= 1
    # of each group of four models an example is in two, and is erased by one of them
    for start in range(0, models - 3, 4):
        assert (erased[start : start + 4].sum(axis=0) == 1).all()
    left = models - models % 4
    assert (np.abs(2 * erased[left:].sum(axis=0) - member[left:].sum(axis=0)) <= 1).all()
    # of each class four times as many examples as are to be forgotten, or as many as there are
    at = strata(design, labels)[1]
    for one in np.unique(labels["forget"]):
        wanted = 4 * (labels["forget"] == one).sum()
        assert (at == one).sum() <= wanted
    assert set(at) == set(labels["forget"])


def test_where_there_is_enough_everything_matches() -> None:
    labels = drawn(200, 1000, 2000)
    design = make_design(labels, 16, 0, scenario="sample", unlearning=True)
    assert design.erased is not None
    assert len(design.rows["unseen"]) == 600
    assert "retain" not in design.rows
    assert design.train_size == 1200
    forget = np.bincount(labels["forget"])
    trained = forget + np.bincount(labels["retain"])
    groups = strata(design, labels)[1]
    assert (sums(design.erased, groups) == forget).all()
    whole = sums(design.member, groups) + np.bincount(labels["retain"][design.core])
    assert (whole == trained).all()
    assert design.notes == (
        "Half of the 16 shadow models hold each of these examples: 200 of 200 forget and 600 of "
        "2000 unseen.",
        "Each is trained on 1200 examples, the subject's original on 1200.",
        "Each unlearns 200 of them once, the request is for 200; 100 % of the class make-up is "
        "the same.",
    )


def test_retain_examples_fill_up_as_far_as_training_sets_bear_it() -> None:
    labels = drawn(100, 2000, 100)
    design = make_design(labels, 8, 0, scenario="sample", unlearning=True)
    # those of the forget set's classes; each is missing in half of the models
    assert 160 <= len(design.rows["retain"]) <= 205
    assert 0.9 * 2100 <= design.train_size < 2100
    assert "too few unseen" in design.notes[1]
    none = make_design(labels, 8, 0, scenario="sample", unlearning=True, retain=0)
    assert "retain" not in none.rows
    tight = make_design(drawn(100, 300, 20), 8, 0, scenario="sample", unlearning=True)
    assert tight.train_size >= 0.9 * 400 - 1


def test_a_part_of_one_class_is_matched_by_that_class() -> None:
    rng = np.random.default_rng(1)
    train, unseen = np.repeat(np.arange(10), 100), np.repeat(np.arange(10), 40)
    forget = rng.permutation(np.flatnonzero(train == 4))[:30]
    labels = arrays(
        {
            "forget": train[forget].tolist(),
            "retain": np.delete(train, forget).tolist(),
            "unseen": unseen.tolist(),
        }
    )
    design = make_design(labels, 8, 0, scenario="partial-class", unlearning=True)
    assert design.erased is not None
    assert {name: len(rows) for name, rows in design.rows.items()} == {
        "forget": 30,
        "unseen": 40,
        "retain": 50,
    }
    assert set(strata(design, labels)[1]) == {4}
    assert (design.erased.sum(axis=1) == 30).all()
    # the other classes are as in the subject's training
    others = np.bincount(labels["retain"][design.core])
    assert (np.delete(others, 4) == 100).all()


def test_whole_classes_are_erased_as_a_whole() -> None:
    train, unseen = np.repeat(np.arange(5), 40), np.repeat(np.arange(5), 50)
    labels = arrays(
        {
            "forget": train[train == 2].tolist(),
            "retain": train[train != 2].tolist(),
            "unseen": unseen.tolist(),
        }
    )
    design = make_design(labels, 4, 0, scenario="class", unlearning=True)
    assert design.erased is not None
    assert set(design.rows) == {"forget", "unseen"}
    assert (labels["unseen"][design.rows["unseen"]] == 2).all()
    # half of the pool is all of the class that a model sees, and as much as the subject saw
    assert (design.erased.sum(axis=1) == 40).all()
    assert not (labels["retain"][design.core] == 2).any()
    assert design.train_size == 200


def test_the_seed_decides_and_more_models_change_nothing_of_the_first() -> None:
    labels = drawn(20, 100, 50)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    make: dict[int, Design] = {
        models: make_design(labels, models, 7, scenario="sample", unlearning=True)
        for models in (4, 8, 12)
    }
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]
    for fewer, more in ((4, 8), (8, 12)):
        one, other = make[fewer], make[more]
        assert one.erased is not None
        assert other.erased is not None
        assert (other.member[:fewer] == one.member).all()
        assert (other.erased[:fewer] == one.erased).all()
        assert (other.core == one.core).all()
    again = make_design(labels, 8, 7, scenario="sample", unlearning=True)
    assert again.digest == make[8].digest != make[4].digest
    assert make_design(labels, 8, 8, scenario="sample", unlearning=True).digest != again.digest


def test_too_little_is_refused() -> None:
    labels = drawn(10, 20, 5)
    with pytest.raises(UsageError, match="1 shadow model is too few; take at least 2"):
        make_design(labels, 1, 0, scenario="sample")
    with pytest.raises(UsageError, match="3 shadow models are too few; take at least 4"):
        make_design(labels, 3, 0, scenario="sample", unlearning=True)
    with pytest.raises(InputError, match="forget and retain"):
        make_design({**labels, "forget": labels["forget"][:0]}, 4, 0, scenario="sample")
    alone: Labels = {"forget": np.array([0]), "retain": np.array([1, 1])}
    with pytest.raises(InputError, match="leaves shadow models nothing to unlearn; add --unseen"):
        make_design(alone, 4, 0, scenario="sample", unlearning=True)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_packed_digest_tells_masks_apart(seed: int) -> None:
    labels = drawn(6, 30, 6, classes=2)
    one = make_design(labels, 4, seed, scenario="sample", unlearning=True)
    other = make_design(labels, 4, seed + 1000, scenario="sample", unlearning=True)
    assert (one.digest == other.digest) == (
        bool((one.member == other.member).all() and (one.core == other.core).all())
        and one.erased is not None
        and other.erased is not None
        and bool((one.erased == other.erased).all())
        and all((one.rows[name] == other.rows[name]).all() for name in one.rows)
    )


def test_arms_differ_in_nothing_but_the_example_itself() -> None:
    """Over many designs, what else a model holds or erases depends on the state of an example only
    through its own absence from the count: of the s − 1 others of its stratum."""
    labels = arrays({"forget": [0] * 16, "retain": [0] * 40, "unseen": [0] * 48})
    shares: dict[str, list[npt.NDArray[np.float64]]] = {"out": [], "kept": [], "erased": []}
    for seed in range(60):
        design = make_design(labels, 8, seed, scenario="sample", unlearning=True)
        assert design.erased is not None
        place = design.columns["unseen"]
        member, erased = design.member[:, place], design.erased[:, place]
        for arm, mask in (
            ("out", ~member),
            ("kept", member & ~erased),
            ("erased", erased),
        ):
            model, _ = mask.nonzero()
            held = member.sum(axis=1)[model] - (arm != "out")
            lost = erased.sum(axis=1)[model] - (arm == "erased")
            shares[arm].append(np.array([held.mean(), lost.mean()]))
    found = {arm: np.mean(each, axis=0) for arm, each in shares.items()}
    # 48 in the stratum: 24 in a model, 12 erased
    np.testing.assert_allclose(found["out"], [24, 12], atol=0.02)
    np.testing.assert_allclose(found["kept"], [23, 12], atol=0.02)
    np.testing.assert_allclose(found["erased"], [23, 11], atol=0.02)


def test_a_simulated_attack_finds_each_state() -> None:
    """Confidences with a known mean for each state, and an influence of the rest of the forget
    set: the three arms have these means, and a likelihood ratio the power that they allow."""
    labels = drawn(40, 400, 160)
    design = make_design(labels, 64, 3, scenario="sample", unlearning=True)
    member, erased = design.member, design.erased
    assert erased is not None
    rng = np.random.default_rng(4)
    hard = rng.normal(size=member.shape[1])
    truth = np.where(erased, 0.8, np.where(member, 2.0, 0.0)) + hard
    model = 0.3 * rng.normal(size=(design.models, 1))
    said = truth + model + rng.normal(size=member.shape)
    arms = {"out": ~member, "kept": member & ~erased, "erased": erased}
    means = {
        arm: np.array([said[own, k] for k, own in enumerate(mask.T)]) for arm, mask in arms.items()
    }
    assert [each.shape[1] for each in means.values()] == [32, 16, 16]
    # 160 examples × 16 models, and a part that all examples of a model share
    error = 4.5 * (1.09 / (160 * 16) + 0.09 / 16) ** 0.5
    for arm, mean in (("out", 0.0), ("kept", 2.0), ("erased", 0.8)):
        assert abs((means[arm].mean(axis=1) - hard).mean() - mean) < error
    # fresh subjects, half of the examples erased: the ratio of the arms ranks them as well as the
    # difference of their means allows, Φ(0.8/√(2 · 1.09)), a little less for 16 models
    inside, outside = means["erased"], means["out"]
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(20):
        gone = rng.random(len(hard)) < 0.5
        score = 0.8 * gone + hard + 0.3 * rng.normal() + rng.normal(size=len(hard))
        z = [-((score - arm.mean(axis=1)) ** 2) / (2 * 1.09) for arm in (inside, outside)]
        for state in (True, False):
            ratios[state] += (z[0] - z[1])[gone == state].tolist()
    above = (np.array(ratios[True])[:, None] > np.array(ratios[False])[None, :]).mean()
    assert 0.64 < above < 0.715
