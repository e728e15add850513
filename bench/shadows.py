"""What shadow models cost, and what the three-state design of U-LiRA gives for a fraction of it.

    python bench/shadows.py [--shadows 64] [--epochs 10] [--repeats 3] [--threads N]
    python bench/shadows.py --compare-designs [--shadows 64] [--forget-sets 8] [--subjects 4]

Without ``--compare-designs``, two tables, both of whole jobs on the embedded digits: trained on a
mask by the demo's recipe, apart from the number of epochs, and asked about the pool.

*Stacks*: jobs one after the other (the loop) against what an audit does by itself (automatic: a
stack where the network is fully connected and small, else the loop). Ratios are medians over pairs
of runs that followed each other; of the demo's network, on two idle cores, at least 4 is wanted,
and never less than 1 but for noise.

*Workers*: jobs that do not stack, in one process and in two. Fresh processes first read their
libraries, which hardly counts where a model takes a minute; so the ratio is also told of the time
that more epochs take, and of that at least 1.8 is wanted on two idle cores.

With it: bases that each unlearn once, a random half of what they hold of the pool, against the
design of Hayes et al. 2024 (as in IDI 2024, appendix C.1), in which each base unlearns many random
forget sets, one after the other from the same weights. Subjects of the demo unlearn likewise, and
both designs score their forget and unseen examples by the likelihood ratio of "erased" against
"never in", with one variance for all examples. Rank correlations are means over subjects.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn

from attacks.black_box._likelihood import Mask, likelihood_ratios
from unaudit.demo import LAYOUTS, N_CLASSES, RECIPE, load_digits
from unaudit.engine.jobs import Executor, InProcess, Job
from unaudit.engine.local import LocalProcesses
from unaudit.engine.store import Store
from unaudit.engine.threads import threads_for
from unaudit.loading.networks import mlp
from unaudit.shadows.design import Design, make_design
from unaudit.shadows.examples import Examples
from unaudit.shadows.job import ask
from unaudit.shadows.train import shadow_jobs, train_shadows
from unaudit.stats import auc
from unaudit.training.many import fit_many
from unaudit.training.together import Together
from unaudit.unlearners import Task, load_unlearners

SIDE = 8
"""Pixels of a digit."""
LAYOUT = LAYOUTS["sample"]
DEMO = "unaudit:mlp?widths=" + "-".join(map(str, LAYOUT.widths))
WIDE = "unaudit:mlp?widths=64-512-512-10"
NORMALIZED, CONVOLUTIONAL = "py:bench.shadows:normalized", "py:bench.shadows:convolutional"
RESIDUAL = "unaudit:resnet?depth=8&width=4&num_classes=10&in_channels=1"
UNLEARNER, SETTINGS = "finetune", {"lr": 0.01, "epochs": 10}
"""How the demo's subject unlearned."""
Array = npt.NDArray[np.float64]


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


class World:
    """The demo's digits as images, laid out as jobs read them."""

    def __init__(self, folder: Path) -> None:
        digits = load_digits(LAYOUT, seed=0)
        self.store = Store(folder / "store")
        self.places = {}
        images = digits.inputs.unflatten(1, (1, SIDE, SIDE)).numpy()
        for prefix, at in (("", digits.train), ("unseen_", digits.unseen)):
            for what, array in (("inputs", images), ("labels", digits.labels.numpy())):
                self.places[prefix + what] = str(folder / f"{prefix}{what}.npy")
                np.save(self.places[prefix + what], array[at])
        self.rows = {
            "forget": np.searchsorted(digits.train, digits.forget),
            "retain": np.searchsorted(digits.train, digits.retain),
            "unseen": np.arange(len(digits.unseen)),
        }
        self.labels = {name: digits.labels[getattr(digits, name)].numpy() for name in self.rows}

    def design(self, models: int, *, seed: int = 0, unlearning: bool = False) -> Design:
        return make_design(self.labels, models, seed, scenario="sample", unlearning=unlearning)

    def jobs(
        self, design: Design, arch: str = DEMO, epochs: int | None = None, **more: Any
    ) -> list[Job]:
        recipe = RECIPE if epochs is None else dataclasses.replace(RECIPE, epochs=epochs)
        given = {
            "arch": arch,
            "trusted": True,
            "recipe": dataclasses.asdict(recipe),
            "augment": "none",
            "seed": 0,
            "n_classes": N_CLASSES,
            "scenario": "sample",
            "head": None,
            "device": "cpu",
            "data": "digits",
        }
        sizes = tuple(len(np.load(self.places[f"{prefix}labels"])) for prefix in ("", "unseen_"))
        shape = (1, SIDE, SIDE)
        jobs = shadow_jobs(
            design, self.rows, self.store, shape=shape, sizes=sizes, **{**given, **more}
        )
        return [dataclasses.replace(job, places={**self.places, **job.places}) for job in jobs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compare-designs", action="store_true")
    parser.add_argument("--forget-sets", type=int, default=8)
    parser.add_argument("--subjects", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.chdir(Path(__file__).parent.parent)  # where networks of this file are found
    with tempfile.TemporaryDirectory(prefix="unaudit-bench-") as folder:
        world = World(Path(folder))
        if options.compare_designs:
            compare_designs(world, options)
        else:
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


def compare_designs(world: World, options: argparse.Namespace) -> None:
    """Score the same subjects by means of both designs."""
    begin = time.perf_counter()
    cheap = world.design(options.shadows, seed=1, unlearning=True)
    jobs = world.jobs(cheap, unlearner=UNLEARNER, parameters=SETTINGS)
    shadows = train_shadows(cheap, jobs, Together(InProcess()), world.store)
    said = np.concatenate([part.unlearned for part in shadows.splits.values()], axis=2)
    own = subjects(world, cheap, options.subjects)
    scores = [ratios(own, said, cheap.erased, cheap.member)]
    seconds = [time.perf_counter() - begin]
    begin = time.perf_counter()
    # the same pool, so that the same examples are scored; bases and forget sets of their own
    other = world.design(options.shadows, seed=2, unlearning=True)
    costly = dataclasses.replace(other, rows=cheap.rows, core=cheap.core)
    arrays = many_forget_sets(world, costly, options.forget_sets)
    scores.append(ratios(own, *arrays))
    seconds.append(time.perf_counter() - begin)
    first = np.arange(len(arrays[0])) < len(arrays[0]) // 2
    scores += [ratios(own, *(array[some] for array in arrays)) for some in (first, ~first)]

    forget, unseen = cheap.columns["forget"], cheap.columns["unseen"]
    areas = np.array([[auc(one[forget], one[unseen]) for one in each] for each in scores])
    print(f"{'':<20}{'bases':>6}{'unlearned':>11}{'seconds':>9}   AUC of each subject")
    for row, (name, sets) in enumerate(
        (("three states", 1), ("many forget sets", options.forget_sets))
    ):
        shown = f"{name:<20}{options.shadows:>6}{options.shadows * sets:>11}{seconds[row]:>9.1f}   "
        print(shown + " ".join(f"{area:.3f}" for area in areas[row]))
    asked = np.r_[forget, unseen]

    def agreement(one: int, two: int) -> float:
        pairs = zip(scores[one], scores[two], strict=True)
        return float(np.mean([spearmanr(a[asked], b[asked])[0] for a, b in pairs]))

    print(f"mean difference of the AUC {np.mean(areas[0] - areas[1]):+.3f}")
    print(
        f"rank correlation {agreement(0, 1):.3f}; of many forget sets by themselves, one half of "
    )
    print(f"the bases against the other, {agreement(2, 3):.3f}")


def ratios(
    subjects: Sequence[Array], said: npt.NDArray[np.float32], erased: Mask, member: Mask
) -> list[Array]:
    """(k,) log-likelihood ratios, erased against never in, of each subject."""
    return [
        likelihood_ratios(own[None], said, erased, ~member, variance="pooled") for own in subjects
    ]


def many_forget_sets(
    world: World, design: Design, sets: int
) -> tuple[npt.NDArray[np.float32], Mask, Mask]:
    """(bases · sets, 1, k) confidences after unlearning; (bases · sets, k) what was erased, and
    what was in."""
    jobs = world.jobs(design, unlearner=UNLEARNER, parameters=SETTINGS)
    examples = Examples.opened(jobs[0].places)
    method = load_unlearners().get(UNLEARNER)(**SETTINGS)
    bases, generators = trained(examples, [examples.members(n) for n in range(design.models)], 2)
    said, erased = [], []
    rng = np.random.default_rng(3)
    for number, (base, generator) in enumerate(zip(bases, generators, strict=True)):
        members = examples.members(number)
        own = examples.take(members, torch.device("cpu"))
        for _ in range(sets):
            held = np.flatnonzero(design.member[number])
            gone = np.zeros(design.member.shape[1], dtype=np.bool_)
            gone[rng.choice(held, len(world.rows["forget"]), replace=False)] = True
            forget = torch.isin(members, examples.pool[torch.from_numpy(gone)])
            with threads_for(0):
                task = Task(base, *own, forget, N_CLASSES, "sample", RECIPE)
                said.append(ask(method(task, generator), examples, ("plain",), own[0].device))
            erased.append(gone)
    return np.array(said), np.array(erased), np.repeat(design.member, sets, axis=0)


def subjects(world: World, design: Design, count: int) -> list[Array]:
    """(k,) confidence of the demo's subject in the pool, for several seeds."""
    examples = Examples.opened(world.jobs(design)[0].places)
    everything = torch.arange(len(examples.train))
    originals, generators = trained(examples, [everything] * count, 1000)
    own = examples.take(everything, torch.device("cpu"))
    forget = torch.isin(everything, torch.from_numpy(world.rows["forget"]))
    method = load_unlearners().get(UNLEARNER)(**SETTINGS)
    found = []
    for original, generator in zip(originals, generators, strict=True):
        with threads_for(0):
            task = Task(original, *own, forget, N_CLASSES, "sample", RECIPE)
            said = ask(method(task, generator), examples, ("plain",), own[0].device)
        found.append(said[0].astype(np.float64))
    return found


def trained(
    examples: Examples, rows: Sequence[torch.Tensor], seed: int
) -> tuple[list[nn.Module], list[torch.Generator]]:
    """Networks of the demo by its recipe."""
    generators = [torch.Generator().manual_seed(1_000_003 * seed + n) for n in range(len(rows))]
    unseen = 0 if examples.unseen is None else len(examples.unseen)
    everything = torch.arange(len(examples.train) + unseen)
    data = examples.take(everything, torch.device("cpu"))
    models, _ = fit_many(lambda: mlp(LAYOUT.widths), *data, rows, RECIPE, generators, way="stacked")
    return models, generators


if __name__ == "__main__":
    main()
