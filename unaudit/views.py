"""What a probe may see of one model: the threat model as a type.

:class:`BlackBox` shows the outputs on each split and nothing else. Every quantity that several
probes derive from the logits is computed here once, in chunks, so that memory does not grow with
the number of classes times the number of examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, IntArray, Scenario, SplitName
from unaudit.shadows import Shadows

if TYPE_CHECKING:
    from unaudit.token_outputs import TokenOutputs

CHUNK_ELEMENTS = 1 << 22
"""Logits turned to float64 at a time: 32 MiB."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What the request says of the examples besides which are to be forgotten."""

    canaries: Mapping[SplitName, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """(n,) bool by split: planted canaries of forget, held-out ones of unseen. A split without any
    is absent."""
    swapped: tuple[int, int] | None = None
    """The classes between which the training data swaps labels, where the request is to correct
    that; None where it is to erase. Labels of forget are then the wrong ones."""


P = TypeVar("P", bound="Predictions")


class Predictions(ABC):
    """How right and how sure one model is of each example of one split, in the split's order.

    All that classifiers and language models have in common.
    """

    labels: IntArray
    """(n,) int64; zeros where the examples have none."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def hit_rate(self) -> FloatArray:
        """(n,) share of an example's predictions that are right: 0 or 1 of a classifier, the share
        of tokens that come first of a language model."""

    @property
    @abstractmethod
    def log_confidence(self) -> FloatArray:
        """(n,) log-probability of the truth, at most 0: of a class, or per token of a text; minus
        the loss in nats."""

    @property
    @abstractmethod
    def log_doubt(self) -> FloatArray:
        """(n,) log(1 − exp(log_confidence)), finite at a confidence of 1."""

    @cached_property
    def logit_confidence(self) -> FloatArray:
        """(n,) log p_y − log(1 − p_y), the logit-scaled confidence (Carlini et al. 2022, §IV-C)."""
        return self.log_confidence - self.log_doubt


@dataclass(frozen=True, eq=False)
class Outputs(Predictions):
    """The logits of one classifier on one split."""

    logits: npt.NDArray[np.float32]
    """(n, n_classes) float32, unnormalized; may be memory-mapped."""
    labels: IntArray
    """(n,) int64."""

    @property
    def n_classes(self) -> int:
        return int(self.logits.shape[1])

    @cached_property
    def predicted(self) -> IntArray:
        """(n,) int64: the class with the largest logit."""
        return self._by_chunk(lambda logits, _: logits.argmax(axis=1)).astype(np.int64)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: prediction equals label."""
        return np.asarray(self.predicted == self.labels)

    @property
    def hit_rate(self) -> FloatArray:
        return self.correct.astype(np.float64)

    @cached_property
    def log_confidence(self) -> FloatArray:
        """(n,) log p_y, at most 0; minus the cross-entropy loss in nats."""
        return self._by_chunk(_log_confidence)

    @cached_property
    def log_doubt(self) -> FloatArray:
        """(n,) log(1 − p_y), computed from the other logits so that it survives p_y = 1."""
        return self._by_chunk(_log_doubt)

    @cached_property
    def entropy(self) -> FloatArray:
        """(n,) Shannon entropy of the prediction in nats."""
        return self._by_chunk(_entropy)

    @cached_property
    def margin(self) -> FloatArray:
        """(n,) true-label logit minus the largest other logit."""
        return self._by_chunk(_margin)

    def log_probabilities(self, rows: slice) -> FloatArray:
        """(len(rows), n_classes) float64 log-softmax of some rows."""
        return _log_softmax(np.asarray(self.logits[rows], dtype=np.float64))

    def chunks(self) -> list[slice]:
        """Row slices small enough to turn to float64."""
        step = max(1, CHUNK_ELEMENTS // max(1, self.n_classes))
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def _by_chunk(
        self, compute: Callable[[FloatArray, IntArray], npt.NDArray[np.generic]]
    ) -> FloatArray:
        parts = [
            compute(np.asarray(self.logits[rows], dtype=np.float64), self.labels[rows])
            for rows in self.chunks()
        ]
        return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


class BlackBox:
    """Outputs of one model; the only thing that a black-box probe is given."""

    def __init__(
        self,
        outputs: Mapping[SplitName, Callable[[], Predictions]],
        *,
        scenario: Scenario,
        forget_classes: tuple[int, ...],
        n_classes: int,
        marks: Marks | None = None,
        shadows: Shadows | None = None,
        queried: Callable[[SplitName, str], FloatArray] | None = None,
    ) -> None:
        self._load = dict(outputs)
        self._loaded: dict[SplitName, Predictions] = {}
        self.scenario: Scenario = scenario
        self.forget_classes = forget_classes
        """Classes that occur in the forget set, ascending."""
        self.n_classes = n_classes
        self.marks = marks or Marks()
        self.shadows = shadows
        """What shadow models say of the same examples; None where there are none."""
        self.queried = queried
        """Asks the model under another query of its split; None where it cannot be asked anew."""

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """Splits that can be asked for."""
        return tuple(self._load)

    def predictions(self, split: SplitName) -> Predictions:
        """What any model says of a split, from the cache or from one forward pass."""
        if split not in self._loaded:
            self._loaded[split] = self._load[split]()
        return self._loaded[split]

    def outputs(self, split: SplitName) -> Outputs:
        """Logits of a classifier.

        Raises:
            TypeError: the model is none.
        """
        return self._of_kind(split, Outputs)

    def tokens(self, split: SplitName) -> TokenOutputs:
        """What a language model says of each token.

        Raises:
            TypeError: the model is none.
        """
        from unaudit.token_outputs import TokenOutputs

        return self._of_kind(split, TokenOutputs)

    def queries(self, split: SplitName) -> FloatArray:
        """(q, n) logit-scaled confidence of a split under the queries of :attr:`shadows`, in their
        order; the plain one alone without shadows."""
        plain = self.predictions(split).logit_confidence
        names = ("plain",) if self.shadows is None else self.shadows.queries
        rows = [plain]
        for name in names[1:]:
            if self.queried is None:
                raise ValueError(f"this model cannot be asked anew: no {name!r} query")
            rows.append(self.queried(split, name))
        return np.stack(rows)

    def _of_kind(self, split: SplitName, kind: type[P]) -> P:
        found = self.predictions(split)
        if not isinstance(found, kind):
            raise TypeError(f"{split}: {type(found).__name__} are no {kind.__name__}")
        return found


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _without_label(logits: FloatArray, labels: IntArray) -> FloatArray:
    others: FloatArray = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return others


def _log_sum_exp(values: FloatArray) -> FloatArray:
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def _log_confidence(logits: FloatArray, labels: IntArray) -> FloatArray:
    return np.asarray(logits[np.arange(len(labels)), labels] - _log_sum_exp(logits))


def _log_doubt(logits: FloatArray, labels: IntArray) -> FloatArray:
    return _log_sum_exp(_without_label(logits, labels)) - _log_sum_exp(logits)


def _entropy(logits: FloatArray, _: IntArray) -> FloatArray:
    log_p = _log_softmax(logits)
    return np.asarray(-(np.exp(log_p) * log_p).sum(axis=1))


def _margin(logits: FloatArray, labels: IntArray) -> FloatArray:
    own = logits[np.arange(len(labels)), labels]
    return np.asarray(own - _without_label(logits, labels).max(axis=1))
