"""What a network is asked, batch by batch, and where the answers go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unaudit.case import Candidate
from unaudit.devices import on_device
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.loading import LoadedModel
from unaudit.splits import Split
from unaudit.tokens import are_tokens
from unaudit.white_box.anatomy import Anatomy
from unaudit.white_box.hearing import hearing

Form: TypeAlias = tuple[tuple[int, ...], npt.DTypeLike]
"""Shape and dtype of an array."""
Answers: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""By part, what a network says of a batch."""


class Question(ABC):
    """What one network is asked about examples of one split."""

    def __init__(self, candidate: Candidate, split: Split) -> None:
        """
        Args:
            candidate: with weights.
            split: whose examples.
        """
        self.candidate, self.split = candidate, split

    @property
    @abstractmethod
    def forms(self) -> Mapping[str, Form]:
        """By part, of the array that holds the answers for the whole split."""

    @abstractmethod
    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        """Inputs of ``rows`` of the data set, in that order, ``size`` at a time or fewer."""

    @abstractmethod
    def put(self, module: nn.Module, inputs: torch.Tensor, positions: IntArray) -> Answers:
        """By part, the finite answers for a batch.

        Args:
            module: the network, on the device of ``inputs``.
            inputs: (b, …).
            positions: (b,) of these examples in the split.

        Raises:
            InputError: the network does not take such inputs, or gives NaN or infinite logits.
        """

    @abstractmethod
    def run(self, module: nn.Module, inputs: torch.Tensor, positions: IntArray) -> None:
        """The same where what the network computes inside is all that is wanted."""

    def rows_of(self, positions: IntArray) -> IntArray:
        """Rows of the answers for a batch, in the arrays for the whole split."""
        return positions

    def refuse(self, finite: npt.NDArray[np.bool_], positions: IntArray) -> None:
        """
        Args:
            finite: (b,) whether all that the network says of an example is finite.
            positions: (b,) of these examples in the split.

        Raises:
            InputError: not of all; names the first example.
        """
        bad = np.flatnonzero(~finite)
        if len(bad):
            raise InputError(
                f"{self.candidate.model.provenance.name}: NaN or infinite logits on the "
                f"{self.split.name} example '{self.split.id_of(int(positions[bad[0]])):.60}'; "
                "the model diverged, hand in another"
            )


@contextmanager
def explained(candidate: Candidate, inputs: torch.Tensor) -> Iterator[None]:
    """Say in one line that a network does not take a batch, if it does not.

    Raises:
        InputError: whatever the network raised.
    """
    name = candidate.model.provenance.name
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        shape = "×".join(str(size) for size in inputs.shape[1:])
        where = "the [preprocess] section (resize, channels, layout)"
        if are_tokens(inputs):
            where = "preprocess.tokenizer"
        raise InputError(
            f"{name}: the model does not accept inputs of shape {shape} ({reason:.120}); "
            f"check --arch and {where}"
        ) from None


def ask(
    question: Question,
    positions: IntArray,
    *,
    size: int,
    device: torch.device,
    stage: Callable[[int], AbstractContextManager[Callable[[int], None]]],
    anatomy: Anatomy | None = None,
    layers: Mapping[str, npt.NDArray[Any]],
    put: bool = True,
) -> Iterator[tuple[IntArray, Answers]]:
    """Answers by batch with their places among ``positions``, in one pass.

    Args:
        question: that is put.
        positions: (n,) in its split.
        size: examples at a time, at most.
        device: where the network runs.
        stage: of the progress that is told; given the number of examples.
        anatomy: of the network, where there are layers.
        layers: by name, (n, …) arrays that are filled with what these put out.
        put: whether answers are wanted; without, only layers are heard and answers are empty.

    Raises:
        InputError: see :meth:`Question.put`.
    """
    data, model = question.split.dataset, question.candidate.model
    assert isinstance(model, LoadedModel)
    rows = question.split.rows[positions]
    order = data.cheapest_order(rows)
    done = 0

    def write(array: npt.NDArray[Any], values: torch.Tensor) -> None:
        array[order[done : done + len(values)]] = values.float().cpu().numpy()

    sinks = {layer: partial(write, array) for layer, array in layers.items()}
    with (
        stage(len(positions)) as step,
        on_device(model.module, device) as module,
        hearing(module, anatomy, sinks) as heard,
        torch.inference_mode(),
    ):
        for batch in question.batches(rows[order], size):
            inputs = batch.to(device)
            place = order[done : done + len(inputs)]
            shown = heard.meet(inputs)
            if sinks and not (put and heard.whole):
                question.run(module, shown, positions[place])
            yield place, question.put(module, inputs, positions[place]) if put else {}
            done += len(inputs)
            step(len(inputs))
