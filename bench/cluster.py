"""What Ray costs per job, against running the same jobs one after the other in this process.

    python bench/cluster.py [--seconds 2] [--jobs 8] [--repeats 3] [--address HOST:PORT]

Two kinds of jobs of about ``--seconds`` each, one at a time on one thread: ``waiting`` ones do
nothing, so what they take longer is overhead alone; ``training`` ones train a small network, so
they also pay for what Ray's own processes take from the cores. The data of the training jobs are
shipped to the other nodes if there are any. Starting (or joining) the cluster and the first job,
which imports torch in a worker, are paid once per audit and printed apart. Overhead per job is the
median over repeats of (Ray − here) ÷ jobs, the two run in turn; a share of one minute follows,
whose target is at most 10 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unaudit.demo import LAYOUTS, RECIPE, load_digits
from unaudit.engine.jobs import Executor, InProcess, Job
from unaudit.engine.ray_cluster import RayCluster
from unaudit.training.model_job import WORK

TARGET = 0.1
"""Of one minute."""
MINUTE = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one job")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--address", help="of a cluster; without, one is started here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, RayCluster(options.address, 1) as cluster:
        begin = time.perf_counter()
        list(cluster.run([waiting(0.0)]))
        print(f"cluster up, first job done: {time.perf_counter() - begin:.1f} s, once per audit")
        epochs = epochs_in(options.seconds, Path(folder))
        print(f"{'':<10}{'here':>10}{'Ray':>10}{'overhead':>14}{'of a minute':>13}")
        for name, make in (
            ("waiting", lambda seed: waiting(options.seconds)),
            ("training", lambda seed: training(epochs, seed, Path(folder))),
        ):
            compare(name, make, cluster, options)
        print(f"target: <= {TARGET:.0%} of a minute; ms per job")


def compare(
    name: str, make: Callable[[int], Job], cluster: Executor, options: argparse.Namespace
) -> None:
    """Run the jobs in turn here and there and print a line."""
    jobs = [make(seed) for seed in range(options.jobs)]
    list(cluster.run(jobs[:1]))  # its modules are imported, its data are there
    here, there = [], []
    for _ in range(options.repeats):
        expected, seconds = timed(InProcess(), jobs)
        here.append(seconds / len(jobs))
        found, seconds = timed(cluster, jobs)
        there.append(seconds / len(jobs))
        if found != expected:
            raise AssertionError("not the same results")
    over = statistics.median(b - a for a, b in zip(here, there, strict=True))
    print(
        f"{name:<10}{1e3 * statistics.median(here):>10.1f}{1e3 * statistics.median(there):>10.1f}"
        f"{1e3 * over:>14.1f}{over / MINUTE:>13.3%}",
        flush=True,
    )


def timed(executor: Executor, jobs: list[Job]) -> tuple[dict[int, bytes], float]:
    begin = time.perf_counter()
    return dict(executor.run(jobs)), time.perf_counter() - begin


def waiting(seconds: float) -> Job:
    return Job("unaudit.engine.worker:echo", {"sleep": seconds})


def training(epochs: int, seed: int, folder: Path) -> Job:
    """The demo's network on its digits."""
    layout = LAYOUTS["sample"]
    places = {name: str(folder / f"{name}.npy") for name in ("inputs", "labels", "forget")}
    if not Path(places["inputs"]).exists():
        digits = load_digits(layout, seed=0)
        np.save(places["inputs"], digits.inputs.numpy())
        np.save(places["labels"], digits.labels.numpy())
        np.save(places["forget"], ~np.isin(np.arange(len(digits.labels)), digits.retain))
    inputs = {
        "method": "train",
        "parameters": {},
        "arch": f"unaudit:mlp?widths={'-'.join(map(str, layout.widths))}",
        "trusted": False,
        "recipe": dataclasses.asdict(dataclasses.replace(RECIPE, epochs=epochs)),
        "augment": "none",
        "scenario": "sample",
        "n_classes": 10,
        "head": None,
        "device": "cpu",
        "seed": seed,
    }
    return Job(WORK, inputs, places, f"training {seed}")


def epochs_in(seconds: float, folder: Path) -> int:
    """How many take about so long here."""
    training(1, 0, folder).run()
    begin = time.perf_counter()
    training(10, 0, folder).run()
    return max(round(10 * seconds / (time.perf_counter() - begin)), 1)


if __name__ == "__main__":
    main()
