"""Where classes lie among the features, and where an example lies among the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unaudit.evidence import FloatArray, IntArray

SHRINKAGE = 0.1
"""Part of the mean variance that is added to every direction, so that none is divided by 0."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Class means, and the coordinates in which classes are round."""

    classes: IntArray
    """(k,) labels, ascending."""
    centers: FloatArray
    """(k, d) class means, whitened."""
    whiten: FloatArray
    """(d, d)"""

    @classmethod
    def of(cls, by_class: Mapping[int, FloatArray]) -> Geometry:
        """From (n, d) features of each class; the spread is what classes have in common."""
        classes = sorted(by_class)
        means = np.stack([by_class[label].mean(axis=0) for label in classes])
        around = np.concatenate(
            [by_class[label] - mean for label, mean in zip(classes, means, strict=True)]
        )
        covariance = around.T @ around / len(around)
        variances, directions = np.linalg.eigh(covariance)
        floor = SHRINKAGE * float(np.maximum(variances, 0.0).mean())
        # all classes collapsed to points: any scale will do
        scales = np.sqrt(np.maximum(variances, 0.0) + (floor if floor > 0.0 else 1.0))
        whiten = directions / scales
        return cls(np.array(classes, dtype=np.int64), means @ whiten, whiten)

    def signals(self, features: FloatArray, labels: IntArray) -> FloatArray:
        """(n, 4): distances to the own class and to the nearest other one, the difference of their
        squares, and whether the own class is the nearest of all. Where there is one class, (n, 1):
        the distance to it.

        Args:
            features: (n, d).
            labels: (n,), each of them in ``classes``.
        """
        points = features @ self.whiten
        squares = (
            np.square(points).sum(axis=1)[:, None]
            - 2.0 * points @ self.centers.T
            + np.square(self.centers).sum(axis=1)
        )
        squares = np.maximum(squares, 0.0)
        each, own_class = np.arange(len(labels)), np.searchsorted(self.classes, labels)
        own = squares[each, own_class]
        if len(self.classes) == 1:
            return np.asarray(np.sqrt(own)[:, None])
        squares[each, own_class] = np.inf
        other = squares.min(axis=1)
        nearest = (own < other).astype(np.float64)
        return np.stack([np.sqrt(own), np.sqrt(other), own - other, nearest], axis=1)
