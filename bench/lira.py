"""LiRA scores from shadow scores: ours beside the ways in which others compute them, one process.

    python bench/lira.py [--examples 20000] [--shadows 64] [--queries 1] [--repeats 5] [--big]

Written anew after what the projects do, for the same arrays; all in median mode with a variance per
example, and checked to agree:

published    Carlini et al.'s: arms gathered example by example, then numpy over all of them
by example   TF-Privacy's: median and deviation of each example's arms in turn, then one density
in a loop    SACRO's: everything example by example, densities included

``--big`` streams 1,000,000 examples × 128 shadow models from a file of 512 MB in a process of its
own and tells the largest resident memory, mapped pages included (Linux only).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from attacks.black_box._likelihood import EPSILON, likelihood_ratios

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
TARGET_LOOP = 20.0
TARGET_MIB = 2048
BIG = (1_000_000, 128)
STEP = 50_000


@dataclass(frozen=True)
class World:
    """The same scores in the layouts that each way wants."""

    scores: npt.NDArray[np.float32]
    """(m, q, n)."""
    keep: Mask
    """(m, n)."""
    own: Floats
    """(q, n)."""
    by_query_last: Floats
    """(m, n, q) of the others."""

    @property
    def target(self) -> Floats:
        """(n, q)."""
        return np.ascontiguousarray(self.own.T)


@dataclass(frozen=True)
class Peak:
    seconds: float
    mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--big", action="store_true")
    options = parser.parse_args()
    seconds = measure(options.examples, options.shadows, options.queries, options.repeats)
    ours = seconds.pop("ours")
    print(f"{'ours':<14}{ours * 1000:>10.1f} ms")
    targets = {"published": 1.0, "by example": TARGET_LOOP, "in a loop": TARGET_LOOP}
    for name, own in seconds.items():
        ratio = f"{own / ours:>8.1f} × ours   (target >= {targets[name]:g})"
        print(f"{name:<14}{own * 1000:>10.1f} ms {ratio}")
    if options.big:
        found = stream(*BIG)
        print(f"{BIG[0]:,} examples × {BIG[1]} shadows: {found.seconds:.1f} s")
        print(f"largest resident memory {found.mib:.0f} MiB   (target <= {TARGET_MIB})")


def measure(examples: int, shadows: int, queries: int, repeats: int) -> dict[str, float]:
    """Median seconds of every way, taken in turns; they must agree."""
    world = make(examples, shadows, queries)
    ways: dict[str, Callable[[World], Floats]] = {
        "ours": ours,
        "published": published,
        "by example": by_example,
        "in a loop": in_a_loop,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        found = {}
        for name, way in ways.items():
            if repeat >= 2 and name in ("by example", "in a loop"):
                continue  # seconds each, so that two of them are enough
            start = time.perf_counter()
            found[name] = way(world)
            taken[name].append(time.perf_counter() - start)
        for name, scores in found.items():
            np.testing.assert_allclose(scores, found["ours"], rtol=1e-8, atol=1e-8, err_msg=name)
    return {name: statistics.median(times) for name, times in taken.items()}


def make(examples: int, shadows: int, queries: int) -> World:
    rng = np.random.default_rng(0)
    half = np.tile(np.arange(shadows) < shadows // 2, (examples, 1))
    keep = np.ascontiguousarray(rng.permuted(half, axis=1).T)
    worth = rng.normal(3.0, 2.0, examples)
    scores = rng.standard_normal((shadows, queries, examples), np.float32)
    scores += (worth + 0.8 * keep[:, None]).astype(np.float32)
    own = worth + rng.normal(0.4, 1.0, (queries, examples))
    last = np.ascontiguousarray(np.moveaxis(scores, 1, 2), dtype=np.float64)
    return World(scores, keep, own, last)


def ours(world: World) -> Floats:
    return likelihood_ratios(
        world.own, world.scores, world.keep, ~world.keep, variance="per-example"
    )


def published(world: World) -> Floats:
    scores, keep = world.by_query_last, world.keep
    trained = [scores[keep[:, j], j] for j in range(scores.shape[1])]
    never = [scores[~keep[:, j], j] for j in range(scores.shape[1])]
    densities = []
    for arm in (trained, never):
        smallest = min(len(one) for one in arm)
        whole = np.array([one[:smallest] for one in arm])
        densities.append(
            norm.logpdf(world.target, np.median(whole, axis=1), np.std(whole, axis=1) + EPSILON)
        )
    return np.asarray((densities[0] - densities[1]).mean(axis=1))


def by_example(world: World) -> Floats:
    scores, keep = world.by_query_last, world.keep
    densities = []
    for mask in (keep, ~keep):
        arm = [scores[mask[:, j], j] for j in range(scores.shape[1])]
        center = np.array([np.nanmedian(one, axis=0) for one in arm])
        spread = np.array([np.nanstd(one, axis=0) for one in arm])
        densities.append(norm.logpdf(world.target, center, spread + EPSILON))
    return np.asarray((densities[0] - densities[1]).mean(axis=1))


def in_a_loop(world: World) -> Floats:
    scores, keep, target = world.by_query_last, world.keep, world.target
    found = []
    for j in range(scores.shape[1]):
        trained, never = scores[keep[:, j], j], scores[~keep[:, j], j]
        one = norm.logpdf(target[j], np.median(trained, axis=0), np.std(trained, axis=0) + EPSILON)
        other = norm.logpdf(target[j], np.median(never, axis=0), np.std(never, axis=0) + EPSILON)
        found.append(np.mean(one - other))
    return np.array(found)


def stream(examples: int, shadows: int) -> Peak:
    """Score files that are written a part at a time, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        scores = np.lib.format.open_memmap(
            Path(folder) / "scores.npy", mode="w+", dtype=np.float32, shape=(shadows, 1, examples)
        )
        keep = np.lib.format.open_memmap(
            Path(folder) / "keep.npy", mode="w+", dtype=np.bool_, shape=(shadows, examples)
        )
        for start in range(0, examples, STEP):
            at = slice(start, min(start + STEP, examples))
            some = (shadows, at.stop - at.start)
            keep[:, at] = rng.random(some, np.float32) < 0.5
            scores[:, 0, at] = rng.standard_normal(some, np.float32) + keep[:, at]
        scores.flush()
        keep.flush()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(streamed, (folder,))


def streamed(folder: str) -> Peak:
    """What scoring the files in a folder takes, in this process."""
    scores = np.load(Path(folder) / "scores.npy", mmap_mode="r")
    keep = np.load(Path(folder) / "keep.npy", mmap_mode="r")
    own = np.zeros((1, scores.shape[2]))
    start = time.perf_counter()
    found = likelihood_ratios(own, scores, keep, ~keep)
    seconds = time.perf_counter() - start
    assert np.isfinite(found).all()
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return Peak(seconds, peak / 1024)


if __name__ == "__main__":
    main()
