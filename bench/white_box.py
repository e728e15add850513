"""What white-box probes cost, as ratios to one plain forward pass over the same data.

    python bench/white_box.py [--data DIR] [--examples 60000] [--retrained 3] [--only total]

One model (a ResNet-8 of 78k parameters, one class to be forgotten) is asked by every white-box
probe, reading and preprocessing included; what a probe needs of the retrained references (features,
where it compares) is in the cache, as after an earlier audit. Without ``--data`` the images are
random; with it they are ``train.parquet`` and ``test.parquet`` of that folder. The models are
trained for one epoch, so that critics have something to find.

Then the benches of single parts run one after the other, each against its own baseline: idi.py
(naive critics), knn.py (scikit-learn) and gradients.py (a loop over examples).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from _worlds import (
    ARCH,
    FORGET_CLASS,
    MEAN,
    STD,
    class_patterns,
    small_resnet,
    write_images,
)
from safetensors.torch import save_file

from unaudit.case import build_case
from unaudit.engine.store import Store
from unaudit.evidence import Skipped
from unaudit.forward import ForwardPass
from unaudit.measuring import probe_generator
from unaudit.plan import AuditPlan
from unaudit.plugins import configured_probes
from unaudit.training import Recipe, fit, initialize

RELEARNING = ("relearn", "relearn-fresh-head")
"""Training from the inputs; counted apart."""
PARTS = ("idi.py", "knn.py", "gradients.py")


def main() -> None:
    options = parse()
    with TemporaryDirectory() as folder:
        total(Path(folder), options)
    if options.only == "total":
        return
    for part in PARTS:
        print(f"\n{part}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(part))], check=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--retrained", type=int, default=3)
    parser.add_argument("--only", choices=["total"])
    return parser.parse_args()


def total(folder: Path, options: argparse.Namespace) -> None:
    """Every white-box probe on one model."""
    plan = AuditPlan.build(write(folder, options))
    store = Store(folder / "store")
    case = build_case(plan, store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu", record_features=True)
    views = {c.label: forward.white_view(c) for c in case.candidates}
    references = [views[c.label] for c in case.retrained]
    for view in references:
        for split in ("forget", "retain", "unseen"):
            view.outputs(split)
    plain = plain_pass(case)
    # the pass that gives the subject's logits records its features too
    begin = time.perf_counter()
    for split in ("forget", "retain", "unseen"):
        views["subject"].outputs(split)
    seconds: dict[str, float] = {"forward pass with features": time.perf_counter() - begin}
    probes = [p for p in configured_probes({})[0] if p.card.access == "white-box"]
    for probe in probes:
        name = probe.card.name
        call: Any = probe
        others = references if probe.card.comparative else [None]
        if probe.card.comparative:
            call(references[0], references[1], probe_generator(0, probe))
        begin = time.perf_counter()
        for other in others:
            given = [views["subject"], *([] if other is None else [other])]
            answer = call(*given, probe_generator(0, probe))
        seconds[name] = time.perf_counter() - begin
        if isinstance(answer, Skipped):
            seconds.pop(name)
    show(seconds, plain)


def show(seconds: Mapping[str, float], plain: float) -> None:
    print(f"{'plain forward pass':<32}{plain:>8.1f} s")
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{name:<32}{spent:>8.1f} s{spent / plain:>8.2f} passes")
    apart = sum(spent for name, spent in seconds.items() if name not in RELEARNING)
    print(f"{'all but relearning':<32}{apart:>8.1f} s{apart / plain:>8.2f} passes (target <= 15)")


def plain_pass(case: Any) -> float:
    """One pass of the subject over every split, nothing kept."""
    module = case.subject.model.module
    begin = time.perf_counter()
    with torch.no_grad():
        for split in case.splits.values():
            for batch in split.dataset.batches(split.rows, 256):
                module(batch)
    return time.perf_counter() - begin


def write(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Data, ids and models; the values of a plan."""
    if options.data is None:
        n_unseen = options.examples // 6
        sizes = {"train": options.examples - n_unseen, "unseen": n_unseen}
        for seed, (name, n) in enumerate(sizes.items()):
            rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
            drawn = rng.integers(0, 10, n)
            write_images(folder / f"{name}.npz", drawn, class_patterns(fixed), rng)
        data: dict[str, Any] = {name: str(folder / f"{name}.npz") for name in sizes}
        labels = np.load(folder / "train.npz")["y"]
        ids = np.flatnonzero(labels == FORGET_CLASS).astype(str)
    else:
        data = {
            "train": str(options.data / "train.parquet"),
            "unseen": str(options.data / "test.parquet"),
            "input_column": "img",
        }
        ids = np.empty(0, str)
    base = {"data": data, "preprocess": {"mean": list(MEAN), "std": list(STD)}}
    dataset = opened(base, folder)
    if options.data is not None:
        ids = dataset.ids[dataset.labels == FORGET_CLASS]
    (folder / "ids.txt").write_text("\n".join(ids))
    names = ["subject", "original", *(f"retrained-{n}" for n in range(1, options.retrained + 1))]
    train_models(folder, names, dataset)
    paths = {name: str(folder / f"{name}.safetensors") for name in names}
    return base | {
        "model": {"path": paths["subject"], "arch": ARCH},
        "request": {"forget": str(folder / "ids.txt")},
        "references": {
            "original": paths["original"],
            "retrained": [paths[name] for name in names[2:]],
        },
    }


def opened(base: Mapping[str, Any], folder: Path) -> Any:
    from unaudit.data import open_dataset

    plan = AuditPlan.build(base)
    assert plan.data.train is not None
    return open_dataset(plan.data.train, plan.data, plan.preprocess, Store(folder / "store"))


def train_models(folder: Path, names: list[str], dataset: Any) -> None:
    """One epoch on 10,000 examples each."""
    rows = np.arange(min(10_000, len(dataset)))
    inputs = torch.cat(list(dataset.batches(rows, 1024)))
    labels = torch.from_numpy(dataset.labels[rows])
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        network = small_resnet()
        kept = torch.arange(len(rows))
        if name.startswith("retrained"):
            kept = (labels != FORGET_CLASS).nonzero().flatten()
        recipe = Recipe(lr=0.1, epochs=1, batch=128)
        model = fit(initialize(network, generator), inputs, labels, recipe, generator, rows=kept)
        save_file(model.state_dict(), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
