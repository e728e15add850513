"""Texts for language models: whole, with or without labels, and read for what predicts them."""

from __future__ import annotations

import zlib
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
from tests.hugging_face import causal_folder, trained_tokenizer, words, write_texts
from unaudit.case_data import common_text, open_data
from unaudit.data import Dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.loading import LoadedModel, Model, TextInput, load_model
from unaudit.plan import AuditPlan
from unaudit.tokens import PADDING

LONG = " ".join(words()[:30])


def causal_input(**changes: Any) -> TextInput:
    """What a language model would bring; its tokenizer adds nothing to a text."""
    made = trained_tokenizer(words(), framed=False).to_str().encode()
    return text_input(**({"causal": True, "tokenizer": made} | changes))


def texts_only(texts: Any, ids: Any = None) -> list[dict[str, Any]]:
    rows = rows_of(texts, [0] * len(texts), ids)
    return [{key: value for key, value in row.items() if key != "label"} for row in rows]


def as_texts(dataset: Dataset) -> TextDataset:
    assert isinstance(dataset, TextDataset)
    return dataset


SOME = (*TEXTS[:1], TEXTS[2], "w1 unheard w2 w3", TEXTS[4])
"""Of two tokens or more each, nearly all known."""


@pytest.mark.parametrize("ids", [None, "abcd"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_labels_may_be_missing(
    suffix: str, ids: str | None, tmp_path: Path, opened: Opener
) -> None:
    rows = texts_only(SOME, ids)
    for row in rows:
        row["author"] = row["text"][:2]
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", rows)
    dataset = as_texts(opened(path, {"group_column": "author"}, text=causal_input()))
    assert dataset.labels.tolist() == [0, 0, 0, 0]
    assert dataset.labels.dtype == np.int64
    assert dataset.classes is None
    assert not dataset.labeled
    assert dataset.notes == ()
    assert dataset.groups is not None
    assert dataset.groups.tolist() == ["w1", "w5", "w1", "w1"]
    assert dataset.default_id_type == ("index" if ids is None else "key")
    assert dataset.lengths.tolist() == [3, 6, 4, 2]
    with pytest.raises(UsageError, match="no column or array called label or labels or y"):
        opened(path, text=text_input())


@pytest.mark.parametrize("suffix", WRITERS)
def test_labels_that_are_there_count(suffix: str, tmp_path: Path, opened: Opener) -> None:
    topics = ["sea", "land", "sea", "air"]
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", rows_of(SOME, topics))
    dataset = as_texts(opened(path, text=causal_input()))
    assert dataset.labels.tolist() == [2, 1, 2, 0]
    assert dataset.classes == ("air", "land", "sea")
    assert dataset.labeled
    assert dataset.notes == ()  # no output stands for a class
    without = WRITERS[suffix](tmp_path / f"e.{suffix}", texts_only(SOME))
    plain = opened(without, text=causal_input())
    assert np.array_equal(all_rows(plain), all_rows(dataset))
    assert np.array_equal(plain.fingerprints(), dataset.fingerprints())
    with pytest.raises(UsageError, match=r"no column or array 'lable' .data.label_column."):
        opened(path, {"label_column": "lable"}, text=causal_input())


def test_texts_stay_whole_unless_a_length_is_stated(tmp_path: Path, opened: Opener) -> None:
    texts = [LONG, "w1 w2", " ".join([LONG] * 30)]
    path = write_texts(tmp_path / "d.jsonl", texts, "t")
    whole = as_texts(opened(path, text=causal_input()))
    assert whole.lengths.tolist() == [30, 2, 900]
    assert whole.notes == (
        "2 of 3 texts of d.jsonl are longer than the 24 tokens that the model takes, and were "
        "read in overlapping windows; probes that look inside see the first window",
    )
    unbound = opened(path, text=causal_input(context=None))
    assert unbound.notes == ()
    assert as_texts(unbound).lengths.tolist() == [30, 2, 900]
    cut = as_texts(opened(path, preprocess={"max_length": 28}, text=causal_input()))
    assert cut.lengths.tolist() == [28, 2, 28]  # more than the context is no mistake here
    assert cut.notes == (
        "2 of 3 texts of d.jsonl were cut to 28 tokens (preprocess.max_length)",
        "2 of 3 texts of d.jsonl are longer than the 24 tokens that the model takes, and were "
        "read in overlapping windows; probes that look inside see the first window",
    )
    start = opened(path, preprocess={"max_length": 5, "truncation": "start"}, text=causal_input())
    assert np.array_equal(all_rows(start)[0], all_rows(whole)[0][25:30])
    refuse = {"max_length": 29, "truncation": "refuse"}
    with pytest.raises(InputError, match=r"example 't-0' has 30 tokens, more than .*\(29\)"):
        opened(path, preprocess=refuse, text=causal_input())
    assert as_texts(opened(path, preprocess={"truncation": "refuse"}, text=causal_input()))


def test_everything_that_decides_a_token_is_in_the_digest(tmp_path: Path, opened: Opener) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(SOME, LABELS[:4]))
    folder = tokenizer_folder(tmp_path / "own")
    cases: list[tuple[dict[str, Any], TextInput]] = [
        ({}, causal_input()),
        ({}, text_input(tokenizer=causal_input().tokenizer)),
        ({"max_length": 24}, causal_input()),
        ({"max_length": 5}, causal_input()),
        ({"max_length": 5, "truncation": "start"}, causal_input()),
        ({"tokenizer": str(folder)}, causal_input()),
    ]
    digests = [opened(path, preprocess=how, text=text).digest for how, text in cases]
    assert len(set(digests)) == len(digests)
    # neither decides a token where nothing is cut
    for how, text in (({"truncation": "start"}, causal_input()), ({}, causal_input(context=7))):
        assert opened(path, preprocess=how, text=text).digest == digests[0]


@pytest.mark.parametrize(
    ("row", "settings", "says"),
    [
        ({"text": "w1"}, {}, "example 'q' has one token, before which nothing is"),
        ({"text": " "}, {}, "example 'q' has no tokens"),
        ({"text": None}, {}, "example 'q' has no text"),
        ({"text": "w1 w2"}, {"max_length": 1}, "max_length of 1 leaves nothing to predict"),
        ({"text": "w1 w2"}, {"resize": (3, 3)}, "preprocess.resize is not for texts"),
        ({"other": 1}, {}, "example 1 has no 'text'"),
        ({"text": "w1 w2", "y": 1}, {}, "example 1 has 'y', but the first has none; give it in"),
    ],
)
def test_bad_texts_and_settings(
    row: dict[str, Any], settings: dict[str, Any], says: str, tmp_path: Path, opened: Opener
) -> None:
    rows = [{"id": "p", "text": "w1 w2"}, {"id": "q", **row}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.raises(UnauditError) as caught:
        opened(path, preprocess=settings, text=causal_input())
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert is_one_line(str(caught.value))


def test_a_token_too_few_is_seen_behind_tokens_of_a_classifier(
    tmp_path: Path, opened: Opener
) -> None:
    """What one kind of model accepts must not be taken from the store for the other."""
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(["w1 w2", "w1"], [0, 1], "pq"))
    opened(path, text=causal_input(causal=False))
    with pytest.raises(InputError, match="example 'q' has one token"):
        opened(path, text=causal_input())


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_language_model_needs_texts(suffix: str, tmp_path: Path, opened: Opener) -> None:
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", [{"x": 1.0, "body": "w1 w2"}] * 3)
    with pytest.raises(UsageError, match=r"no column of texts is called text \(found: 'x', 'body'"):
        opened(path, text=causal_input())
    with pytest.raises(UsageError, match=r"with data\.text_column, not input_column"):
        opened(path, {"input_column": "x"}, text=causal_input())
    assert len(opened(path, {"text_column": "body"}, text=causal_input())) == 3


@pytest.mark.parametrize("suffix", WRITERS)
def test_compressed_sizes(
    suffix: str, tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = (*SOME, "w1 w2 é漢字 " * 50, "w1 w2 " * 5000)
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", texts_only(texts))
    found = as_texts(opened(path, text=causal_input())).compressed_sizes()
    assert found.dtype == np.int64
    assert found.tolist() == [len(zlib.compress(text.encode())) for text in texts]
    assert found[-1] < 200 < len(texts[-1])

    def refuse(*_: object) -> None:
        raise AssertionError("compressed again")

    monkeypatch.setattr(zlib, "compress", refuse)
    again = as_texts(opened(path, {"id_column": None}, text=causal_input(context=9)))
    assert np.array_equal(again.compressed_sizes(), found)
    write_texts(path, ["w1 w2"] * 6, "x")
    with pytest.raises(InputError, match="changed while it was being read"):
        again.compressed_sizes()


def test_narrow_batches_are_as_wide_as_their_longest_text(tmp_path: Path, opened: Opener) -> None:
    texts = ["w1 w2 w3", "w4 w5", " ".join([LONG] * 1000), "w6 w7 w8 w9"]
    dataset = as_texts(opened(write_texts(tmp_path / "d.jsonl", texts, "t"), text=causal_input()))
    rows = np.array([1, 0, 3, 2, 2, 1], dtype=np.int64)
    whole = list(dataset.batches(rows, 2))
    narrow = list(dataset.narrow_batches(rows, 2))
    assert [tuple(batch.shape) for batch in narrow] == [(2, 3), (2, 30000), (2, 30000)]
    assert [tuple(batch.shape) for batch in whole] == [(2, 30000)] * 3
    for all_of_it, cropped in zip(whole, narrow, strict=True):
        assert (all_of_it[:, : cropped.shape[1]] == cropped).all()
        assert (all_of_it[:, cropped.shape[1] :] == PADDING).all()
    assert list(dataset.narrow_batches(rows[:0], 2)) == []
    with pytest.raises(IndexError):
        next(dataset.narrow_batches(np.array([4]), 1))


# As the parts of a case


def plan_of(train: Path, unseen: Path) -> AuditPlan:
    return AuditPlan.model_validate({"data": {"train": str(train), "unseen": str(unseen)}})


def model_in(path: Path) -> LoadedModel:
    model = load_model(str(path), arch=None)
    assert isinstance(model, LoadedModel)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return model_in(causal_folder(tmp_path_factory.mktemp("causal") / "model"))


def test_data_of_a_case(model: LoadedModel, tmp_path: Path, store: Store) -> None:
    plain = write_texts(tmp_path / "plain.jsonl", SOME, "a")
    long = write_texts(tmp_path / "long.jsonl", [LONG] * 3, "b")
    train, others = open_data(plan_of(plain, long), model, store, model.text)
    assert train.input_shape == others["unseen"].input_shape == (30,)
    labeled = write_jsonl(tmp_path / "labeled.jsonl", rows_of(SOME, [1, 0, 1, 0]))
    for one, other in ((plain, labeled), (labeled, plain)):
        with pytest.raises(InputError, match=r"plain.jsonl: has no labels, but labeled.jsonl has"):
            open_data(plan_of(one, other), model, store, model.text)
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), dtype=np.float32), y=np.array([0, 1]))
    with pytest.raises(UsageError, match=r"d.npz: a language model reads texts; give jsonl"):
        open_data(plan_of(tmp_path / "d.npz", plain), model, store, model.text)


def test_models_of_a_case_are_of_one_kind(model: LoadedModel, tmp_path: Path) -> None:
    from tests.hugging_face import config_of, network_of, save

    tokenizer = trained_tokenizer(words(), framed=False)
    other = network_of("gpt2", config_of("gpt2", tokenizer.get_vocab_size(), 3))
    classifier = model_in(save(tmp_path / "other", other, tokenizer))
    wide = model_in(causal_folder(tmp_path / "wide", 1, n_positions=64))
    plan = AuditPlan.model_validate({})
    found = common_text({"subject": wide, "original": model}, plan)
    assert found is not None
    assert (found.causal, found.context) == (True, 32)
    alone = common_text({"subject": classifier}, plan)
    assert alone is not None
    assert not alone.causal
    mixed: dict[str, Model]
    for mixed in (
        {"subject": model, "original": classifier},
        {"original": classifier, "subject": model},
    ):
        with pytest.raises(UsageError, match="subject is a language model and original is none"):
            common_text(mixed, plan)
