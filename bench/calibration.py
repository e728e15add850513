"""What calibration costs: two worker processes against one, and a second check against the first.

    python bench/calibration.py [--models 8] [--epochs 10] [--width 16] [--repeats 3]

A small residual network is the original of the digits; ``complete`` trains ``--models`` retrained
references and two calibrators by the recipe into an empty store, with one worker and with two, in
turn: the ratio is the median over pairs. A worker has one thread. Then ``audit`` runs twice on one
store: the second time everything is recalled. Times are wall time, starting processes included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from unaudit.case import build_case
from unaudit.demo import LAYOUTS, PIXEL_MAX, Digits, load_digits
from unaudit.engine.store import Store
from unaudit.loading.networks import resnet
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.references import complete
from unaudit.training import Recipe, fit, initialize

SIDE = 8
"""Pixels of a digit."""
TARGET_WORKERS, TARGET_SECOND = 1.7, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        values = write_world(options, folder)
        ratios = []
        for number in range(options.repeats):
            seconds = []
            for workers in (1, 2):
                store = folder / f"store-{number}-{workers}"
                plan = plan_of(values, store, workers)
                begin = time.perf_counter()
                complete(build_case(plan, Store(store)), plan, Store(store))
                seconds.append(time.perf_counter() - begin)
            ratios.append(seconds[0] / seconds[1])
            print(f"one worker {seconds[0]:.1f} s, two {seconds[1]:.1f} s", flush=True)
        ratio = statistics.median(ratios)
        print(f"two workers over one: {ratio:.2f} (target {TARGET_WORKERS} on two idle cores)")
        plan = plan_of(values, folder / "checks", 2)
        spent = []
        for _ in range(2):
            begin = time.perf_counter()
            audit(plan)
            spent.append(time.perf_counter() - begin)
        share = spent[1] / spent[0]
        print(
            f"check {spent[0]:.1f} s, again {spent[1]:.2f} s: {share:.1%} "
            f"(target {TARGET_SECOND:.0%})"
        )


def write_world(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Files of an audit whose references are still to be made, and its plan."""
    layout = LAYOUTS["sample"]
    digits = load_digits(layout, seed=0)
    inputs = digits.inputs.unflatten(1, (1, SIDE, SIDE))
    recipe = {"lr": 0.1, "epochs": options.epochs, "batch": 64, "augment": "none"}
    for seed, name in enumerate(("original", "subject")):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.from_numpy(digits.retain if seed else digits.train)
        model = initialize(resnet(8, options.width, 10, 1), generator)
        training = Recipe(lr=0.1, epochs=options.epochs, batch=64)
        fit(model, inputs, digits.labels, training, generator, rows=rows)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    write_data(digits, folder)
    arch = f"unaudit:resnet?depth=8&width={options.width}&num_classes=10&in_channels=1"
    return {
        "model": {"path": str(folder / "subject.safetensors"), "arch": arch},
        "data": {x: str(folder / f"{x}.npz") for x in ("train", "unseen")},
        "preprocess": {"scale": float(PIXEL_MAX)},
        "request": {"forget": str(folder / "forget.txt")},
        "references": {"original": str(folder / "original.safetensors")},
        "recipe": recipe,
        "calibration": {
            "retrained": options.models,
            "unlearners": ["finetune", "head-distillation"],
        },
    }


def write_data(digits: Digits, folder: Path) -> None:
    images = (digits.inputs * PIXEL_MAX).round().to(torch.uint8).numpy().reshape(-1, 1, SIDE, SIDE)
    for name, rows in (("train", digits.train), ("unseen", digits.unseen)):
        np.savez(folder / f"{name}.npz", x=images[rows], y=digits.labels[rows].numpy())
    positions = np.searchsorted(digits.train, np.sort(digits.forget))
    (folder / "forget.txt").write_text("\n".join(map(str, positions)) + "\n", encoding="utf-8")


def plan_of(values: dict[str, Any], store: Path, workers: int) -> AuditPlan:
    calibration = {**values["calibration"], "workers": workers}
    return AuditPlan.build({**values, "calibration": calibration, "run": {"store": str(store)}})


if __name__ == "__main__":
    main()
