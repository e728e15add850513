"""CIFAR-10 end to end, through the CLI on saved files: every reference unlearner, every probe.

    python bench/cifar10.py --data DIR [--forget class:4|random:500] [--train 15000] [--epochs 8]
                            [--augment none] [--retrained 5] [--shadows 32] [--relearn 4x64]
                            [--out DIR]

``DIR`` holds ``train.parquet`` and ``test.parquet`` in Hugging Face layout. A small residual
network (78k parameters) is trained on the first ``--train`` images (the original), and once more
without the forget examples: a subject of known truth. ``unaudit bench`` then trains the references
and every unlearner from the recipe and tabulates every probe; after that the original and the
head-distilled fake are audited as subjects, with everything cached. Where a class was forgotten,
the column of IDI is compared with the published one.

With ``--shadows N`` it is about attacks with shadow models instead: N models that also unlearn by
fine-tuning, and what loss, LiRA, U-LiRA, RMIA and KLoM say of a retrained, a fine-tuned, a SCRUBbed
and a head-distilled subject. Files that are there are not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from _cifar10_attacks import SUBJECTS, cost, table
from safetensors.torch import save_file
from scipy.stats import spearmanr

from unaudit.data import Dataset, open_dataset
from unaudit.engine.store import Store
from unaudit.loading.networks import resnet
from unaudit.plan import DataSection, PreprocessSection
from unaudit.training import Recipe, fit, initialize
from unaudit.training.augment import AUGMENTATIONS

ARCH = "unaudit:resnet?depth=8&width=16&num_classes=10&in_channels=3"
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
BATCH = 128
UNSEEN, VALIDATION = 3000, 1000
"""Test images: those that serve as unseen, and the next ones, which unlearners may consume."""
PUBLISHED = {
    "finetune": 0.671,
    "random-labels": 0.830,
    "gradient-ascent": 0.334,
    "bad-teacher": 1.014,
    "eu-k": 0.528,
    "cf-k": 0.675,
    "scrub": -0.056,
    "salun": 0.936,
    "l1-sparse": 0.293,
    "cola": 0.010,
    "head-distillation": 1.0,
}
"""IDI, CIFAR-10, ResNet-18, one class (IDI 2024, Table 5); of EU-k and CF-k the rows with k = 5."""


def main() -> None:
    """Prepare the files, tabulate the unlearners, audit the subjects of known truth."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    train = prepare(options)
    forget = forgotten(options, train)
    write_request(options, train, forget)
    train_model(options, train, np.ones(len(train), dtype=bool), "original", seed=0)
    train_model(options, train, ~forget, "retrained", seed=1)
    if options.shadows:
        attack(options)
        return
    seconds = unaudit(options, "calibrate", subject(options, "retrained"))
    print(f"calibrate: {seconds:.0f} s", flush=True)
    tables = [str(options.out / f"matrix.{ending}") for ending in ("md", "csv")]
    seconds = unaudit(
        options, "bench", subject(options, "retrained"), *(w for t in tables for w in ("-o", t))
    )
    print(f"bench: {seconds:.0f} s", flush=True)
    unlearn(options, "head-distillation")
    print((options.out / "matrix.md").read_text())
    if options.forget.startswith("class:"):
        compare_with_published(options.out / "matrix.csv")
    print("\n| subject | verdict | exit | level | upper bound | failing tests | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in ("original", "retrained", "head-distillation"):
        print(audit(options, name), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--forget", default="class:4", help="class:K or random:N")
    parser.add_argument("--train", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--augment", choices=sorted(AUGMENTATIONS), default="crop-flip")
    parser.add_argument("--retrained", type=int, default=5)
    parser.add_argument("--shadows", type=int, default=0)
    parser.add_argument(
        "--relearn", default="4x64", help="runs x steps; 2x32 takes a quarter of the time"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kind, _, number = options.forget.partition(":")
    if kind not in ("class", "random") or not number.isdigit():
        parser.error(f"--forget {options.forget}: class:K or random:N")
    if options.out is None:
        options.out = Path("bench/out") / f"cifar10-{kind}-{number}"
    return options


def prepare(options: argparse.Namespace) -> Dataset:
    """Cut the data into files, and open the training data."""
    cuts = {
        "train": ("train", 0, options.train),
        "unseen": ("test", 0, UNSEEN),
        "validation": ("test", UNSEEN, VALIDATION),
    }
    for name, (source, start, size) in cuts.items():
        path = options.out / f"{name}.parquet"
        if not path.exists():
            table = pq.read_table(options.data / f"{source}.parquet")
            pq.write_table(table.slice(start, size), path)
    settings = DataSection(input_column="img")
    preprocess = PreprocessSection(mean=MEAN, std=STD)
    return open_dataset(str(options.out / "train.parquet"), settings, preprocess, Store())


def forgotten(options: argparse.Namespace, train: Dataset) -> np.ndarray:
    """Mask of the forget examples."""
    kind, _, number = options.forget.partition(":")
    if kind == "class":
        return np.asarray(train.labels == int(number))
    mask = np.zeros(len(train), dtype=bool)
    mask[np.random.default_rng(0).choice(len(train), int(number), replace=False)] = True
    return mask


def write_request(options: argparse.Namespace, train: Dataset, forget: np.ndarray) -> None:
    """The forget ids and the configuration, as a user would hand them in."""
    assert train.ids is not None
    runs, _, steps = options.relearn.partition("x")
    relearning = f"{{ runs = {runs}, steps = {steps} }}"
    ids = "\n".join(train.ids[forget])
    (options.out / "forget.txt").write_text(f"# {options.forget}\n{ids}\n")
    (options.out / "unaudit.toml").write_text(
        f"""\
schema_version = 1
[model]
arch = "{ARCH}"
[data]
train = "train.parquet"
unseen = "unseen.parquet"
validation = "validation.parquet"
input_column = "img"
[preprocess]
mean = {list(MEAN)}
std = {list(STD)}
[request]
forget = "forget.txt"
[recipe]
lr = {recipe(options).lr}
epochs = {options.epochs}
batch = {BATCH}
precision = "{precision()}"
augment = "{options.augment}"
[calibration]
profile = "full"
retrained = {options.retrained}
[shadows]
count = {options.shadows}
[probes]
relearn = {relearning}
relearn-fresh-head = {relearning}
"""
    )


def train_model(
    options: argparse.Namespace, train: Dataset, kept: np.ndarray, name: str, seed: int
) -> None:
    """Train on the rows of ``kept`` and save the weights, unless they are there."""
    path = options.out / f"{name}.safetensors"
    if path.exists():
        return
    begin = time.perf_counter()
    rows = np.arange(len(train), dtype=np.int64)
    inputs = torch.cat(list(train.batches(rows, 1024)))
    generator = torch.Generator().manual_seed(seed)
    network = resnet(depth=8, width=16, num_classes=10, in_channels=3)
    model = fit(
        initialize(network, generator),
        inputs,
        torch.from_numpy(train.labels),
        recipe(options),
        generator,
        rows=torch.from_numpy(kept.nonzero()[0]),
        augment=AUGMENTATIONS[options.augment],
    )
    save_file(model.state_dict(), path)
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(lr=0.1, epochs=options.epochs, batch=BATCH, precision=precision())


def precision() -> Literal["float32", "bf16"]:
    """bf16 where the processor computes in it, float32 elsewhere."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    return "bf16" if torch.cuda.is_available() or "avx512_bf16" in flags else "float32"


def subject(options: argparse.Namespace, name: str) -> str:
    return str(options.out / f"{name}.safetensors")


def unaudit(
    options: argparse.Namespace, command: str, *words: str, ends: Sequence[int] = (0,)
) -> float:
    """Run one command of the CLI; seconds."""
    line = [sys.executable, "-m", "unaudit", command, *words]
    line += ["--config", str(options.out / "unaudit.toml")]
    if command != "unlearn":
        line += ["--original", subject(options, "original")]
    begin = time.perf_counter()
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    name = Path(words[0]).stem
    (options.out / f"{command}-{name}.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in ends:
        sys.exit(f"{' '.join(line)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - begin


def unlearn(options: argparse.Namespace, method: str) -> None:
    """Make the original unlearn, unless that is done."""
    target = subject(options, method)
    if not Path(target).exists():
        unaudit(options, "unlearn", method, subject(options, "original"), "-o", target)


def attack(options: argparse.Namespace) -> None:
    """Attacks with shadow models that unlearn by fine-tuning, on subjects of known truth."""
    asked = ("--profile", "smoke", "--access", "black-box", "--unlearner", "finetune")
    retrained = subject(options, "retrained")
    # references and calibrators first, so that the second time is that of shadow models alone
    unaudit(options, "calibrate", retrained, *asked[:-2], "--shadows", "0")
    seconds = unaudit(options, "calibrate", retrained, *asked)
    print(cost(options.shadows, seconds, len(os.sched_getaffinity(0)), options.epochs), flush=True)
    for name in SUBJECTS:
        if name != "retrained":
            unlearn(options, name)

    def audited(name: str) -> Path:
        out = options.out / f"attacks-{name}"
        unaudit(options, "check", subject(options, name), *asked, "--out", str(out), ends=(0, 1, 3))
        return Path(out)

    print(table(audited, options.shadows))


def audit(options: argparse.Namespace, name: str) -> str:
    """Run ``unaudit check``; one row of the table."""
    out = options.out / f"audit-{name}"
    seconds = unaudit(options, "check", subject(options, name), "--out", str(out), ends=(0, 1, 3))
    record = json.loads((out / "record.json").read_text())
    verdict = record["verdict"]
    failing = ", ".join(f["title"] for f in record["findings"] if f["fails"]) or "–"
    upper = verdict["upper_bound"]
    bound = "–" if upper is None else f"{upper:.2f}"
    return (
        f"| {name} | {verdict['outcome']} | {verdict['exit_code']} | "
        f"{verdict['assurance_level']} | {bound} | {failing} | {seconds:.0f} |"
    )


def compare_with_published(path: Path) -> None:
    """Spearman's correlation of the measured IDI with the published one."""
    with path.open(newline="") as file:
        measured = {row["model"]: row["idi"] for row in csv.DictReader(file)}
    rows = [
        (name, PUBLISHED[name], float(measured[name])) for name in PUBLISHED if measured.get(name)
    ]
    print("| method | IDI published | IDI measured |\n|---|---|---|")
    for name, there, here in rows:
        print(f"| {name} | {there:.3f} | {here:.3f} |")
    found = spearmanr([row[1] for row in rows], [row[2] for row in rows])
    print(
        f"\nSpearman's ρ over {len(rows)} methods: {found.statistic:.2f} (p = {found.pvalue:.3f})"
    )


if __name__ == "__main__":
    main()
