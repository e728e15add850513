"""Texts, tokenizers and settings that cannot be used: one line that names example or key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.conftest import Opener, is_one_line
from tests.data.test_text import (
    LABELS,
    TEXTS,
    WRITERS,
    all_rows,
    rows_of,
    text_input,
    tokenizer_folder,
    write_jsonl,
)
from unaudit.errors import InputError, UnauditError, UsageError


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "d.jsonl", rows_of(TEXTS, LABELS, "abcde"))


@pytest.mark.parametrize(
    ("row", "settings", "says"),
    [
        ({"text": None, "label": 0}, {}, "example 1 has no text; fill it or remove"),
        ({"text": 7, "label": 0}, {}, "example 1 has something else than a text"),
        ({"label": 0}, {}, "example 1 has no 'text'; give it in each line"),
        ({"text": "w1"}, {}, "example 1 has no 'label'"),
        ({"text": "w1", "label": None}, {}, "label of example 1 is missing"),
        ({"text": "\ud800", "label": 0}, {}, "example 1 cannot be tokenized"),
        ({"text": "w1", "label": 0}, {"resize": (3, 3)}, "preprocess.resize is not for texts"),
        ({"text": "w1", "label": 0}, {"mean": (0.0,), "std": (1.0,)}, "preprocess.mean is not for"),
        ({"text": "w1", "label": 0}, {"max_length": 25}, "exceeds the 24 tokens that the model"),
        ({"text": "w1", "label": 0}, {"max_length": 2}, "no room beside the 2 special tokens"),
        ({"text": "w1", "label": 0}, {"tokenizer": "nowhere"}, "no tokenizer.json there"),
    ],
)
def test_bad_texts_and_settings(
    row: dict[str, Any], settings: dict[str, Any], says: str, tmp_path: Path, opened: Opener
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [*rows_of(["w1"], [0]), row])
    with pytest.raises(UnauditError) as caught:
        opened(path, preprocess=settings, text=text_input())
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(path))
    assert is_one_line(message)


def test_texts_that_become_nothing(tmp_path: Path, opened: Opener) -> None:
    folder = tokenizer_folder(tmp_path / "own", framed=False)
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(["w1", " "], [0, 1], ["p", "q"]))
    with pytest.raises(InputError, match="example 'q' has no tokens; fill the text"):
        opened(path, preprocess={"tokenizer": str(folder)})


def test_tokens_that_the_model_does_not_know(stored: Path, opened: Opener) -> None:
    with pytest.raises(InputError, match=r"example 'a' holds the token 'w\d+' of id .* knows 5"):
        opened(stored, text=text_input(vocabulary=5))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"version": "9.0"}'])
def test_tokenizers_that_are_none(content: bytes, stored: Path, opened: Opener) -> None:
    with pytest.raises(InputError) as caught:
        opened(stored, text=text_input(tokenizer=content))
    assert "tokenizer.json" in str(caught.value)
    assert is_one_line(str(caught.value))


def test_two_columns_contradict_each_other(stored: Path, opened: Opener) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        opened(stored, {"text_column": "text", "input_column": "x"}, text=text_input())
    with pytest.raises(UsageError, match=r"no column or array 'texts'.*did you mean 'text'"):
        opened(stored, {"text_column": "texts"}, text=text_input())
    numbers = write_jsonl(stored.with_name("n.jsonl"), [{"a": 1, "y": 0}])
    with pytest.raises(InputError, match="column 'a' holds no texts"):
        opened(numbers, {"text_column": "a"}, text=text_input())


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("column", ["sentence", "label"])
def test_a_model_of_texts_is_told_which_column_it_needs(
    suffix: str, column: str, tmp_path: Path, opened: Opener
) -> None:
    """Not that texts are no numbers."""
    rows = [{"id": i, "label": 0, column: value} for i, value in (("a", 0), ("b", 1))]
    if column == "sentence":
        rows = [{**row, column: "w1 w2"} for row in rows]
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", rows)
    message = (
        r"the model reads texts, and no column of texts is called text \(found: .*\); set data"
    )
    with pytest.raises(UsageError, match=message):
        opened(path, text=text_input())
    with pytest.raises(UsageError, match=message.replace("the model", "a language model")):
        opened(path, text=text_input(causal=True))


def test_labels_that_are_named_and_not_there(tmp_path: Path, opened: Opener) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "w1 w2", "y": 0, "label": 1}])
    with pytest.raises(UsageError, match=r"no column .* 'lable'.*did you mean 'label'\?\)$"):
        opened(path, {"label_column": "lable"}, text=text_input())
    with pytest.raises(UsageError, match=r"or take it out: texts for a language model need no lab"):
        opened(path, {"label_column": "lable"}, text=text_input(causal=True))
    with pytest.raises(UsageError, match=r"both 'label' and 'y' exist; set data.label_column$"):
        opened(path, text=text_input(causal=True))


def test_a_file_that_changes_meanwhile_is_refused(stored: Path, opened: Opener) -> None:
    dataset = opened(stored, text=text_input())
    write_jsonl(stored, rows_of(("w1 w2", *TEXTS[1:]), LABELS, "abcde"))
    assert len(all_rows(dataset)) == 5  # tokens are kept
    with pytest.raises(InputError, match="changed while it was being read"):
        dataset.fingerprints()


@pytest.mark.parametrize(
    "settings", [{"max_length": 8}, {"truncation": "start"}, {"tokenizer": "t"}]
)
def test_settings_of_texts_are_not_for_arrays(
    settings: dict[str, Any], tmp_path: Path, opened: Opener
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), dtype=np.float32), y=np.array([0, 1]))
    with pytest.raises(UsageError, match=f"preprocess.{next(iter(settings))} is for texts"):
        opened(tmp_path / "d.npz", preprocess=settings)
