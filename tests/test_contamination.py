"""A subject that was trained on what stands for never seen; references that saw the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from tests.worlds import measurement_of, probe_of
from unaudit.case import Case
from unaudit.contamination import KNOWN, SIGNIFICANT, Leaning, known_forget, known_unseen, leanings
from unaudit.evidence import FloatArray, IntArray, Scores
from unaudit.measuring import Measurement
from unaudit.stats import auc, p_below
from unaudit.views import BlackBox, Marks


def view(gap: float, canaries: int = 0, lacking: float = 0.0) -> BlackBox:
    """Mean loss 0.1 on retained examples, ``gap`` more on unseen ones, 20 more on canaries,
    ``lacking`` more on unseen ones of class 1."""
    losses = {"retain": np.full(9, 0.1), "unseen": np.full(9, 0.1 + gap)}
    losses["unseen"][:canaries] += 20.0
    losses["unseen"][6:] += lacking
    outputs = {
        name: SimpleNamespace(log_confidence=-own, labels=LABELS[name])
        for name, own in losses.items()
    }
    marks = Marks({"unseen": np.arange(9) < canaries} if canaries else {})
    return cast(BlackBox, SimpleNamespace(predictions=outputs.__getitem__, marks=marks))


LABELS = {"retain": np.zeros(9), "unseen": np.array([0] * 6 + [1] * 3)}


def doubts(
    subject: float, retrained: list[float], canaries: int = 0, lacking: float | None = None
) -> tuple[str, ...]:
    named = [SimpleNamespace(label=f"retrained {at}") for at in range(len(retrained))]
    case: Any = SimpleNamespace(
        splits={name: SimpleNamespace(labels=labels) for name, labels in LABELS.items()},
        subject=SimpleNamespace(label="subject"),
        retrained=tuple(named),
        scenario="sample" if lacking is None else "class",
        swapped=None,
        forget_classes=(1,),
    )
    views = {
        candidate.label: view(gap, canaries, lacking or 0.0)
        for candidate, gap in zip(named, retrained, strict=True)
    }
    return known_unseen(cast(Case, case), views | {"subject": view(subject, canaries)})


def test_a_closed_gap_is_doubted() -> None:
    (line,) = doubts(0.01, [0.30, 0.33, 0.28, 0.31, 0.30])
    assert "trained on them" in line


def test_held_out_canaries_do_not_keep_the_gap_open() -> None:
    retrained = [0.30, 0.33, 0.28, 0.31, 0.30]
    assert doubts(0.01, retrained, canaries=3) == doubts(0.01, retrained)


def test_a_class_that_retrained_models_lack_opens_no_gap() -> None:
    """The subject knows class 1, which they never saw: that is no knowledge of unseen examples."""
    retrained = [0.30, 0.33, 0.28, 0.31, 0.30]
    assert doubts(0.29, retrained, lacking=9.0) == ()
    assert doubts(0.01, retrained, lacking=9.0) == doubts(0.01, retrained)


@pytest.mark.parametrize(
    ("subject", "retrained"),
    [
        (0.25, [0.30, 0.33, 0.28, 0.31, 0.30]),  # less, by far not nothing
        (0.01, [0.30, 0.33]),  # two references: the spread is hardly known
        (0.0, [0.01, -0.02, 0.0, 0.01, -0.01]),  # nobody overfits
        (0.05, [0.30]),
    ],
)
def test_what_chance_can_do_is_not(subject: float, retrained: list[float]) -> None:
    assert doubts(subject, retrained) == ()


def test_p_below_is_the_prediction_interval_of_student() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 5))
    p = np.array([p_below(row[0], row[1:]) for row in draws])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert p_below(-1.0, [0.0, 0.0]) == 0.0
    assert p_below(0.0, [0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="fewer than two"):
        p_below(0.0, [1.0])


N, M = 200, 400
"""Forget and unseen examples."""


def a_case(
    retrained: int = 5,
    groups: tuple[IntArray, IntArray] | None = None,
    n: int = N,
    m: int = M,
    **changes: Any,
) -> Case:
    sizes = {"forget": n, "unseen": m}
    named = dict(zip(sizes, groups or (None, None), strict=True))
    settings = {"scenario": "sample", "mix_differs": False, "task": "classification"} | changes
    return cast(
        Case,
        SimpleNamespace(
            original=SimpleNamespace(label="original"),
            retrained=tuple(SimpleNamespace(label=f"retrained {i + 1}") for i in range(retrained)),
            splits={
                name: SimpleNamespace(
                    rows=np.arange(size), dataset=SimpleNamespace(groups=named[name])
                )
                for name, size in sizes.items()
            },
            **settings,
        ),
    )


def scores_of(
    rng: np.random.Generator,
    seen: Sequence[float],
    n: int = N,
    m: int = M,
    effect: float = 0.8,
    own: float = 0.4,
) -> list[Scores]:
    """Of models that saw the first ``seen`` share of the forget set, none of the unseen examples.

    Difficulty is the examples' own, skewed as losses are, and shared by all models.
    """
    forget, unseen = -rng.exponential(size=n), -rng.exponential(size=m)
    shares = (np.arange(n) < share * n for share in seen)
    return [
        Scores(
            forget=forget + effect * known + own * rng.normal(size=n),
            unseen=unseen + own * rng.normal(size=m),
            statistic="auc",
        )
        for known in shares
    ]


def measured(models: list[Scores], name: str = "loss", **card: Any) -> Measurement:
    """The original comes first; it is its own subject."""
    return measurement_of(models[0], models[0], models[1:], probe_of(name, **card))


def said(case: Case, *measurements: Measurement) -> tuple[str, ...]:
    return known_forget(case, {}, leanings(case, measurements))


def test_honest_references_are_rarely_doubted() -> None:
    """At most 1 in 1,000 for all together and as much for the worst of them, with three binomial
    standard errors."""
    rng = np.random.default_rng(1)
    case, worlds = a_case(n=60, m=120), 3000
    alarms = sum(
        len(said(case, measured(scores_of(rng, [1.0, *[0.0] * 5], 60, 120, own=0.1))))
        for _ in range(worlds)
    )
    expected = 2 * SIGNIFICANT * worlds
    assert alarms <= expected + 3 * np.sqrt(expected)
    assert SIGNIFICANT == 1e-3


def test_the_nominal_rate_is_reached_where_models_are_alike() -> None:
    """No alarm at all would be no test: at 5 % in place of 0.1 %, the area is off about as often.

    Models that say the same are one look, whose normal p-value is nearly exact.
    """
    rng = np.random.default_rng(2)
    p = [
        stats.norm.sf((auc(one.forget, one.unseen) - 0.5) / np.sqrt(181 / (12 * 60 * 120)))
        for _ in range(2000)
        for one in scores_of(rng, [0.0], 60, 120)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_references_that_saw_half_of_the_forget_set_are_doubted() -> None:
    rng = np.random.default_rng(3)
    worlds = [measured(scores_of(rng, [1.0, *[0.5] * 5])) for _ in range(100)]
    lines = [said(a_case(), world) for world in worlds]
    assert sum(map(len, lines)) >= 90
    first = next(line for found in lines for line in found)
    assert first.startswith("forget examples are more familiar to the retrained models than unseen")
    assert "(loss: AUC 0." in first


def test_one_bad_reference_among_five_is_named() -> None:
    rng = np.random.default_rng(4)
    worlds = [measured(scores_of(rng, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0])) for _ in range(50)]
    lines = [line for world in worlds for line in said(a_case(), world)]
    assert len(lines) >= 45
    assert sum("familiar to retrained 3 than" in line for line in lines) >= 45


def test_many_examples_make_no_doubt_of_what_does_no_harm() -> None:
    """A twentieth of the forget set, known for sure by its number alone."""
    rng = np.random.default_rng(5)
    size = 40_000
    case = a_case(n=size, m=size, retrained=1)
    few, many = (measured(scores_of(rng, [1.0, share], size, size)) for share in (0.05, 0.2))
    areas = [
        auc(m.retrained[0].answers[0].forget, m.retrained[0].answers[0].unseen) for m in (few, many)
    ]  # type: ignore[union-attr, arg-type]
    assert (areas[0] - 0.5) / np.sqrt(1 / (6 * size)) > 4.0
    assert said(case, few) == ()
    assert said(case, many) != ()
    assert KNOWN == 0.1


def test_more_attacks_make_no_more_alarms() -> None:
    """A lean that is just significant for one attack is not among eleven; what is plain stays."""
    rng = np.random.default_rng(6)
    one = next(
        found
        for found in (measured(scores_of(rng, [1.0, 0.28])) for _ in range(500))
        if 2e-4 < min((x.p for x in leanings(a_case(1), [found])), default=0.0) < SIGNIFICANT
    )
    blind = [measured(scores_of(rng, [1.0, 0.0]), f"blind {n}") for n in range(10)]
    assert said(a_case(1), one)
    assert not said(a_case(1), one, *blind)
    plain = measured(scores_of(rng, [1.0, 0.9]))
    assert said(a_case(1), plain, *blind)


@pytest.mark.parametrize(
    "changes", [{"mix_differs": True}, {"scenario": "class"}, {"retrained": 0}]
)
def test_nothing_is_said_where_both_sides_differ_by_themselves(changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    case = a_case(**changes)
    assert leanings(case, [measured(scores_of(rng, [1.0, *[1.0] * len(case.retrained)]))]) == ()


@pytest.mark.parametrize(
    "card",
    [{"family": "representation"}, {"asks": "canaries"}, {"comparative": True}],
)
def test_only_attacks_on_members_of_the_whole_request_are_asked(card: dict[str, Any]) -> None:
    rng = np.random.default_rng(8)
    assert leanings(a_case(1), [measured(scores_of(rng, [1.0, 1.0]), **card)]) == ()


def test_unseen_examples_that_are_easier_are_no_doubt_of_references() -> None:
    """But the two sides are not to be compared on a subject alone."""
    rng = np.random.default_rng(9)
    (found,) = {
        leaning.who
        for leaning in leanings(a_case(1), [measured(scores_of(rng, [1, 1], effect=-0.8))])
    } - {None}
    assert found == "retrained 1"
    assert said(a_case(1), measured(scores_of(rng, [1, 1], effect=-0.8))) == ()


def test_records_of_one_person_are_one() -> None:
    """Forty records of each of five persons that are easy for any model, against ten others."""
    rng = np.random.default_rng(10)
    persons = np.repeat(np.arange(5), 40).astype(str), np.repeat(np.arange(10), 40).astype(str)
    ease = rng.normal(size=15)
    ease[:5] += 1.0
    models = [
        Scores(
            forget=ease[:5].repeat(40) + 0.1 * rng.normal(size=N),
            unseen=ease[5:].repeat(40) + 0.1 * rng.normal(size=M),
            statistic="auc",
        )
        for _ in range(3)
    ]
    assert said(a_case(2), measured(models)) != ()
    assert said(a_case(2, groups=cast(Any, persons)), measured(models)) == ()


def test_scores_of_some_rows_are_grouped_by_their_persons() -> None:
    """Persons of whom all records are scored by an attack, others by none."""
    persons = np.repeat(np.arange(20), 10).astype(str), np.repeat(np.arange(20, 60), 10).astype(str)
    rows = np.arange(0, N, 2)
    forget: FloatArray = (rows // 10).astype(np.float64) + 1000.0
    unseen = np.linspace(0.0, 1.0, M)
    one = Scores(forget=forget, unseen=unseen, statistic="auc", rows={"forget": rows})
    (worst, *_) = leanings(a_case(1, groups=cast(Any, persons)), [measured([one, one])])
    assert worst.area == 1.0
    expected = stats.norm.sf(0.5 / np.sqrt(61 / (12 * 20 * 40)))
    assert worst.p == pytest.approx(expected)


def class_case(hits: Sequence[float], task: str = "classification") -> tuple[Case, dict[str, Any]]:
    """Classes 0 and 1, the second wholly to be forgotten; ``hits`` of the original and others."""
    case = a_case(len(hits) - 1, scenario="class", task=task)
    labels = {"forget": np.ones(100), "retain": np.zeros(50)}
    for name, own in labels.items():
        case.splits[name] = SimpleNamespace(labels=own)  # type: ignore[index]
    names = ("original", *(candidate.label for candidate in case.retrained))
    views = {
        name: SimpleNamespace(
            predictions=lambda _, hit=hit: SimpleNamespace(
                hit_rate=(np.arange(100) < 100 * hit).astype(float)
            )
        )
        for name, hit in zip(names, hits, strict=True)
    }
    return case, views


@pytest.mark.parametrize(
    ("hits", "named"),
    [
        ((1.0, 0.0, 0.0), None),
        ((0.9, 0.1, 0.4), None),
        ((0.9, 0.0, 0.6), "known to retrained 2, right on up to 60.0% of their examples (90.0%"),
        ((0.9, 0.8, 0.0, 0.6), "known to retrained 1 and retrained 3, right on up to 80.0%"),
        ((0.9, 0.8, 0.6), "known to the retrained models, right on up to 80.0%"),
    ],
)
def test_a_forgotten_class_must_not_be_predicted(hits: Sequence[float], named: str | None) -> None:
    case, views = class_case(hits)
    lines = known_forget(case, views, ())
    assert len(lines) == (named is not None)
    assert not named or named in lines[0]


def test_tokens_of_a_topic_can_be_predicted_without_it() -> None:
    case, views = class_case((0.9, 0.8), task="language-modeling")
    assert known_forget(case, views, ()) == ()


def test_a_leaning_without_an_original_says_no_area_of_one() -> None:
    line = said_of(Leaning(None, "Loss", 0.61, None, 1e-6))
    assert "(Loss: AUC 0.61), as" in line


def said_of(leaning: Leaning) -> str:
    (line,) = known_forget(a_case(), {}, (leaning,))
    return line
