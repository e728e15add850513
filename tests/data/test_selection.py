"""Forget sets that are named by what their examples have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import Opener
from tests.data.test_text import LABELS, text_input, write_jsonl
from tests.data.test_text import rows_of as table
from unaudit.data import Dataset
from unaudit.data.selection import has_word, selected_rows, selects
from unaudit.errors import InputError, UsageError

TEXTS = ("a Comedy of w1", "w2 tragicomedy", "w3 comedy, of sorts", "w4", "comedy-drama w5")


@pytest.fixture
def texts(tmp_path: Path, opened: Opener) -> Dataset:
    path = write_jsonl(tmp_path / "train.jsonl", table(TEXTS, LABELS))
    return opened(path, text=text_input())


@pytest.fixture
def named(tmp_path: Path, opened: Opener) -> Dataset:
    labels = ("cat", "dog", "7", "dog", "cat")
    path = write_jsonl(tmp_path / "named.jsonl", table(TEXTS, labels))
    return opened(path, text=text_input())


def test_a_word_is_found_whole_and_in_any_case(texts: Dataset) -> None:
    assert selected_rows("keyword:comedy", texts).tolist() == [0, 2, 4]
    assert selected_rows("keyword: COMEDY OF ", texts).tolist() == [0]


def test_words_apart_by_any_blank_and_in_any_form() -> None:
    assert has_word("New York")("to new\n york, again")
    assert has_word("caf\u00e9")("a cafe\u0301.")
    assert not has_word("New York")("NewYork")


@given(st.text("ab é-", min_size=1, max_size=3).filter(str.strip), st.text("ab é-.", max_size=12))
def test_words_against_a_plain_search(word: str, text: str) -> None:
    word, low = word.strip(), text.lower()
    wanted = word.lower()
    places = [at for at in range(len(low)) if low.startswith(wanted, at)]
    whole = [
        at
        for at in places
        if not (at and low[at - 1].isalnum()) and not low[at + len(wanted) :][:1].isalnum()
    ]
    assert has_word(word)(text) is bool(whole)


def test_a_class_by_number_or_name(texts: Dataset, named: Dataset) -> None:
    assert selected_rows("class:1", texts).tolist() == [1, 4]
    assert selected_rows("class:dog", named).tolist() == [1, 3]
    assert selected_rows("class:7", named).tolist() == [2]


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("keyword:w99", InputError, "--forget keyword:w99: no example of .* check the keyword"),
        ("class:5", InputError, "--forget class:5: no example of .* check the class"),
        ("class:dig", InputError, "--forget: .* has no class 'dig' .known: 0, 1, 2.; give"),
        ("keyword:", UsageError, "names nothing; write keyword:comedy"),
    ],
)
def test_what_selects_nothing(
    texts: Dataset, spec: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        selected_rows(spec, texts)


def test_near_misses_of_names(named: Dataset) -> None:
    with pytest.raises(InputError, match=r"has no class 'dogg' .did you mean 'dog'"):
        selected_rows("class:dogg", named)


def test_images_have_no_words(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32), y=np.arange(2))
    with pytest.raises(UsageError, match="keyword: is for texts"):
        selected_rows("keyword:w1", opened(tmp_path / "x.npz"))


def test_a_file_of_that_name_is_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert selects("class:4")
    assert not selects("ids.txt")
    assert not selects("classes:4")
    (tmp_path / "class:4").write_text("1\n")
    assert not selects("class:4")


def test_texts_without_labels_have_no_classes(tmp_path: Path, opened: Opener) -> None:
    rows = "".join(f'{{"text": "{text}"}}\n' for text in TEXTS)
    (tmp_path / "bare.jsonl").write_text(rows, encoding="utf-8")
    bare = opened(tmp_path / "bare.jsonl", text=text_input(causal=True))
    with pytest.raises(UsageError, match="have no labels; use keyword:WORD"):
        selected_rows("class:0", bare)
