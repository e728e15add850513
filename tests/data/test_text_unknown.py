"""Texts that a tokenizer does not know are said to be so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from tests.data.conftest import Opener
from tests.data.test_text import text_input
from tests.hugging_face import trained_tokenizer, words, write_texts
from unaudit.data import text_dataset
from unaudit.data.text_notes import MOST_UNKNOWN
from unaudit.data.tokenize import Tokenization
from unaudit.loading import TextInput
from unaudit.plan import PreprocessSection


def brought(made: tokenizers.Tokenizer) -> TextInput:
    vocabulary = made.get_vocab_size()
    return text_input(causal=True, tokenizer=made.to_str().encode(), vocabulary=vocabulary)


def unknown_of(made: tokenizers.Tokenizer) -> int | None:
    return Tokenization(PreprocessSection(), brought(made)).unknown


PIECES = {"a": 0, "b": 1, "?": 2}


def test_the_unknown_token_is_that_of_the_tokenizer() -> None:
    level = trained_tokenizer(words())
    assert unknown_of(level) == level.token_to_id("[UNK]") == 1
    for kind in (models.WordLevel, models.WordPiece):
        assert unknown_of(tokenizers.Tokenizer(kind(PIECES, unk_token="?"))) == 2
        assert unknown_of(tokenizers.Tokenizer(kind(PIECES, unk_token="absent"))) is None
    assert unknown_of(tokenizers.Tokenizer(models.BPE(PIECES, [], unk_token="?"))) == 2
    assert unknown_of(tokenizers.Tokenizer(models.BPE(PIECES, []))) is None
    scored = [("a", -1.0), ("b", -2.0)]
    assert unknown_of(tokenizers.Tokenizer(models.Unigram(scored, unk_id=1))) == 1
    assert unknown_of(tokenizers.Tokenizer(models.Unigram(scored))) is None


@pytest.mark.parametrize("at_a_time", [3, 1 << 20])
def test_a_large_share_is_noted(
    at_a_time: int, tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_dataset, "COUNTED", at_a_time)
    text = brought(trained_tokenizer(words(), framed=False))
    texts = ["w1 w2 w3 w4 w5", "w1 nobody knows w2 this"]
    path = write_texts(tmp_path / "train.jsonl", texts, "t")
    note = "30 % of the tokens of train.jsonl are unknown to the tokenizer; check preprocess."
    first = opened(path, text=text)
    assert first.notes == (f"{note}tokenizer",)
    monkeypatch.setattr(np, "count_nonzero", lambda _: pytest.fail("counted again"))
    again = opened(path, text=text)
    assert (again.notes, again.digest) == (first.notes, first.digest)


def test_a_small_share_is_not(tmp_path: Path, opened: Opener) -> None:
    text = brought(trained_tokenizer(words(), framed=False))
    assert MOST_UNKNOWN == 0.1
    tenth = ["w1 w2 w3 w4 w5", "w1 w2 w3 w4 nobody"]
    assert opened(write_texts(tmp_path / "a.jsonl", tenth, "t"), text=text).notes == ()
    more = [*tenth, "w1 w2 w3 w4 w5 w6 w7 nobody"]
    (note,) = opened(write_texts(tmp_path / "b.jsonl", more, "t"), text=text).notes
    assert note.startswith("11 % of the tokens of b.jsonl")


def test_what_was_cut_does_not_count(tmp_path: Path, opened: Opener) -> None:
    text = brought(trained_tokenizer(words(), framed=False))
    path = write_texts(tmp_path / "a.jsonl", ["w1 w2 nobody knows this"], "t")
    (note,) = opened(path, preprocess={"max_length": 2}, text=text).notes
    assert "were cut to 2 tokens" in note
    assert "60 % of the tokens" in opened(path, text=text).notes[0]
