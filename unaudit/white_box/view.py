"""What a white-box probe may see of one model: activations, weights, and copies to train."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.evidence import IntArray, SplitName
from unaudit.loading import LoadedModel
from unaudit.tokens import predicts_tokens
from unaudit.views import BlackBox
from unaudit.white_box.anatomy import FEATURES, Head, read_head
from unaudit.white_box.cutting import cut
from unaudit.white_box.tail import Tail
from unaudit.white_box.tokens import first_window

if TYPE_CHECKING:
    from unaudit.case import Candidate
    from unaudit.data import Dataset
    from unaudit.forward import ForwardPass

FloatActivations = npt.NDArray[np.float32]

CHECKED = 4
"""Real examples on which a tail must give the network's own logits."""
HELD_BYTES = 256 << 20
"""Inputs that are held at a time where they are wanted in another order than they are stored."""


class WhiteBox(BlackBox):
    """Everything that :class:`BlackBox` shows, and the inside.

    The model itself is never handed out: weights come as copies, networks as private copies.
    """

    def __init__(self, outside: BlackBox, candidate: Candidate, forward: ForwardPass) -> None:
        """
        Args:
            outside: the black-box view, which shares its outputs.
            candidate: the model.
            forward: runs the model and keeps what it gives.

        Raises:
            InputError: the model is known by recorded outputs only.
        """
        super().__init__(
            {split: partial(outside.predictions, split) for split in outside.splits},
            scenario=outside.scenario,
            forget_classes=outside.forget_classes,
            n_classes=outside.n_classes,
            marks=outside.marks,
            shadows=outside.shadows,
            queried=outside.queried,
        )
        if not isinstance(candidate.model, LoadedModel):
            raise InputError(
                f"{candidate.label} ({candidate.model.provenance.name}): recorded outputs show "
                "nothing of the inside; hand in the model file or set policy.access = 'black-box'"
            )
        self._model = candidate.model
        self._candidate = candidate
        self._forward = forward
        self._whole: dict[tuple[SplitName, str], FloatActivations] = {}

    @property
    def digest(self) -> str:
        """Of weights, buffers and architecture."""
        return self._model.digest

    @property
    def predicts_tokens(self) -> bool:
        """Whether the model predicts the next tokens of texts, and not a class."""
        return predicts_tokens(self._model.module)

    @property
    def device(self) -> torch.device:
        """Where inputs are yielded and where private copies and tails are."""
        return self._forward.device

    @property
    def layers(self) -> tuple[str, ...]:
        """Module names of the blocks' outputs, from input to output, without features and head.

        Each can be asked for in :meth:`activations` and cut at with :meth:`tail`. Where blocks come
        in stages, as in ResNets, these are the stages; finer modules may be named as well.

        Raises:
            InputError: no linear layer gives the logits.
        """
        return self._forward.anatomy(self._candidate).layers

    @cached_property
    def head(self) -> Head:
        """Copies of the last linear layer's weights.

        Raises:
            InputError: no linear layer gives the logits.
        """
        return read_head(self._model.module, self._forward.anatomy(self._candidate).head)

    def labels(self, split: SplitName) -> IntArray:
        """(n,) int64."""
        return self._forward.case.splits[split].labels

    def inputs(
        self, split: SplitName, rows: IntArray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        """Preprocessed inputs, (≤ batch, …) on :attr:`device`: float32, or token ids.

        Args:
            split: whose examples.
            rows: (n,) positions in the split, in the order wanted; default: all.
            batch: examples at a time; default: as in the forward pass.
        """
        source = self._forward.case.splits[split]
        chosen = source.rows if rows is None else source.rows[rows]
        for inputs in _in_any_order(source.dataset, chosen, batch or self._forward.batch_size):
            yield inputs.to(self.device)

    def inputs_inside(
        self, split: SplitName, rows: IntArray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        """What of :meth:`inputs` is looked at inside: of long texts the first window, as much as a
        language model takes at once."""
        for inputs in self.inputs(split, rows, batch):
            yield first_window(self._model.module, inputs)

    def features(self, split: SplitName, rows: IntArray | None = None) -> FloatActivations:
        """(n, d) float32: what the head is given, of a language model its mean over the tokens of
        a text. Memory-mapped unless ``rows`` are given."""
        return self.activations(split, FEATURES, rows)

    def activations(
        self, split: SplitName, layer: str, rows: IntArray | None = None
    ) -> FloatActivations:
        """(n, …) float32 outputs of a module, memory-mapped, from the cache or one forward pass.

        Of a text that a language model reads in several windows, those of the first.

        Args:
            split: whose examples.
            layer: a module that runs once per forward pass, or :data:`FEATURES`.
            rows: (n,) positions in the split, in the order wanted; default: all.

        Raises:
            InputError: no such layer, or it cannot be recorded.
        """
        if rows is not None and layer != FEATURES:
            return self._record(split, (layer,), rows)[layer]
        if (split, layer) not in self._whole:
            self._whole[split, layer] = self._record(split, (layer,), None)[layer]
        whole = self._whole[split, layer]
        # features are recorded whole, in the pass that gives the logits: they cost nothing
        return whole if rows is None else whole[rows]

    def request(
        self, split: SplitName, layers: Sequence[str], rows: IntArray | None = None
    ) -> None:
        """Record several layers in one forward pass; :meth:`activations` then finds them.

        Args:
            split, rows: as they will be asked for.
            layers: modules, :data:`FEATURES`.

        Raises:
            InputError: no such layer, or it cannot be recorded.
        """
        whole = [layer for layer in layers if rows is None or layer == FEATURES]
        if whole:
            recorded = self._record(split, whole, None)
            self._whole |= {(split, layer): array for layer, array in recorded.items()}
        if len(whole) < len(layers):
            self._record(split, [layer for layer in layers if layer not in whole], rows)

    def private_copy(self) -> nn.Module:
        """The network in eval mode, every parameter trainable, no storage shared with the model."""
        network = copy.deepcopy(self._model.module).to(self.device)
        return network.requires_grad_(True).eval()

    def tail(self, layer: str) -> Tail:
        """The rest of the network behind a layer, for activations of that layer.

        Args:
            layer: one of :attr:`layers`, a finer cut, or :data:`FEATURES` for the head alone, which
                a language model cannot be cut at.

        Raises:
            InputError: information passes around the layer; names the layers that are cuts.
        """
        anatomy = self._forward.anatomy(self._candidate)
        examples = next(self.inputs("forget", np.arange(min(CHECKED, len(self.labels("forget"))))))
        return cut(self.private_copy(), anatomy, layer, examples)

    def _record(
        self, split: SplitName, layers: Sequence[str], rows: IntArray | None
    ) -> dict[str, FloatActivations]:
        source = self._forward.case.splits[split]
        return self._forward.record(self._candidate, source, layers, rows)


def _in_any_order(dataset: Dataset, rows: IntArray, batch: int) -> Iterator[Tensor]:
    """Inputs in the order wanted, read in the order of the data set.

    Files are read in pieces of many examples: in random order each example would cost a piece.
    """
    if (np.diff(rows) > 0).all():
        yield from dataset.batches(rows, batch)
        return
    each = 4 * math.prod(dataset.input_shape)
    size = max(1, HELD_BYTES // each // batch) * batch
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        ascending, places = np.unique(block, return_inverse=True)
        held = torch.cat(list(dataset.batches(ascending, batch)))
        for some in torch.from_numpy(places).split(batch):
            yield held[some]
