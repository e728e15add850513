"""The nearest-neighbor search of MIARS against scikit-learn's brute force, side by side.

    python bench/knn.py [--examples 20000] [--features 512] [--neighbors 5] [--repeats 3]

Both search all examples among all examples in float32, in this process, alternating; medians over
the repeats. Memory is what one search of ours takes at most beyond the data, in a process of its
own (Linux only).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.neighbors import NearestNeighbors

from attacks.white_box._neighbors import nearest

Array = npt.NDArray[np.float32]
TARGET_MIB = 1024


@dataclass(frozen=True)
class Result:
    own: float
    """Seconds."""
    sklearn: float
    """Seconds."""
    memory: float
    """MiB beyond the data."""

    @property
    def ratio(self) -> float:
        """How many times faster than scikit-learn."""
        return self.sklearn / self.own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--neighbors", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    result = measure(options.examples, options.features, options.neighbors, options.repeats)
    print(f"scikit-learn brute force      {result.sklearn:>10.2f} s")
    print(f"ours                          {result.own:>10.2f} s")
    print(f"scikit-learn / ours           {result.ratio:>10.2f}   (target >= 1)")
    print(f"memory beyond the data        {result.memory:>10.0f} MiB (target <= {TARGET_MIB})")


def measure(examples: int = 20_000, features: int = 512, k: int = 5, repeats: int = 3) -> Result:
    """Time both and check that they find the same distances."""
    data = make(examples, features)
    own, other = [], []
    for _ in range(repeats):
        seconds, found = timed_own(data, k)
        own.append(seconds)
        seconds, expected = timed_sklearn(data, k)
        other.append(seconds)
        # a point is at distance 0 from itself, which float32 arithmetic does not quite see
        np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=1e-4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(peak, (examples, features, k))
    return Result(statistics.median(own), statistics.median(other), memory)


def make(examples: int, features: int) -> Array:
    """Ten clusters, as the features of ten classes would be."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((10, features))
    noise = rng.standard_normal((examples, features))
    return (centers[rng.integers(0, 10, examples)] + noise).astype(np.float32)


def timed_own(data: Array, k: int) -> tuple[float, npt.NDArray[np.float64]]:
    start = time.perf_counter()
    points = torch.from_numpy(data)
    distances, _ = nearest(points, points, k)
    return time.perf_counter() - start, distances.numpy()


def timed_sklearn(data: Array, k: int) -> tuple[float, npt.NDArray[np.float64]]:
    start = time.perf_counter()
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(data)
    distances, _ = search.kneighbors(data)
    return time.perf_counter() - start, distances


def peak(examples: int, features: int, k: int) -> float:
    """MiB that one search takes at most, beyond what the process holds before it."""
    data = make(examples, features)
    timed_own(data[:2000], k)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: man 5 proc
    before = _memory("VmRSS")
    timed_own(data, k)
    return _memory("VmHWM") - before


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
