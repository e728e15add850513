"""Telling forget from unseen texts by their words alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

from unaudit.blind import LEAST, Blind, tell_apart
from unaudit.data.text_dataset import TextDataset
from unaudit.evidence import IntArray, SplitName
from unaudit.splits import Split
from unaudit.tokens import PADDING

VOCABULARY = 300


class Written(TextDataset):
    """Texts that were never in a file."""

    def __init__(self, texts: Sequence[IntArray]) -> None:
        self._given = texts
        self.lengths = np.array([len(text) for text in texts], np.int64)
        self.labels = np.zeros(len(texts), np.int64)

    def _padded(self, rows: IntArray, width: int) -> IntArray:
        found = np.full((len(rows), width), PADDING, np.int64)
        for place, row in enumerate(rows):
            found[place, : self.lengths[row]] = self._given[row]
        return found

    def _check_rows(self, rows: IntArray) -> None:
        pass


def side(name: SplitName, texts: Sequence[IntArray], labels: IntArray | None = None) -> Split:
    data = Written(texts)
    if labels is not None:
        data.labels = labels
    return Split(name, data, np.arange(len(texts), dtype=np.int64))


def words(
    count: int, rng: np.random.Generator, favored: float = 0.0, longest: int = 25
) -> list[IntArray]:
    """Texts of words as frequent as in Zipf's law, some of them ``favored``."""
    p = 1.0 / np.arange(1, VOCABULARY + 1)
    p[10:40] *= 1.0 + favored
    p /= p.sum()
    return [rng.choice(VOCABULARY, rng.integers(3, longest), p=p) for _ in range(count)]


def told(forget: Sequence[IntArray], unseen: Sequence[IntArray]) -> Blind:
    found = tell_apart(side("forget", forget), side("unseen", unseen))
    assert found is not None
    return found


@pytest.mark.parametrize(("forget", "unseen"), [(LEAST, LEAST), (60, 150)])
def test_texts_of_one_kind_are_told_apart_as_often_as_chance_has_it(
    forget: int, unseen: int
) -> None:
    rng = np.random.default_rng(0)
    found = [told(words(forget, rng), words(unseen, rng)) for _ in range(150)]
    for level in (0.01, 0.05, 0.2):
        hits = sum(one.p < level for one in found)
        assert binomtest(hits, len(found), level, alternative="greater").pvalue > 0.01
    assert abs(np.mean([one.area for one in found]) - 0.5) < 0.02
    assert not any(one.differ for one in found)


def test_other_words_or_lengths_tell_texts_apart() -> None:
    rng = np.random.default_rng(1)
    usual = words(200, rng)
    assert not told(usual, words(400, rng)).differ
    by_words = told(usual, words(400, rng, favored=2.0))
    by_length = told(usual, words(400, rng, longest=12))
    for found in (by_words, by_length):
        assert found.differ
        assert 0.6 < found.area < 1.0
        assert f"AUC {found.area:.2f}" in found.note


def test_only_unseen_texts_of_the_forget_classes_are_compared() -> None:
    rng = np.random.default_rng(2)
    unseen = [*words(200, rng), *words(200, rng, favored=20.0)]
    forget = side("forget", words(200, rng))
    labels = np.repeat([0, 1], 200)
    own = tell_apart(forget, side("unseen", unseen, labels))
    assert own is not None
    assert not own.differ
    assert told(words(200, rng), unseen).differ


def test_who_wrote_a_text_does_not_tell_sides_apart() -> None:
    # everybody has three words of their own, and nobody is on both sides
    rng = np.random.default_rng(5)

    def people(first: int) -> tuple[list[IntArray], npt.NDArray[np.str_]]:
        texts = []
        for person in range(first, first + 40):
            own = VOCABULARY + 3 * person + np.arange(3)
            texts += [np.concatenate([text, own]) for text in words(10, rng)]
        return texts, np.repeat(np.arange(first, first + 40), 10).astype(str)

    sides = []
    for name, first in (("forget", 0), ("unseen", 40)):
        texts, groups = people(first)
        made = side(cast(SplitName, name), texts)
        made.dataset.groups = groups
        sides.append(made)
    found = tell_apart(*sides)
    assert found is not None
    assert not found.differ
    assert abs(found.area - 0.5) < 0.1
    for one in sides:
        one.dataset.groups = None
    blindly = tell_apart(*sides)
    assert blindly is not None
    assert blindly.differ  # if nobody says whose they are


def test_copies_of_one_text_are_one() -> None:
    rng = np.random.default_rng(6)
    forget, unseen = words(60, rng) * 5, words(60, rng) * 5
    assert not told(forget, unseen).differ


def test_few_persons_tell_nothing() -> None:
    rng = np.random.default_rng(7)
    forget, unseen = side("forget", words(100, rng)), side("unseen", words(100, rng))
    forget.dataset.groups = np.repeat(np.arange(5), 20).astype(str)
    unseen.dataset.groups = np.arange(100).astype(str)
    assert tell_apart(forget, unseen) is None


def test_the_result_repeats_and_no_global_generator_is_used() -> None:
    rng = np.random.default_rng(3)
    forget, unseen = words(50, rng), words(50, rng)
    before = np.random.get_state()[1].copy()
    assert told(forget, unseen) == told(forget, unseen)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_too_few_texts_tell_nothing() -> None:
    rng = np.random.default_rng(4)
    few, many = words(LEAST - 1, rng), words(100, rng)
    assert tell_apart(side("forget", few), side("unseen", many)) is None
    assert tell_apart(side("forget", many), side("unseen", few)) is None
