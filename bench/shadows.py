"""What shadow models cost.

    python bench/shadows.py [--shadows 64] [--epochs 10] [--repeats 3] [--threads N]

Two tables, both of whole jobs on the embedded digits: trained on a mask by the demo's recipe, apart
from the number of epochs, and asked about the pool.

*Stacks*: jobs one after the other (the loop) against what an audit does by itself (automatic: a
stack where the network is fully connected and small, else the loop). Ratios are medians over pairs
of runs that followed each other; of the demo's network, on two idle cores, at least 4 is wanted,
and never less than 1 but for noise.

*Workers*: jobs that do not stack, in one process and in two. Fresh processes first read their
libraries, which hardly counts where a model takes a minute; so the ratio is also told of the time
that more epochs take, and of that at least 1.8 is wanted on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from _digits import DEMO, World
from torch import nn

from unaudit.engine.jobs import Executor, InProcess, Job
from unaudit.engine.local import LocalProcesses
from unaudit.training.together import Together

WIDE = "unaudit:mlp?widths=64-512-512-10"
NORMALIZED, CONVOLUTIONAL = "py:bench.shadows:normalized", "py:bench.shadows:convolutional"
RESIDUAL = "unaudit:resnet?depth=8&width=4&num_classes=10&in_channels=1"


def normalized() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.chdir(Path(__file__).parent.parent)  # where networks of this file are found
    with tempfile.TemporaryDirectory(prefix="unaudit-bench-") as folder:
        world = World(Path(folder))
        time_stacks(world, options)
        time_workers(world, options)


def time_stacks(world: World, options: argparse.Namespace) -> None:
    """The loop against the automatic choice, by network."""
    for executor in (InProcess(), Together(InProcess())):  # imports take their time once
        spent(executor, world.jobs(world.design(3), epochs=1))
    print(f"{options.threads} threads, {options.epochs} epochs; seconds of all jobs")
    print(f"{'':<22}{'shadows':>8}{'loop':>9}{'automatic':>11}{'ratio':>8}", flush=True)
    for name, arch, share in (
        ("demo", DEMO, 1),
        ("wide", WIDE, 8),
        ("batch normalization", NORMALIZED, 8),
        ("convolutional", CONVOLUTIONAL, 16),
        ("residual", RESIDUAL, 32),
    ):
        models = max(options.shadows // share, 3)
        jobs = world.jobs(world.design(models), arch, options.epochs)
        pairs = [
            (spent(InProcess(), jobs), spent(Together(InProcess()), jobs))
            for _ in range(options.repeats)
        ]
        loop, automatic = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:<22}{models:>8}{loop:>9.2f}{automatic:>11.2f}{ratio:>8.2f}", flush=True)


def time_workers(world: World, options: argparse.Namespace) -> None:
    """One process against two."""
    seconds = {
        (workers, epochs): spent(
            LocalProcesses.for_machine(workers), world.jobs(world.design(4), RESIDUAL, epochs)
        )
        for epochs in (1, 1 + 2 * options.epochs)
        for workers in (1, 2)
    }
    short, long = sorted({epochs for _, epochs in seconds})
    print(f"\n4 residual networks, {long} epochs; seconds of all jobs")
    print(
        f"{'one worker':<22}{seconds[1, long]:>8.2f}\n{'two workers':<22}{seconds[2, long]:>8.2f}"
    )
    more = [seconds[workers, long] - seconds[workers, short] for workers in (1, 2)]
    print(f"{'ratio':<22}{seconds[1, long] / seconds[2, long]:>8.2f}")
    print(f"{'… without start':<22}{more[0] / more[1]:>8.2f}", flush=True)


def spent(executor: Executor, jobs: Sequence[Job]) -> float:
    begin = time.perf_counter()
    for _ in executor.run(jobs):
        pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
