"""Tiny models of texts as Hugging Face folders, with tokenizers trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
import torch
from torch import nn

from unaudit.loading.hugging_face_library import import_transformers

Kind = Literal["bert", "distilbert", "gpt2"]
KINDS: tuple[Kind, ...] = ("bert", "distilbert", "gpt2")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CONTEXT = 24
CAUSAL_CONTEXT = 32
_STEM = {"bert": "Bert", "distilbert": "DistilBert", "gpt2": "GPT2"}


def transformers() -> Any:
    """The package, which draws no bars here."""
    package = import_transformers()
    package.logging.disable_progress_bar()
    return package


def trained_tokenizer(texts: Sequence[str], *, framed: bool = True) -> tokenizers.Tokenizer:
    """A tokenizer of whole words, in lower case.

    Args:
        texts: whose words it knows.
        framed: whether texts begin with [CLS] and end with [SEP].
    """
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=list(SPECIAL))
    made.train_from_iterator(texts, trainer)
    if framed:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
        )
    return made


def config_of(kind: Kind, vocabulary: int, labels: int | Sequence[str], **more: Any) -> Any:
    """A configuration of two layers of 16 units."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": 0,
    }
    if kind == "gpt2":
        shape |= {"bos_token_id": 2, "eos_token_id": 3, "n_inner": 32}
    else:
        shape |= {"hidden_dim" if kind == "distilbert" else "intermediate_size": 32}
    if not isinstance(labels, int):
        shape |= {"id2label": dict(enumerate(labels))}
    else:
        shape |= {"num_labels": labels}
    return getattr(transformers(), f"{_STEM[kind]}Config")(**shape, **more)


def network_of(kind: Kind, config: Any, seed: int = 0, *, spread: float = 0.3) -> nn.Module:
    """A network whose outputs differ from text to text, as those of a trained one do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = getattr(transformers(), f"{_STEM[kind]}ForSequenceClassification")(config)
        for weight in made.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=spread)
    return made.eval()


def save(folder: Path, network: Any, tokenizer: tokenizers.Tokenizer, **options: Any) -> Path:
    """As ``save_pretrained`` of both leaves them."""
    network.save_pretrained(folder, **options)
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    fast = transformers().PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return folder


def causal_config(vocabulary: int, **more: Any) -> Any:
    """A GPT-2 of two layers of 32 units that reads 32 tokens at once."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": CAUSAL_CONTEXT,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    return transformers().GPT2Config(**(shape | more))


def causal_network(config: Any, seed: int = 0, *, spread: float = 0.1) -> nn.Module:
    """A language model whose predictions differ from token to token, as those of a trained one
    do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = transformers().GPT2LMHeadModel(config)
        for weight in made.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=spread)
    return made.eval()


def causal_folder(folder: Path, seed: int = 0, *, spread: float = 0.1, **more: Any) -> Path:
    """A tiny language model and its tokenizer of :func:`words`, which adds no token to a text.

    Args:
        folder: is made.
        seed: of the weights.
        spread: of the weights; more makes predictions surer.
        more: other settings, e.g. ``n_positions`` or ``tie_word_embeddings``.
    """
    tokenizer = trained_tokenizer(words(), framed=False)
    network = causal_network(causal_config(tokenizer.get_vocab_size(), **more), seed, spread=spread)
    return save(folder, network, tokenizer)


def write_texts(path: Path, texts: Sequence[str], prefix: str) -> Path:
    """Rows without labels, with ids ``{prefix}-0`` and so on."""
    rows = ({"id": f"{prefix}-{row}", "text": text} for row, text in enumerate(texts))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_jsonl(path: Path, texts: Sequence[str], labels: Sequence[Any], prefix: str) -> Path:
    """Rows with ids ``{prefix}-0`` and so on."""
    rows = (
        {"id": f"{prefix}-{row}", "text": text, "label": label}
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@cache
def words(count: int = 40) -> tuple[str, ...]:
    """Words that nobody uses."""
    return tuple(f"w{number}" for number in range(count))


def sentences(
    count: int, classes: int, rng: np.random.Generator, least: int = 3, most: int = 12
) -> tuple[list[str], list[int]]:
    """Texts of unlike length, each with two words of its class among others, and their classes."""
    labels = rng.integers(0, classes, count)
    texts = []
    for label in labels:
        others = rng.choice(words()[classes:], rng.integers(least, most + 1))
        own = [words()[label]] * 2
        texts.append(" ".join(rng.permutation([*others, *own])))
    return texts, labels.tolist()
