"""Views of features that are given as arrays: no network, no forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch

from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.white_box import FEATURES, WhiteBox

Features: TypeAlias = Mapping[SplitName, npt.NDArray[np.float32]]

SIZES: Mapping[SplitName, int] = {"forget": 300, "retain": 1200, "unseen": 900}
N_CLASSES = 5
WIDTH = 12
PULL = 0.6
"""How much of its distance to the mean of its class training leaves to an example."""


class ArrayView:
    """What a white-box probe reads of features; nobody may write to the arrays."""

    device = torch.device("cpu")
    predicts_tokens = False

    def __init__(
        self,
        features: Features,
        labels: Mapping[SplitName, IntArray],
        scenario: Scenario,
        n_classes: int = N_CLASSES,
        blocks: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """
        Args:
            features: of each split.
            labels: of each split.
            scenario: stated.
            n_classes: of the network.
            blocks: activations of further layers on the forget set.
        """
        self.scenario = scenario
        self.n_classes = n_classes
        self.splits = tuple(features)
        self.layers = tuple(blocks or ())
        self._features = dict(features)
        self._labels = dict(labels)
        self._blocks = dict(blocks or {})
        for array in (*self._features.values(), *self._labels.values(), *self._blocks.values()):
            array.setflags(write=False)

    @property
    def forget_classes(self) -> tuple[int, ...]:
        return tuple(int(label) for label in np.unique(self._labels["forget"]))

    def labels(self, split: SplitName) -> IntArray:
        return self._labels[split]

    def features(self, split: SplitName, rows: IntArray | None = None) -> npt.NDArray[np.float32]:
        return self.activations(split, FEATURES, rows)

    def activations(
        self, split: SplitName, layer: str, rows: IntArray | None = None
    ) -> npt.NDArray[np.float32]:
        assert layer == FEATURES or split == "forget"
        whole = self._features[split] if layer == FEATURES else self._blocks[layer]
        return whole if rows is None else whole[rows]

    def request(
        self, split: SplitName, layers: tuple[str, ...], rows: IntArray | None = None
    ) -> None:
        assert set(layers) <= {*self.layers, FEATURES}


def view_of(
    features: Features,
    labels: Mapping[SplitName, IntArray],
    scenario: Scenario,
    n_classes: int = N_CLASSES,
    blocks: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> WhiteBox:
    """An :class:`ArrayView` for probes."""
    return cast(WhiteBox, ArrayView(features, labels, scenario, n_classes, blocks))


def without(view: WhiteBox, split: SplitName) -> WhiteBox:
    """The same features, one split not handed in."""
    kept = [name for name in view.splits if name != split]
    own = cast(ArrayView, view)
    lacking = object.__new__(ArrayView)
    lacking.__dict__ = own.__dict__ | {"splits": tuple(kept)}
    return cast(WhiteBox, lacking)


def make_labels(
    scenario: Scenario, rng: np.random.Generator, sizes: Mapping[SplitName, int] = SIZES
) -> dict[SplitName, IntArray]:
    """Class 0 is forgotten, wholly or in part, or the forget set is spread over all classes."""
    labels = {split: rng.integers(0, N_CLASSES, size) for split, size in sizes.items()}
    if scenario != "sample":
        labels["forget"][:] = 0
    if scenario == "class":
        labels["retain"] = rng.integers(1, N_CLASSES, sizes["retain"])
    return labels


class FeatureWorld:
    """Models of which it is known what they were trained on.

    A class that a model was trained on has a direction of its own, others share what is common to
    all. Training pulls the very examples that it sees toward the mean of their class. Each model
    writes its features in a basis of its own.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int = 0,
        sizes: Mapping[SplitName, int] = SIZES,
        noise: float = 0.45,
    ) -> None:
        self.scenario: Scenario = scenario
        self.rng = np.random.default_rng([seed, 11])
        self.labels = make_labels(scenario, self.rng, sizes)
        self.natural = {
            split: noise * self.rng.normal(size=(len(own), WIDTH))
            for split, own in self.labels.items()
        }

    def train(self, *trained_on: SplitName) -> WhiteBox:
        """A fresh model."""
        means = 2.0 * np.eye(N_CLASSES, WIDTH)
        if self.scenario == "class" and "forget" not in trained_on:
            means[0] = means[1:].mean(axis=0)
        basis = np.linalg.qr(self.rng.normal(size=(WIDTH, WIDTH)))[0]
        features: dict[SplitName, npt.NDArray[np.float32]] = {}
        for split, own in self.labels.items():
            around = self.natural[split] + 0.1 * self.rng.normal(size=(len(own), WIDTH))
            around *= PULL if split in trained_on else 1.0
            features[split] = ((means[own] + around) @ basis).astype(np.float32)
        first = features["forget"][:, :6].reshape(-1, 2, 3).copy()
        return view_of(features, self.labels, self.scenario, blocks={"block": first})
