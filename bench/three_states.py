"""What the three-state design of U-LiRA gives for a fraction of the cost.

    python bench/three_states.py [--shadows 64] [--forget-sets 8] [--subjects 4] [--repeats 3]

Bases that each unlearn once, a random half of what they hold of the pool, against the design of
Hayes et al. 2024 (as in IDI 2024, appendix C.1), in which each base unlearns many random forget
sets, one after the other from the same weights. Subjects of the demo unlearn likewise, and both
designs score their forget and unseen examples by the likelihood ratio of "erased" against "never
in", with one variance for all examples. Each design is made ``--repeats`` times from other bases.

Rank correlations are means over subjects and pairs. How far a design agrees with itself, made anew,
is how far any other can agree with it, so they are also told as a share of that: the correlation
corrected for attenuation (Spearman 1904).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from _digits import LAYOUT, World
from scipy.stats import spearmanr
from torch import nn

from attacks.black_box._likelihood import Mask, likelihood_ratios
from unaudit.demo import N_CLASSES, RECIPE
from unaudit.engine.jobs import InProcess
from unaudit.engine.threads import threads_for
from unaudit.loading.networks import mlp
from unaudit.shadows.design import Design
from unaudit.shadows.examples import Examples
from unaudit.shadows.job import ask
from unaudit.shadows.train import train_shadows
from unaudit.stats import auc
from unaudit.training.many import fit_many
from unaudit.training.together import Together
from unaudit.unlearners import Task, load_unlearners

UNLEARNER, SETTINGS = "finetune", {"lr": 0.01, "epochs": 10}
"""How the demo's subject unlearned."""
Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--forget-sets", type=int, default=8)
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unaudit-bench-") as folder:
        compare_designs(World(Path(folder)), options)


def compare_designs(world: World, options: argparse.Namespace) -> None:
    """Score the same subjects by means of both designs, each made anew several times."""
    # one pool, so that the same examples are scored; bases and forget sets differ
    pool = world.design(options.shadows, seed=1, unlearning=True)
    own = subjects(world, pool, options.subjects)
    forget, unseen = pool.columns["forget"], pool.columns["unseen"]
    asked = np.r_[forget, unseen]
    print(f"{'':<18}{'bases':>6}{'unlearned':>11}{'seconds':>9}   AUC of each subject")
    scores: dict[str, list[list[Array]]] = {"three states": [], "many forget sets": []}
    areas: dict[str, list[Array]] = {name: [] for name in scores}
    for repeat in range(options.repeats):
        for name, made in scores.items():
            begin = time.perf_counter()
            seed = 2 * repeat + 1 + (name != "three states")
            design = world.design(options.shadows, seed=seed, unlearning=True)
            design = dataclasses.replace(design, rows=pool.rows, core=pool.core)
            if name == "three states":
                arrays, sets = three_states(world, design), 1
            else:
                sets = options.forget_sets
                arrays = many_forget_sets(world, design, sets, seed)
            made.append(ratios(own, *arrays))
            areas[name].append(np.array([auc(one[forget], one[unseen]) for one in made[-1]]))
            seconds = time.perf_counter() - begin
            shown = f"{name:<18}{options.shadows:>6}{options.shadows * sets:>11}{seconds:>9.1f}   "
            print(shown + " ".join(f"{area:.3f}" for area in areas[name][-1]), flush=True)

    cheap, costly = scores.values()
    difference = np.mean(areas["three states"]) - np.mean(areas["many forget sets"])
    print(f"mean difference of the AUC {difference:+.3f}")
    across = agreement(((a, b) for a in cheap for b in costly), asked)
    print(f"rank correlation of the designs {across:.3f}", flush=True)
    if options.repeats > 1:
        own_cheap, own_costly = (
            agreement(itertools.combinations(made, 2), asked) for made in (cheap, costly)
        )
        print(f"  of three states with itself, made anew {own_cheap:.3f}")
        print(f"  of many forget sets with itself, made anew {own_costly:.3f}")
        possible = np.sqrt(own_cheap * own_costly)
        print(f"  across, of what noise leaves possible {across / possible:.2f}")


def agreement(pairs: Iterable[tuple[list[Array], list[Array]]], asked: IntArray) -> float:
    """Mean over pairs and subjects of Spearman's rank correlation of scores."""
    return float(
        np.mean(
            [
                spearmanr(a[asked], b[asked]).statistic
                for one, other in pairs
                for a, b in zip(one, other, strict=True)
            ]
        )
    )


def three_states(world: World, design: Design) -> tuple[npt.NDArray[np.float32], Mask, Mask]:
    """(bases, 1, k) confidences after unlearning; (bases, k) what was erased, and what was in."""
    jobs = world.jobs(design, unlearner=UNLEARNER, parameters=SETTINGS)
    shadows = train_shadows(design, jobs, Together(InProcess()), world.store)
    said = np.concatenate([part.unlearned for part in shadows.splits.values()], axis=2)
    return said, design.erased, design.member


def ratios(
    subjects: Sequence[Array], said: npt.NDArray[np.float32], erased: Mask, member: Mask
) -> list[Array]:
    """(k,) log-likelihood ratios, erased against never in, of each subject."""
    return [
        likelihood_ratios(own[None], said, erased, ~member, variance="pooled") for own in subjects
    ]


def many_forget_sets(
    world: World, design: Design, sets: int, seed: int
) -> tuple[npt.NDArray[np.float32], Mask, Mask]:
    """(bases · sets, 1, k) confidences after unlearning; (bases · sets, k) what was erased, and
    what was in."""
    jobs = world.jobs(design, unlearner=UNLEARNER, parameters=SETTINGS)
    examples = Examples.opened(jobs[0].places)
    method = load_unlearners().get(UNLEARNER)(**SETTINGS)
    bases, generators = trained(examples, [examples.members(n) for n in range(design.models)], seed)
    said, erased = [], []
    rng = np.random.default_rng([3, seed])
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
