"""Real texts, a tokenizer of their own, and small transformers trained on them from scratch."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
import torch

from unaudit.data import open_dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.loading import LoadedModel, load_model
from unaudit.loading.hugging_face_library import import_transformers
from unaudit.plan import DataSection, PreprocessSection
from unaudit.training import Recipe, fit, initialize
from unaudit.training.model_job import weights_of

Network = Literal["bert", "gpt2"]
MAX_LENGTH = 64
VOCABULARY = {"bert": 4000, "gpt2": 2000}
END = "<|endoftext|>"
BATCH = 32


@dataclass(frozen=True)
class Corpus:
    """One data set, one kind of network, one folder where everything is."""

    folder: Path
    network: Network
    classes: int
    hidden: int
    layers: int
    epochs: int

    @property
    def recipe(self) -> Recipe:
        return Recipe(kind="adamw", lr=1e-3, epochs=self.epochs, batch=BATCH, weight_decay=0.01)


def prepare(folder: Path, source: Path, rows: int | None) -> list[dict[str, Any]]:
    """Training rows, written with the unseen ones where audits find them.

    Args:
        folder: what is written to.
        source: folder with ``train.jsonl`` and ``test.jsonl``.
        rows: how many to train on; None: all.
    """
    train, test = (
        [json.loads(line) for line in (source / f"{part}.jsonl").open(encoding="utf-8")]
        for part in ("train", "test")
    )
    known = {row["text"] for row in train}  # TREC repeats 10 of its 500 test questions
    unseen = [row for row in test if row["text"] not in known]
    train = train[:rows]
    for name, chosen in (("train", train), ("unseen", unseen)):
        text = "".join(f"{json.dumps(row)}\n" for row in chosen)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return train


def make_base(corpus: Corpus, texts: list[str]) -> None:
    """The folder that says what network it is, with fresh weights."""
    folder = corpus.folder / "base"
    if folder.exists():
        return
    transformers = import_transformers()
    transformers.logging.disable_progress_bar()
    made = _word_pieces(texts) if corpus.network == "bert" else _byte_pairs(texts)
    if corpus.network == "bert":
        settings = transformers.BertConfig(
            vocab_size=made.get_vocab_size(), hidden_size=corpus.hidden,
            num_hidden_layers=corpus.layers, num_attention_heads=4, pad_token_id=0,
            intermediate_size=4 * corpus.hidden, max_position_embeddings=MAX_LENGTH,
            num_labels=corpus.classes,
        )  # fmt: skip
        network = transformers.BertForSequenceClassification(settings)
    else:
        end = made.token_to_id(END)
        settings = transformers.GPT2Config(
            vocab_size=made.get_vocab_size(), n_embd=corpus.hidden, n_layer=corpus.layers,
            n_head=4, n_positions=MAX_LENGTH, bos_token_id=end, eos_token_id=end,
        )  # fmt: skip
        network = transformers.GPT2LMHeadModel(settings)
    network.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))


def opened(folder: Path, store: Store) -> tuple[LoadedModel, TextDataset]:
    """The fresh network and the training data."""
    model = load_model(str(folder / "base"), arch=None)
    assert isinstance(model, LoadedModel)
    train = str(folder / "train.jsonl")
    data = open_dataset(train, DataSection(), PreprocessSection(), store, text=model.text)
    assert isinstance(data, TextDataset)
    return model, data


def train_model(corpus: Corpus, kept: np.ndarray, name: str, seed: int) -> None:
    """Train on the rows of ``kept`` and save the model, unless it is there."""
    folder = corpus.folder / name
    if folder.exists():
        return
    begin = time.perf_counter()
    model, data = opened(corpus.folder, Store())
    rows = np.arange(len(data), dtype=np.int64)
    inputs, labels = torch.cat(list(data.batches(rows, len(data)))), torch.from_numpy(data.labels)
    generator = torch.Generator().manual_seed(seed)
    network = initialize(model.module, generator)
    chosen = torch.from_numpy(kept.nonzero()[0])
    fit(network, inputs, labels, corpus.recipe, generator, rows=chosen)
    folder.mkdir()
    for file in (corpus.folder / "base").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(weights_of(network))
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def _word_pieces(texts: list[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=VOCABULARY["bert"], special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(texts, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return made


def _byte_pairs(texts: list[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY["gpt2"], special_tokens=[END], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(texts, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, made.token_to_id(END))]
    )
    return made
