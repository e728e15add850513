"""Weights to start from must be of the same words, not just of as many."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tests.hugging_face import (
    causal_config,
    causal_folder,
    causal_network,
    save,
    trained_tokenizer,
    words,
    write_texts,
)
from tests.shadows.planned import workshop_of
from unaudit.errors import UsageError
from unaudit.plan import AuditPlan
from unaudit.training.base import MOST_RENAMED, Base
from unaudit.workshop import Workshop

VOCABULARY = len(words()) + 4


def workshop(folder: Path, base: Path, **preprocess: Any) -> Workshop:
    """Of a language model whose recipe starts from ``base``."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words(), 6)) for _ in range(20)]
    write_texts(folder / "train.jsonl", texts, "t")
    (folder / "forget.txt").write_text("t-0\nt-1\n")
    sections = {
        "model": {"path": str(causal_folder(folder / "subject", 1))},
        "data": {"train": str(folder / "train.jsonl")},
        "preprocess": preprocess,
        "request": {"forget": str(folder / "forget.txt")},
        "recipe": {"base": str(base), "epochs": 1},
        "run": {"store": str(folder / "store")},
    }
    return workshop_of(AuditPlan.build(sections))


def folder_of(path: Path, tokenizer: tokenizers.Tokenizer) -> Path:
    return save(path, causal_network(causal_config(VOCABULARY), 2), tokenizer)


def renamed(changes: dict[str, str]) -> tokenizers.Tokenizer:
    """The tokenizer of the subject with other tokens in the place of some."""
    made = trained_tokenizer(words(), framed=False)
    vocabulary = {changes.get(token, token): number for token, number in made.get_vocab().items()}
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    other.normalizer, other.pre_tokenizer = made.normalizer, made.pre_tokenizer
    return other


def found(made: Workshop) -> Base:
    assert made.base is not None
    return made.base


def test_the_same_tokenizer_is_no_news(tmp_path: Path) -> None:
    base = causal_folder(tmp_path / "base", 2)
    (note,) = found(workshop(tmp_path, base)).notes
    assert note.startswith("trained from the weights of base")


def test_other_settings_with_the_same_words_are_none_either(tmp_path: Path) -> None:
    other = trained_tokenizer(words(), framed=False)
    other.enable_truncation(7)
    assert len(found(workshop(tmp_path, folder_of(tmp_path / "base", other))).notes) == 1


def test_another_vocabulary_of_as_many_words_is_refused(tmp_path: Path) -> None:
    strange = trained_tokenizer([f"v{number}" for number in range(40)], framed=False)
    assert strange.get_vocab_size() == VOCABULARY
    base = folder_of(tmp_path / "base", strange)
    message = (
        r"^recipe\.base: 40 of 44 tokens of subject/tokenizer\.json are others in "
        r"base/tokenizer\.json \(first: 'w\d+' of id 4\), so that the weights are of other words; "
        "name weights that were trained with the same tokenizer$"
    )
    with pytest.raises(UsageError, match=message):
        _ = workshop(tmp_path, base).base
    # a file of weights has no tokenizer to hold against
    assert found(workshop(tmp_path, base / "model.safetensors")).digest


def test_words_in_another_order_are_another_vocabulary(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", renamed({"w1": "w2", "w2": "w1"}))
    with pytest.raises(UsageError, match=r"^recipe\.base: 2 of 44 tokens"):
        _ = workshop(tmp_path, base).base


def test_a_few_words_that_were_put_to_use_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_RENAMED == 0.01
    monkeypatch.setattr("unaudit.training.base.MOST_RENAMED", 0.03)
    base = folder_of(tmp_path / "base", renamed({"w7": "reserved"}))
    notes = found(workshop(tmp_path, base)).notes
    assert notes[1:] == (
        "1 of 44 tokens of subject/tokenizer.json are others in base/tokenizer.json",
    )


def test_a_tokenizer_that_is_named_is_what_counts(tmp_path: Path) -> None:
    strange = trained_tokenizer([f"v{number}" for number in range(40)], framed=False)
    base = folder_of(tmp_path / "base", strange)
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(base / "tokenizer.json", own / "tokenizer.json")
    assert found(workshop(tmp_path, base, tokenizer=str(own))).digest
    trained_tokenizer(words(), framed=False).save(str(own / "tokenizer.json"))
    for named in (own, own / "tokenizer.json"):
        with pytest.raises(
            UsageError, match=r"tokens of (own/)?tokenizer\.json are others in base/"
        ):
            _ = workshop(tmp_path, base, tokenizer=str(named)).base
