"""Text classifiers end to end, through the CLI on Hugging Face folders, and what padding costs.

    python bench/text.py --data DIR [--forget class:4|random:200|keyword:comedy] [--epochs 8]
                         [--retrained 3] [--access black-box] [--rows N] [--out DIR]
    python bench/text.py --data DIR --speed

``DIR`` holds ``trec`` (questions of six classes) and ``sst2`` (sentences of two), each with
``train.jsonl`` and ``test.jsonl``. A class or random questions are forgotten of TREC; a keyword of
SST-2: all examples that contain it, as in RFA-LoRA §V-A. A BERT of two layers is trained from
scratch, with a tokenizer of the same texts: an original, and one that never saw the forget
examples. ``unaudit unlearn`` makes a finetuned and a head-distilled model of the original, and
``unaudit check`` audits all four against ``--retrained`` references that it trains from the recipe.
Files that are there are not made again.

``--speed`` times one pass over TREC: padded to one length in the order of the data, padded to the
longest text of each batch, and with texts of like length together, as audits run; and a black-box
audit beside them. Networks have fresh weights there: what they say does not matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from unaudit.data import open_dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.loading import LoadedModel, load_model
from unaudit.loading.hugging_face_library import import_transformers
from unaudit.loading.hugging_face_network import TokenNetwork
from unaudit.pipeline import audit as run_audit
from unaudit.plan import AuditPlan, DataSection, PreprocessSection
from unaudit.tokens import are_present
from unaudit.training import Recipe, fit, initialize
from unaudit.training.model_job import weights_of

MAX_LENGTH = 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = 4000
BATCH, SCORED = 32, 256
"""Examples per step of training, and per batch of a forward pass."""
ROUNDS = 5
UNLEARNERS = ("finetune", "head-distillation")


def main() -> None:
    """Prepare the files, make the subjects, audit them; or time a pass."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = prepare(options)
    make_base(options, [row["text"] for row in rows])
    if options.speed:
        compare_speed(options)
        return
    forget = forgotten(options, rows)
    write_request(options, rows, forget)
    train_model(options, np.ones(len(rows), dtype=bool), "original", seed=0)
    train_model(options, ~forget, "retrained", seed=1)
    for method in UNLEARNERS:
        target = options.out / f"{method}.safetensors"
        if not target.exists():
            unaudit(options, "unlearn", method, str(options.out / "original"), "-o", str(target))
    print(f"{options.forget}: {forget.sum()} of {len(rows)} examples to be forgotten")
    print("| subject | verdict | exit | upper bound | families (residual index) | failing | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in ("original", "retrained", *UNLEARNERS):
        print(audit(options, name), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--forget", default="class:4", help="class:K, random:N or keyword:WORD")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--retrained", type=int, default=3)
    parser.add_argument("--access", choices=("black-box", "white-box"), default="white-box")
    parser.add_argument("--rows", type=int, help="training examples; default: all")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kind, _, what = options.forget.partition(":")
    if kind not in ("class", "random", "keyword") or not what:
        parser.error(f"--forget {options.forget}: class:K, random:N or keyword:WORD")
    options.kind, options.what = kind, what
    if options.out is None:
        options.out = Path("bench/out") / f"text-{'speed' if options.speed else f'{kind}-{what}'}"
    return options


def prepare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Training rows, written with the unseen ones where audits find them."""
    source = options.data / ("sst2" if options.kind == "keyword" else "trec")
    train, test = (
        [json.loads(line) for line in (source / f"{part}.jsonl").open(encoding="utf-8")]
        for part in ("train", "test")
    )
    known = {row["text"] for row in train}  # TREC repeats 10 of its 500 test questions
    unseen = [row for row in test if row["text"] not in known]
    train = train[: options.rows]
    for name, rows in (("train", train), ("unseen", unseen)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return train


def forgotten(options: argparse.Namespace, rows: list[dict[str, Any]]) -> np.ndarray:
    """Mask of the forget examples."""
    if options.kind == "class":
        return np.array([row["label"] == int(options.what) for row in rows])
    if options.kind == "keyword":
        return np.array([options.what in row["text"].lower().split() for row in rows])
    mask = np.zeros(len(rows), dtype=bool)
    chosen = np.random.default_rng(0).choice(len(rows), int(options.what), replace=False)
    mask[chosen] = True
    return mask


def make_base(options: argparse.Namespace, texts: list[str]) -> None:
    """The folder that says what network it is, with fresh weights."""
    folder = options.out / "base"
    if folder.exists():
        return
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    transformers = import_transformers()
    transformers.logging.disable_progress_bar()
    settings = transformers.BertConfig(
        vocab_size=made.get_vocab_size(), hidden_size=options.hidden, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=4 * options.hidden, pad_token_id=0,
        max_position_embeddings=MAX_LENGTH, num_labels=2 if options.kind == "keyword" else 6,
    )  # fmt: skip
    transformers.BertForSequenceClassification(settings).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))


def recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(kind="adamw", lr=1e-3, epochs=options.epochs, batch=BATCH, weight_decay=0.01)


def write_request(
    options: argparse.Namespace, rows: list[dict[str, Any]], forget: np.ndarray
) -> None:
    """The forget ids and the configuration, as a user would hand them in."""
    ids = [row["id"] for row, own in zip(rows, forget, strict=True) if own]
    (options.out / "forget.txt").write_text("".join(f"{name}\n" for name in ids))
    own = recipe(options)
    (options.out / "unaudit.toml").write_text(
        f"""\
schema_version = 1
[model]
arch = "hf:base"
[data]
train = "train.jsonl"
unseen = "unseen.jsonl"
[request]
forget = "forget.txt"
[recipe]
kind = "{own.kind}"
lr = {own.lr}
epochs = {own.epochs}
batch = {own.batch}
weight_decay = {own.weight_decay}
[calibration]
retrained = {options.retrained}
unlearners = {json.dumps(UNLEARNERS)}
[policy]
access = "{options.access}"
"""
    )


def opened(options: argparse.Namespace, store: Store) -> tuple[LoadedModel, TextDataset]:
    """The fresh network and the training data."""
    model = load_model(str(options.out / "base"), arch=None)
    assert isinstance(model, LoadedModel)
    data = open_dataset(
        str(options.out / "train.jsonl"), DataSection(), PreprocessSection(), store, text=model.text
    )
    assert isinstance(data, TextDataset)
    return model, data


def train_model(options: argparse.Namespace, kept: np.ndarray, name: str, seed: int) -> None:
    """Train on the rows of ``kept`` and save the model, unless it is there."""
    folder = options.out / name
    if folder.exists():
        return
    begin = time.perf_counter()
    model, data = opened(options, Store())
    rows = np.arange(len(data), dtype=np.int64)
    inputs, labels = torch.cat(list(data.batches(rows, 1024))), torch.from_numpy(data.labels)
    generator = torch.Generator().manual_seed(seed)
    network = initialize(model.module, generator)
    chosen = torch.from_numpy(kept.nonzero()[0])
    fit(network, inputs, labels, recipe(options), generator, rows=chosen)
    folder.mkdir()
    for file in (options.out / "base").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(weights_of(network))
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def unaudit(
    options: argparse.Namespace, command: str, *words: str, ends: tuple[int, ...] = (0,)
) -> float:
    """Run one command of the CLI; seconds."""
    line = [sys.executable, "-m", "unaudit", command, *words]
    line += ["--config", str(options.out / "unaudit.toml")]
    if command != "unlearn":
        line += ["--original", str(options.out / "original")]
    begin = time.perf_counter()
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    (options.out / f"{command}-{Path(words[0]).stem}.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in ends:
        sys.exit(f"{' '.join(line)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - begin


def audit(options: argparse.Namespace, name: str) -> str:
    """Run ``unaudit check``; one row of the table."""
    out, folder = options.out / f"audit-{name}", options.out / name
    subject = folder if folder.is_dir() else options.out / f"{name}.safetensors"
    seconds = unaudit(options, "check", str(subject), "--out", str(out), ends=(0, 1, 3))
    record = json.loads((out / "record.json").read_text())
    verdict = record["verdict"]
    families = ", ".join(
        f"{family['family']} {family['pooled']['estimate']:.2f}"
        for family in record["families"]
        if family["pooled"] is not None
    )
    failing = ", ".join(f["title"] for f in record["findings"] if f["fails"]) or "–"
    upper = verdict["upper_bound"]
    bound = "–" if upper is None else f"{upper:.2f}"
    return (
        f"| {name} | {verdict['outcome']} | {verdict['exit_code']} | {bound} | {families or '–'} | "
        f"{failing} | {seconds:.0f} |"
    )


def compare_speed(options: argparse.Namespace) -> None:
    """What padding costs, and what an audit costs beside one pass."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        model, data = opened(options, store)
        network = model.module
        assert isinstance(network, TokenNetwork)
        rows = np.arange(len(data), dtype=np.int64)
        together = rows[data.cheapest_order(rows)]
        lengths = data.lengths
        print(f"{len(data)} texts of {lengths.mean():.1f} tokens, at most {lengths.max()}")
        data.pad_to(MAX_LENGTH)
        ways: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
            f"padded to {MAX_LENGTH}": lambda: whole_width(network, data, rows),
            "to the longest of a batch": lambda: cropped(network, data, rows),
            "of like length together": lambda: cropped(network, data, together),
        }
        found = {}
        for name, way in ways.items():
            scores, seconds = best_of(way)
            found[name] = (scores, seconds)
            print(f"{name:28s} {seconds:6.2f} s {len(data) / seconds:9,.0f} texts/s", flush=True)
        (naive, slow), _, (sorted_scores, fast) = found.values()
        back = torch.empty_like(sorted_scores)
        back[torch.from_numpy(together)] = sorted_scores
        off = (naive - back).abs().max() / naive.std()
        print(f"naive / bucketed {slow / fast:.2f}; logits differ by {off:.1e} of their spread")
        compare_audit(options, fast / len(data))


def compare_audit(options: argparse.Namespace, per_text: float) -> None:
    """A black-box audit without references, tokenizing and loading included."""
    (options.out / "forget.txt").write_text("".join(f"train-{row:05d}\n" for row in range(200)))
    with tempfile.TemporaryDirectory() as folder:
        plan = AuditPlan.build(
            {
                "model": {"path": str(options.out / "base")},
                "data": {name: str(options.out / f"{name}.jsonl") for name in ("train", "unseen")},
                "request": {"forget": str(options.out / "forget.txt")},
                "policy": {"access": "black-box"},
                "run": {"store": folder, "batch_size": SCORED},
            }
        )
        begin = time.perf_counter()
        record = run_audit(plan)
        seconds = time.perf_counter() - begin
    scored = record.request.forget + record.request.retain + record.request.unseen
    one = per_text * scored
    print(f"black-box audit {seconds:.2f} s = {seconds / one:.2f} passes of {one:.2f} s")
    for stage, spent in sorted(record.environment.seconds.items(), key=lambda item: -item[1])[:5]:
        print(f"  {stage:28s} {spent:6.2f} s")


def whole_width(
    network: TokenNetwork, data: TextDataset, rows: np.ndarray
) -> Iterator[torch.Tensor]:
    """Every column is computed, as where all texts are padded to one length."""
    for ids in data.batches(rows, SCORED):
        present = are_present(ids)
        yield network._logits(ids.masked_fill(~present, network.filler), present)


def cropped(network: TokenNetwork, data: TextDataset, rows: np.ndarray) -> Iterator[torch.Tensor]:
    for ids in data.batches(rows, SCORED):
        yield network(ids)


def best_of(way: Callable[[], Iterator[torch.Tensor]]) -> tuple[torch.Tensor, float]:
    """Logits, and the seconds of the fastest of some passes."""
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            scores = torch.cat(list(way()))
            times.append(time.perf_counter() - begin)
    return scores, min(times)


if __name__ == "__main__":
    main()
