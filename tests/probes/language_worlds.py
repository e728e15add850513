"""A world of texts in which it is known which language model was trained on what.

Every position of every text has a prediction that all models share, over a small vocabulary; each
model adds its own noise, and lifts the true tokens of the texts that it was trained on. A topic
that a model was trained on lifts the tokens of all its texts a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax

from unaudit.evidence import FloatArray, IntArray, Scenario, SplitName
from unaudit.shadows import Shadows
from unaudit.token_outputs import TOP, TokenOutputs
from unaudit.views import BlackBox, Marks, Predictions

from .worlds import World, every_second, make_labels, make_shadows

VOCABULARY = 12
LONGEST = 20
SIZES: Mapping[SplitName, int] = {"forget": 120, "retain": 300, "unseen": 400}
SLICE = 97
"""Tokens whose logits exist at a time."""
LIFT = 1.5
"""Of the true tokens' logits, of a text that was trained on."""


@dataclass(frozen=True, eq=False)
class Likelihood(Predictions):
    """Texts' log-probabilities per token, and no more."""

    labels: IntArray
    per_token: FloatArray

    @property
    def log_confidence(self) -> FloatArray:
        return self.per_token

    @property
    def log_doubt(self) -> FloatArray:
        return np.log1p(-np.exp(np.minimum(self.per_token, -1e-12)))

    @property
    def hit_rate(self) -> FloatArray:
        raise NotImplementedError


class Texts:
    """Texts of one split, of unlike length, and what any model makes of them."""

    def __init__(self, labels: IntArray, rng: np.random.Generator, least: int = 1) -> None:
        self.labels = labels
        self.counts = rng.integers(least, LONGEST + 1, len(labels))
        self.total = int(self.counts.sum())
        self.targets = rng.integers(0, VOCABULARY, self.total)
        self.shared = rng.normal(0.0, 1.5, (self.total, VOCABULARY))
        self.shared[np.arange(self.total), self.targets] += rng.normal(1.5, 1.0, self.total)
        self.compressed = (2 * self.counts + 8 + rng.integers(0, 10, len(labels))).astype(np.int64)

    def logits(self, lift: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(tokens, vocabulary) of a new model, which lifts the tokens of each text by so much."""
        logits = self.shared + rng.normal(0.0, 0.4, self.shared.shape)
        logits[np.arange(self.total), self.targets] += np.repeat(lift, self.counts)
        return logits

    def outputs(self, logits: npt.ArrayLike) -> TokenOutputs:
        return token_outputs(logits, self.targets, self.counts, self.labels, self.compressed)

    def likelihood(self, logits: FloatArray) -> Likelihood:
        """What attacks with shadow models need of them."""
        own = log_softmax(logits, axis=1)[np.arange(self.total), self.targets]
        sums = np.add.reduceat(own, np.cumsum(self.counts) - self.counts)
        return Likelihood(self.labels, sums / self.counts)


def token_outputs(
    logits: npt.ArrayLike,
    targets: IntArray,
    counts: IntArray,
    labels: IntArray | None = None,
    compressed: IntArray | None = None,
) -> TokenOutputs:
    """What is kept of (tokens, vocabulary) logits; nobody may write to it."""
    values = np.asarray(logits, np.float64)
    log_p = log_softmax(values, axis=1)
    p = np.exp(log_p)
    mean = (p * log_p).sum(axis=1)
    spread = np.sqrt((p * (log_p - mean[:, None]) ** 2).sum(axis=1))
    top = np.zeros((len(p), TOP))
    kept = np.sort(p, axis=1)[:, ::-1][:, :TOP]
    top[:, : kept.shape[1]] = kept
    made = TokenOutputs(
        labels=np.zeros(len(counts), np.int64) if labels is None else labels,
        counts=np.asarray(counts, np.int64),
        log_p=log_p[np.arange(len(p)), targets].astype(np.float32),
        mean_log_p=mean.astype(np.float32),
        std_log_p=spread.astype(np.float32),
        greedy=values.argmax(axis=1) == targets,
        top=top.astype(np.float32),
        compressed=2 * np.asarray(counts) + 9 if compressed is None else compressed,
        logits=lambda: iter(torch.from_numpy(values).float().split(SLICE)),
    )
    for field in vars(made).values():
        if isinstance(field, np.ndarray):
            field.setflags(write=False)
    return made


def make_view(
    tokens: Mapping[SplitName, TokenOutputs],
    scenario: Scenario = "sample",
    shadows: Shadows | None = None,
) -> BlackBox:
    """A view of what a language model says; every second text of a topic is a canary."""
    labels = {split: own.labels for split, own in tokens.items()}
    return BlackBox(
        {split: partial(tokens.__getitem__, split) for split in tokens},
        scenario=scenario,
        forget_classes=tuple(int(label) for label in np.unique(labels["forget"])),
        n_classes=1 + max(int(own.max()) for own in labels.values()),
        marks=Marks({split: every_second(labels[split]) for split in tokens if split != "retain"}),
        shadows=shadows,
    )


def make_language_world(
    scenario: Scenario,
    seed: int = 0,
    retrained: int = 6,
    sizes: Mapping[SplitName, int] = SIZES,
    shadows: bool = False,
) -> World:
    """Language models of known truth."""
    rng = np.random.default_rng(seed)
    labels = make_labels(scenario, rng, sizes)
    texts = {split: Texts(own, rng) for split, own in labels.items()}

    def shadow(split: SplitName, share: npt.NDArray[np.float64]) -> Likelihood:
        return texts[split].likelihood(texts[split].logits(LIFT * share, rng))

    def train(trained_on: set[SplitName]) -> BlackBox:
        known = np.unique(np.concatenate([labels[split] for split in trained_on]))
        tokens = {}
        for split, own in labels.items():
            share = np.where(np.isin(own, known), 0.2, 0.0) + float(split in trained_on)
            tokens[split] = texts[split].outputs(texts[split].logits(LIFT * share, rng))
        return make_view(tokens, scenario, trained)

    trained = make_shadows(labels, shadow, np.random.default_rng(seed)) if shadows else None
    return World(
        scenario,
        original=train({"forget", "retain"}),
        retrained=tuple(train({"retain"}) for _ in range(retrained)),
    )
