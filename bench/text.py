"""Text classifiers and a language model end to end, through the CLI on Hugging Face folders.

    python bench/text.py --data DIR [--network bert|gpt2]
                         [--forget class:4|random:200|keyword:comedy] [--epochs N] [--retrained 3]
                         [--shadows N] [--access black-box] [--rows N] [--out DIR]
    python bench/text.py --data DIR --speed [--network bert|gpt2]

``DIR`` holds ``trec`` (questions of six classes) and ``sst2`` (sentences of two), each with
``train.jsonl`` and ``test.jsonl``. A class or random questions are forgotten of TREC; a keyword of
SST-2: all examples that contain it, as in RFA-LoRA §V-A. A small transformer, a classifier (bert)
or a language model (gpt2), is trained from scratch, with a tokenizer of the same texts: an
original, and one that never saw the forget examples. ``unaudit unlearn`` makes a finetuned, a
head-distilled and an RFA-LoRA model of the original, and ``unaudit check`` audits all five against
``--retrained`` references that it trains from the recipe. Files that are there are not made again.

``--speed`` times one pass over TREC: padded to one length in the order of the data, padded to the
longest text of each batch, and with texts of like length together, as audits run (a language model:
the last alone); and a black-box audit beside it. Weights are fresh there: what they say does not
matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _text_speed import compare_audit, compare_padding, time_pass
from _texts import Corpus, make_base, prepare, train_model

from unaudit.data.selection import has_word

UNLEARNERS = ("finetune", "head-distillation", "rfa-lora")
SUBJECTS = ("original", "retrained", *UNLEARNERS)
SPLITS = ("forget", "retain", "unseen")
ENTROPY = {"bert": "entropy", "gpt2": "top-entropy"}
"""The paper's attack: on the entropy of the prediction, or of the ten likeliest tokens."""


def main() -> None:
    """Prepare the files, make the subjects, audit them; or time a pass."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    source = options.data / ("sst2" if options.kind == "keyword" else "trec")
    rows = prepare(options.out, source, options.rows)
    corpus = Corpus(
        options.out, options.network, 2 if options.kind == "keyword" else 6, options.hidden,
        options.layers, options.epochs,
    )  # fmt: skip
    make_base(corpus, [row["text"] for row in rows])
    if options.speed:
        way = compare_padding if options.network == "bert" else time_pass
        compare_audit(options.out, way(options.out))
        return
    forget = forgotten(options, rows)
    write_request(options, corpus, rows, forget)
    train_model(corpus, np.ones(len(rows), dtype=bool), "original", seed=0)
    train_model(corpus, ~forget, "retrained", seed=1)
    for method in UNLEARNERS:
        target = options.out / f"{method}.safetensors"
        if not target.exists():
            unaudit(options, "unlearn", method, str(options.out / "original"), "-o", str(target))
    print(f"{options.forget}: {forget.sum()} of {len(rows)} examples to be forgotten")
    utility = "accuracy" if options.network == "bert" else "perplexity"
    print(
        f"| subject | verdict | level | {utility} f/r/u | entropy attack | "
        "families (residual index) | failing | s |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in SUBJECTS:
        print(audit(options, name), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", choices=("bert", "gpt2"), default="bert")
    parser.add_argument("--forget", default="class:4", help="class:K, random:N or keyword:WORD")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--retrained", type=int, default=3)
    parser.add_argument("--shadows", type=int, default=0)
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
        name = "speed" if options.speed else f"{kind}-{what}"
        options.out = Path("bench/out") / f"text-{options.network}-{name}"
    return options


def forgotten(options: argparse.Namespace, rows: list[dict[str, Any]]) -> np.ndarray:
    """Mask of the forget examples."""
    if options.kind == "class":
        return np.array([row["label"] == int(options.what) for row in rows])
    if options.kind == "keyword":
        return np.array([has_word(options.what)(row["text"]) for row in rows])
    mask = np.zeros(len(rows), dtype=bool)
    chosen = np.random.default_rng(0).choice(len(rows), int(options.what), replace=False)
    mask[chosen] = True
    return mask


def write_request(
    options: argparse.Namespace, corpus: Corpus, rows: list[dict[str, Any]], forget: np.ndarray
) -> None:
    """The forget ids, unless the CLI can find them itself, and the configuration."""
    ids = [row["id"] for row, own in zip(rows, forget, strict=True) if own]
    (options.out / "forget.txt").write_text("".join(f"{name}\n" for name in ids))
    named = options.forget if options.kind != "random" else "forget.txt"
    own = corpus.recipe
    (options.out / "unaudit.toml").write_text(
        f"""\
schema_version = 1
[model]
arch = "hf:base"
[data]
train = "train.jsonl"
unseen = "unseen.jsonl"
[request]
forget = "{named}"
[recipe]
kind = "{own.kind}"
lr = {own.lr}
epochs = {own.epochs}
batch = {own.batch}
weight_decay = {own.weight_decay}
[calibration]
retrained = {options.retrained}
unlearners = {json.dumps(UNLEARNERS)}
[shadows]
count = {options.shadows}
[policy]
access = "{options.access}"
"""
    )


def unaudit(
    options: argparse.Namespace, command: str, *words: str, ends: tuple[int, ...] = (0,)
) -> None:
    """Run one command of the CLI."""
    line = [sys.executable, "-m", "unaudit", command, *words]
    line += ["--config", str(options.out / "unaudit.toml")]
    if command != "unlearn":
        line += ["--original", str(options.out / "original")]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    (options.out / f"{command}-{Path(words[0]).stem}.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in ends:
        sys.exit(f"{' '.join(line)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def audit(options: argparse.Namespace, name: str) -> str:
    """Run ``unaudit check``; one row of the table."""
    out, folder = options.out / f"audit-{name}", options.out / name
    model = folder if folder.is_dir() else options.out / f"{name}.safetensors"
    unaudit(options, "check", str(model), "--out", str(out), ends=(0, 1, 3))
    record = json.loads((out / "record.json").read_text())
    families = ", ".join(
        f"{family['family']} {family['pooled']['estimate']:.2f}"
        for family in record["families"]
        if family["pooled"] is not None
    )
    findings = {finding["probe"]: finding for finding in record["findings"]}
    attack = findings.get(ENTROPY[options.network])
    failing = ", ".join(f["title"] for f in record["findings"] if f["fails"])
    seconds = sum(record["environment"]["seconds"].values())
    cells = (
        name,
        record["verdict"]["outcome"],
        str(record["verdict"]["assurance_level"]),
        utility(record),
        "–" if attack is None else f"{attack['measure']:.3f}",
        families or "–",
        failing or "–",
        f"{seconds:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def utility(record: dict[str, Any]) -> str:
    """Accuracy, or perplexity, of the subject on forget, retain and unseen examples."""
    language = record.get("language")
    if language is None:
        rates = next(row for row in record["controls"]["accuracy"] if row["role"] == "subject")
        return "/".join(f"{rates[split]:.2f}" for split in SPLITS)
    own = next(row for row in language["perplexity"] if row["role"] == "subject")
    return "/".join(f"{own[split]:.1f}" for split in SPLITS)


if __name__ == "__main__":
    main()
