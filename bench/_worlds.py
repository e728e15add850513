"""What several benches measure on: a small residual network and images of ten classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from unaudit.evidence import IntArray
from unaudit.loading.networks import resnet

ARCH = "unaudit:resnet?depth=8&width=16&num_classes=10&in_channels=3"
"""The spec of :func:`small_resnet`."""
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
"""Of CIFAR-10's channels."""
FORGET_CLASS = 4


def small_resnet() -> nn.Module:
    """78k parameters, 32 × 32 × 3 inputs, ten classes."""
    return resnet(depth=8, width=16, num_classes=10, in_channels=3)


def class_patterns(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(10, 3, 32, 32): a coarse pattern per class."""
    return rng.normal(0, 40, (10, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)


def write_images(
    path: Path,
    labels: IntArray,
    patterns: npt.NDArray[np.float64],
    rng: np.random.Generator,
    *,
    shifted: bool = False,
) -> None:
    """An npz of (n, 3, 32, 32) uint8 images, each the pattern of its class under noise.

    Args:
        path: the file.
        labels: (n,) classes.
        patterns: of :func:`class_patterns`.
        rng: draws noise and shifts.
        shifted: whether each pattern is rolled to a place of its own, so that it must be learned.
    """
    images = np.empty((len(labels), *patterns.shape[1:]), dtype=np.uint8)
    for row, label in enumerate(labels):
        pattern = patterns[label]
        if shifted:
            pattern = np.roll(pattern, rng.integers(0, 32, 2), axis=(1, 2))
        images[row] = (128 + pattern + rng.normal(0, 60, pattern.shape)).clip(0, 255)
    np.savez(path, x=images, y=labels)
