"""Data sets of texts: the same tokens whatever they are stored in, and declared in every detail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.conftest import Opener
from tests.hugging_face import SPECIAL, trained_tokenizer, transformers, words
from unaudit.data import Dataset, locate
from unaudit.data.text_dataset import TextDataset, pad_alike
from unaudit.data.tokenize import Tokenization, tokenizer_digest
from unaudit.errors import InputError
from unaudit.loading import TextInput
from unaudit.tokens import PADDING

TEXTS = ("w1 w2 w3", "W4", "w5 w6 w7 w8 w9 w10", "w1 unheard, w2", "w11 w12")
LABELS = (0, 1, 2, 0, 1)
Writer = Callable[..., Path]


def tokenizer_folder(path: Path, **options: Any) -> Path:
    path.mkdir(exist_ok=True)
    trained_tokenizer(words(), **options).save(str(path / "tokenizer.json"))
    return path


def text_input(**changes: Any) -> TextInput:
    """What a model would bring."""
    made = trained_tokenizer(words())
    brought: dict[str, Any] = {
        "tokenizer": made.to_str().encode(), "vocabulary": made.get_vocab_size(),
        "context": 24, "labels": None,
    }  # fmt: skip
    return TextInput(**(brought | changes))


def rows_of(texts: Any, labels: Any, ids: Any = None) -> list[dict[str, Any]]:
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    return rows if ids is None else [{"id": i, **row} for i, row in zip(ids, rows, strict=True)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    quoted = (",".join(f'"{value}"' for value in row.values()) for row in rows)
    path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


WRITERS: dict[str, Writer] = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The texts with ids, as JSON lines."""
    return write_jsonl(tmp_path / "d.jsonl", rows_of(TEXTS, LABELS, "abcde"))


def all_rows(dataset: Dataset, size: int = 2) -> np.ndarray[Any, Any]:
    rows = np.arange(len(dataset), dtype=np.int64)
    return np.concatenate([batch.numpy() for batch in dataset.batches(rows, size)])


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_tokens_of_transformers(
    suffix: str, tmp_path: Path, opened: Opener
) -> None:
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", rows_of(TEXTS, LABELS, "abcde"))
    dataset = opened(path, text=text_input())
    assert isinstance(dataset, TextDataset)
    assert dataset.labels.tolist() == list(LABELS)
    assert dataset.ids is not None
    assert dataset.ids.tolist() == list("abcde")
    fast = transformers().PreTrainedTokenizerFast(
        tokenizer_object=trained_tokenizer(words()), pad_token=SPECIAL[0]
    )
    expected = [fast(text)["input_ids"] for text in TEXTS]
    found = all_rows(dataset)
    assert found.dtype == np.int64
    assert dataset.input_shape == (max(map(len, expected)),)
    for row, ids in zip(found, expected, strict=True):
        assert row[: len(ids)].tolist() == ids
        assert (row[len(ids) :] == PADDING).all()
    assert locate(["d", "a"], dataset).tolist() == [3, 0]


def test_formats_agree_in_content(tmp_path: Path, opened: Opener) -> None:
    paths = [
        write(tmp_path / f"d.{suffix}", rows_of(TEXTS, LABELS)) for suffix, write in WRITERS.items()
    ]
    prints = [opened(path, text=text_input()).fingerprints() for path in paths]
    assert all(np.array_equal(prints[0], other) for other in prints[1:])
    assert len(np.unique(prints[0], axis=0)) == len(TEXTS)
    other = write_jsonl(tmp_path / "e.jsonl", rows_of((*TEXTS[:4], "w11  w12"), LABELS))
    differs = (opened(other, text=text_input()).fingerprints() != prints[0]).any(axis=1)
    assert differs.tolist() == [False, False, False, False, True]  # of the text, not its tokens


def test_rows_come_in_the_order_asked_for(stored: Path, opened: Opener) -> None:
    dataset = opened(stored, text=text_input())
    whole = all_rows(dataset)
    asked = np.array([4, 0, 0, 2], dtype=np.int64)
    for size in (1, 3, 10):
        batches = list(dataset.batches(asked, size))
        assert [len(batch) for batch in batches] == [min(size, 4 - s) for s in range(0, 4, size)]
        assert np.array_equal(torch.cat(batches).numpy(), whole[asked])
    with pytest.raises(IndexError):
        next(dataset.batches(np.array([5]), 1))
    assert list(dataset.batches(asked[:0], 2)) == []


def test_the_cheapest_order_puts_like_lengths_together(stored: Path, opened: Opener) -> None:
    dataset = opened(stored, text=text_input())
    rows = np.array([1, 2, 3, 4], dtype=np.int64)
    order = dataset.cheapest_order(rows)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    lengths = (all_rows(dataset) != PADDING).sum(axis=1)[rows[order]]
    assert (np.diff(lengths) <= 0).all()


def test_data_sets_of_one_case_have_one_width(tmp_path: Path, opened: Opener) -> None:
    short = opened(write_jsonl(tmp_path / "s.jsonl", rows_of(["w1"], [0])), text=text_input())
    long = opened(write_jsonl(tmp_path / "l.jsonl", rows_of(TEXTS, LABELS)), text=text_input())
    digest, before = short.digest, all_rows(short)
    pad_alike([short, long])
    assert short.input_shape == long.input_shape == (8,)
    after = all_rows(short)
    assert np.array_equal(after[:, : before.shape[1]], before)
    assert (after[:, before.shape[1] :] == PADDING).all()
    assert short.digest == digest


def test_long_texts_are_cut_as_declared(stored: Path, opened: Opener) -> None:
    ids = all_rows(opened(stored, text=text_input()))[2]
    cls, sep = ids[0], ids[-1]
    end = opened(stored, preprocess={"max_length": 5}, text=text_input())
    assert all_rows(end)[2].tolist() == [cls, *ids[1:4], sep]
    start = opened(stored, preprocess={"max_length": 5, "truncation": "start"}, text=text_input())
    assert all_rows(start)[2].tolist() == [cls, *ids[4:7], sep]
    assert end.notes == start.notes
    assert end.notes == ("2 of 5 texts of d.jsonl were cut to 5 tokens (preprocess.max_length)",)
    assert opened(stored, preprocess={"max_length": 8}, text=text_input()).notes == ()
    with pytest.raises(InputError, match=r"example 'c' has 8 tokens, more than .*\(5\); raise it"):
        opened(stored, preprocess={"max_length": 5, "truncation": "refuse"}, text=text_input())


def test_a_tokenizers_own_length_and_padding_do_not_apply(
    stored: Path, tmp_path: Path, opened: Opener
) -> None:
    plain, other = trained_tokenizer(words()), trained_tokenizer(words())
    other.enable_truncation(3)
    other.enable_padding(length=20)
    content = other.to_str().encode()
    assert tokenizer_digest(content) == tokenizer_digest(plain.to_str().encode())
    one, two = opened(stored, text=text_input()), opened(stored, text=text_input(tokenizer=content))
    assert one.digest == two.digest
    assert np.array_equal(all_rows(one), all_rows(two))


def test_everything_that_decides_a_token_is_in_the_digest(
    stored: Path, tmp_path: Path, opened: Opener
) -> None:
    folder = tokenizer_folder(tmp_path / "own", framed=False)
    other = write_jsonl(tmp_path / "e.jsonl", rows_of(TEXTS, LABELS, "abcdf"))
    cases: list[tuple[Path, dict[str, Any], dict[str, Any]]] = [
        (stored, {}, {}),
        (stored, {"max_length": 5}, {}),
        (stored, {"max_length": 5, "truncation": "start"}, {}),
        (stored, {"truncation": "refuse"}, {}),
        (stored, {"tokenizer": str(folder)}, {}),
        (stored, {}, {"context": 6}),
        (other, {}, {}),
    ]
    digests = [
        opened(path, preprocess=settings, text=text_input(**brought)).digest
        for path, settings, brought in cases
    ]
    assert len(set(digests)) == len(digests)
    same = opened(stored, preprocess={"max_length": 24}, text=text_input())
    assert same.digest == digests[0]  # said, and assumed


def test_the_tokenizer_may_be_named(stored: Path, tmp_path: Path, opened: Opener) -> None:
    folder = tokenizer_folder(tmp_path / "own", framed=False)
    for place in (folder, folder / "tokenizer.json"):
        dataset = opened(stored, preprocess={"tokenizer": str(place)})
        assert (all_rows(dataset) != PADDING).sum(axis=1).tolist() == [3, 1, 6, 4, 2]


def test_texts_are_tokenized_once(
    stored: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = all_rows(opened(stored, text=text_input()))

    def refuse(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(Tokenization, "__call__", refuse)
    assert np.array_equal(all_rows(opened(stored, text=text_input())), first)


def test_many_texts_pass_in_pieces(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of 3,000 texts are never held together."""
    pieces: list[int] = []
    tokenize = Tokenization.__call__

    def counted(self: Tokenization, texts: Any) -> Any:
        pieces.append(len(texts))
        return tokenize(self, texts)

    monkeypatch.setattr(Tokenization, "__call__", counted)
    texts = [" ".join(words()[: 1 + row % 7]) for row in range(3000)]
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(texts, [0, 1] * 1500))
    dataset = opened(path, text=text_input())
    assert (sum(pieces), max(pieces)) == (3000, 1024)
    lengths = (all_rows(dataset, 512) != PADDING).sum(axis=1)
    assert np.array_equal(lengths, 3 + np.arange(3000) % 7)


@pytest.mark.parametrize("suffix", WRITERS)
def test_names_are_numbered_as_the_model_names_its_outputs(
    suffix: str, tmp_path: Path, opened: Opener
) -> None:
    labels = ("spam", "ham", "eggs", "spam", "ham")
    path = WRITERS[suffix](tmp_path / f"d.{suffix}", rows_of(TEXTS, labels))
    named = opened(path, text=text_input(labels=("spam", "eggs", "ham", "fish")))
    assert named.labels.tolist() == [0, 2, 1, 0, 2]
    assert named.classes == ("spam", "eggs", "ham", "fish")
    assert named.notes == ()
    unnamed = opened(path, text=text_input())
    assert unnamed.labels.tolist() == [2, 1, 0, 2, 1]
    assert "numbered by their alphabet" in unnamed.notes[0]
    other = opened(path, text=text_input(), classes=("eggs", "spam", "ham"))
    assert other.labels.tolist() == [1, 2, 0, 1, 2]
    with pytest.raises(InputError, match=r"labels 'ham' are none of the model's \('spam', 'eggs'"):
        opened(path, text=text_input(labels=("spam", "eggs")))


def test_columns_may_be_named(tmp_path: Path, opened: Opener) -> None:
    rows = [
        {"question": text, "y": label, "text": "w9", "x": 1.0}
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    for suffix, write in WRITERS.items():
        path = write(tmp_path / f"d.{suffix}", rows)
        named = opened(path, {"text_column": "question"}, text=text_input())
        assert (all_rows(named) != PADDING).sum(axis=1).tolist() == [5, 3, 8, 6, 4]
        usual = opened(path, text=text_input())
        assert usual.input_shape == (3,)
        numbers = opened(path, {"input_column": "x"}, text=text_input())
        assert numbers.input_dtype == np.float32
