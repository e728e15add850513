"""What an audit costs, as a ratio to one plain forward pass over the same data with the same model.

    python bench/check_cost.py [--examples 60000] [--repeats 3] [--data DIR]

Measured in fresh processes, side by side, medians over the repeats:

cold      full black-box audit of a subject; the references' outputs are in the cache, the subject's
          are not
warm      the same audit again, everything cached
memory    peak resident memory of the cold audit at 10,000 examples and at all of them

Without ``--data`` the images are random (32 × 32 × 3, uint8, npz); with it they are the parquet
files of that folder (``train.parquet``, ``test.parquet``), so that decoding counts on both sides.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _worlds import ARCH, small_resnet
from safetensors.torch import save_file

from unaudit.data import open_dataset
from unaudit.engine.store import Store
from unaudit.plan import AuditPlan
from unaudit.training import initialize

UNSEEN_SHARE = 6
"""One example in so many is unseen, as in CIFAR-10."""
RETRAINED = 3


def main() -> None:
    options = parse()
    if options.child:
        child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = {n: measure(Path(folder) / str(n), n, options) for n in (10_000, options.examples)}
    full, small = rows[options.examples], rows[10_000]
    print(f"examples                      {options.examples:>10,}")
    print(f"plain forward pass            {full['forward']:>10.2f} s")
    print(f"cold audit / forward pass     {full['cold'] / full['forward']:>10.2f}   (target <= 2)")
    print(
        f"warm audit / forward pass     {full['warm'] / full['forward']:>10.2f}   (target <= 0.2)"
    )
    print(f"peak memory at 10,000         {small['memory']:>10.0f} MiB")
    print(f"peak memory at {options.examples:<10,}     {full['memory']:>10.0f} MiB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--child", choices=("forward", "audit"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(folder: Path, examples: int, options: argparse.Namespace) -> dict[str, float]:
    """Medians of wall time in seconds and of peak memory in MiB."""
    write_world(folder, examples, options)
    base = folder / "store-with-references"
    run("audit", folder, base, subject="other.safetensors")
    found: dict[str, list[float]] = {"forward": [], "cold": [], "warm": [], "memory": []}
    for repeat in range(options.repeats):
        store = folder / f"store-{repeat}"
        shutil.copytree(base, store)
        found["forward"].append(run("forward", folder, store)["seconds"])
        cold = run("audit", folder, store)
        found["cold"].append(cold["seconds"])
        found["memory"].append(cold["memory"])
        found["warm"].append(run("audit", folder, store)["seconds"])
    return {name: statistics.median(values) for name, values in found.items()}


def run(
    what: str, folder: Path, store: Path, subject: str = "subject.safetensors"
) -> dict[str, float]:
    shutil.copy(folder / subject, folder / "model.safetensors")
    command = [sys.executable, __file__, "--child", what]
    command += ["--folder", str(folder), "--store", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(options: argparse.Namespace) -> None:
    """One measurement in a process of its own; start-up and imports are not counted."""
    plan = AuditPlan.from_toml(
        options.folder / "unaudit.toml", {"run": {"store": str(options.store)}}
    )
    if options.child == "forward":
        begin = time.perf_counter()
        plain_forward(plan)
    else:
        from unaudit.pipeline import audit

        begin = time.perf_counter()
        audit(plan)
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "memory": memory}))


def plain_forward(plan: AuditPlan) -> None:
    """The baseline: read, decode, preprocess and run every example once, keep nothing."""
    from unaudit.loading import load_model

    assert plan.model.path is not None
    module = load_model(plan.model.path, arch=plan.model.arch).module  # type: ignore[union-attr]
    store = Store(Path(plan.run.store or "."))
    with torch.inference_mode():
        for spec in (plan.data.train, plan.data.unseen):
            assert spec is not None
            dataset = open_dataset(spec, plan.data, plan.preprocess, store)
            for batch in dataset.batches(np.arange(len(dataset)), plan.run.batch_size):
                module(batch)


def write_world(folder: Path, examples: int, options: argparse.Namespace) -> None:
    """Models with fresh weights (their cost is that of trained ones), data, ids, configuration."""
    folder.mkdir(parents=True)
    names = ["subject", "other", "original", *(f"retrained-{n}" for n in range(RETRAINED))]
    for seed, name in enumerate(names):
        network = initialize(small_resnet(), torch.Generator().manual_seed(seed))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    rng = np.random.default_rng(0)
    column = ""
    if options.data is None:
        unseen = examples // UNSEEN_SHARE
        for name, n in (("train", examples - unseen), ("unseen", unseen)):
            images = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
            np.savez(folder / f"{name}.npz", x=images, y=rng.integers(0, 10, n))
        train, unseen_path, n_train = "train.npz", "unseen.npz", examples - unseen
    else:
        column = 'input_column = "img"\nid_type = "index"\n'
        train = cut(options.data / "train.parquet", folder / "train.parquet", examples * 5 // 6)
        unseen_path = cut(options.data / "test.parquet", folder / "unseen.parquet", examples // 6)
        n_train = examples * 5 // 6
    forget = rng.choice(n_train, n_train // 50, replace=False)
    (folder / "forget.txt").write_text("\n".join(str(row) for row in np.sort(forget)))
    references = ", ".join(f'"retrained-{n}.safetensors"' for n in range(RETRAINED))
    (folder / "unaudit.toml").write_text(
        f"""\
schema_version = 1
[model]
path = "model.safetensors"
arch = "{ARCH}"
[data]
train = "{train}"
unseen = "{unseen_path}"
{column}
[request]
forget = "forget.txt"
[references]
original = "original.safetensors"
retrained = [{references}]
"""
    )


def cut(source: Path, target: Path, rows: int) -> str:
    """The first rows of a parquet file, as a file of its own."""
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(source).slice(0, rows), target, row_group_size=5000)
    return target.name


if __name__ == "__main__":
    main()
