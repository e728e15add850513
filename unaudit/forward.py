"""One forward pass per model and split, kept in the store and shared by every probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unaudit.case import Candidate, Case
from unaudit.devices import choose_device, on_device
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError
from unaudit.evidence import FloatArray, IntArray, SplitName
from unaudit.loading import LoadedModel, RecordedModel
from unaudit.logits import network_logits, recorded_logits, refuse_non_finite
from unaudit.progress import SILENT, Progress
from unaudit.shadows.queries import PLAIN, alter
from unaudit.splits import Split
from unaudit.tokens import width_of
from unaudit.views import BlackBox, Outputs
from unaudit.white_box import FEATURES, Anatomy, WhiteBox, examine
from unaudit.white_box.tokens import Padding
from unaudit.white_box.trace import listening

LOGITS = ""
"""What :meth:`ForwardPass.record` calls the output of the network as a whole."""


class ForwardPass:
    """Computes or recalls what the models of a case give for its examples."""

    def __init__(
        self,
        case: Case,
        store: Store,
        *,
        batch_size: int,
        device: str,
        progress: Progress = SILENT,
        record_features: bool = False,
        layers: tuple[str, ...] | None = None,
        head: str | None = None,
    ) -> None:
        """
        Args:
            case: models and splits.
            store: keeps what was computed.
            batch_size: examples at a time.
            device: ``auto`` or a torch device.
            progress: told of every pass.
            record_features: whether the pass that gives the logits keeps the features as well.
            layers, head: names of modules for white-box views; default: found.
        """
        self.case = case
        self.store = store
        self.batch_size = batch_size
        self.device = choose_device(device)
        self.progress = progress
        self.record_features = record_features
        self._examine = partial(examine, layers=layers, head=head)
        self._views: dict[Candidate, BlackBox] = {}
        self._anatomies: dict[Candidate, Anatomy] = {}
        self.n_classes = self._agree_on_classes()

    @property
    def step_size(self) -> int:
        """Elements of a batch of inputs, or of what the tokens of texts become; 0 without any."""
        shape = getattr(self.case.splits["forget"].dataset, "input_shape", (0,))
        network = getattr(self.case.subject.model, "module", None)
        return self.batch_size * math.prod(shape) * width_of(network)

    def view(self, candidate: Candidate) -> BlackBox:
        """What a black-box probe may see of ``candidate``; logits are computed on first use."""
        if candidate not in self._views:
            self._views[candidate] = BlackBox(
                {name: self._loader(candidate, split) for name, split in self.case.splits.items()},
                scenario=self.case.scenario,
                forget_classes=self.case.forget_classes,
                n_classes=self.n_classes,
                marks=self.case.marks,
                shadows=self.case.shadows,
                queried=None if candidate.recorded else self._asker(candidate),
            )
        return self._views[candidate]

    def white_view(self, candidate: Candidate) -> WhiteBox:
        """What a white-box probe may see of ``candidate``; shares its outputs with :meth:`view`.

        Raises:
            InputError: the model is known by recorded outputs only.
        """
        return WhiteBox(self.view(candidate), candidate, self)

    def anatomy(self, candidate: Candidate) -> Anatomy:
        """Blocks, features and head of a network.

        Raises:
            InputError: they cannot be found, or the names given do not fit.
        """
        if candidate not in self._anatomies:
            assert isinstance(candidate.model, LoadedModel)
            forget = self.case.splits["forget"]
            inputs = next(forget.dataset.batches(forget.rows[:3], 3)).to(self.device)
            with on_device(candidate.model.module, self.device) as module:
                try:
                    self._anatomies[candidate] = self._examine(module, inputs)
                except InputError as error:
                    raise InputError(f"{candidate.model.provenance.name}: {error}") from None
        return self._anatomies[candidate]

    def _loader(self, candidate: Candidate, split: Split) -> Any:
        def load() -> Outputs:
            return Outputs(logits=self.logits(candidate, split), labels=split.labels)

        return load

    def _asker(self, candidate: Candidate) -> Callable[[SplitName, str], FloatArray]:
        return lambda name, query: self.queried(candidate, self.case.splits[name], query)

    def logits(self, candidate: Candidate, split: Split) -> npt.NDArray[np.float32]:
        """(n, n_classes) float32, in the split's order.

        Raises:
            InputError: the model gives NaN or infinite logits; names the first example.
        """
        if isinstance(candidate.model, RecordedModel):
            return recorded_logits(candidate, split)
        features = (FEATURES,) if self.record_features else ()
        return self.record(candidate, split, (LOGITS, *features))[LOGITS]

    def record(
        self,
        candidate: Candidate,
        split: Split,
        layers: Sequence[str],
        rows: IntArray | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Outputs of modules, (n, …) float32 and memory-mapped; one pass computes all that miss.

        Args:
            candidate: a model with weights.
            split: whose examples.
            layers: module names, :data:`FEATURES` or :data:`LOGITS`.
            rows: (n,) positions in the split; default: all.

        Raises:
            InputError: no such layer, or the model gives NaN or infinite logits; names the first
                example.
        """
        positions = np.arange(len(split), dtype=np.int64) if rows is None else rows
        keys = {layer: self._key(candidate, split, layer, rows) for layer in layers}
        forms = {
            key: ((len(positions), *self._shape(candidate, layer)), np.float32)
            for layer, key in keys.items()
        }

        def fill(missing: Mapping[str, npt.NDArray[Any]]) -> None:
            arrays = {layer: missing[key] for layer, key in keys.items() if key in missing}
            logits = arrays.pop(LOGITS, None)

            def write(array: npt.NDArray[Any], place: IntArray, values: torch.Tensor) -> None:
                array[place] = values.float().cpu().numpy()

            writers = {layer: partial(write, array) for layer, array in arrays.items()}
            for place, batch in self._checked(candidate, split, positions, writers):
                if logits is not None:
                    logits[place] = batch

        found = self.store.arrays(forms, fill)
        return {layer: found[key] for layer, key in keys.items()}

    def queried(self, candidate: Candidate, split: Split, query: str) -> FloatArray:
        """(n,) logit-scaled confidence in altered inputs, in the split's order; memory-mapped.

        Args:
            candidate: a model with weights.
            split: whose examples.
            query: see :mod:`unaudit.shadows.queries`.

        Raises:
            UsageError: no such query.
            InputError: the inputs are no images, or the model gives NaN or infinite logits.
        """
        key = content_key("queried", query=query, **self._decides(candidate, split))
        labels = split.labels

        def fill(confidence: npt.NDArray[Any]) -> None:
            everything = np.arange(len(split), dtype=np.int64)
            for place, batch in self._checked(candidate, split, everything, query=query):
                confidence[place] = Outputs(batch, labels[place]).logit_confidence

        return self.store.array(key, (len(split),), np.float64, fill)

    def _decides(self, candidate: Candidate, split: Split) -> dict[str, Any]:
        """What every pass depends on."""
        return {
            "model": candidate.model.digest,
            "data": split.digest,
            "batch_size": self.batch_size,
            "device": self.device.type,
            "torch": torch.__version__,
        }

    def _key(self, candidate: Candidate, split: Split, layer: str, rows: IntArray | None) -> str:
        decides = self._decides(candidate, split)
        if layer == LOGITS:
            return content_key("logits", **decides)
        if layer == FEATURES:
            decides["head"] = self.anatomy(candidate).head
        if rows is not None:
            decides["rows"] = sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()
        return content_key("activations", layer=layer, **decides)

    def _shape(self, candidate: Candidate, layer: str) -> tuple[int, ...]:
        return (self.n_classes,) if layer == LOGITS else self.anatomy(candidate).shape(layer)

    def _checked(
        self,
        candidate: Candidate,
        split: Split,
        positions: IntArray,
        writers: Mapping[str, Callable[[IntArray, torch.Tensor], None]] | None = None,
        query: str = PLAIN,
    ) -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
        """Finite logits by batch with their places among ``positions``, which ``writers`` of what
        layers put out are told as well; progress is told."""
        order = split.dataset.cheapest_order(split.rows[positions])
        rows = split.rows[positions[order]]

        def sink(layer: str, values: torch.Tensor) -> None:
            assert writers is not None
            writers[layer](order[done : done + len(values)], values)

        sinks = {layer: partial(sink, layer) for layer in writers or {}}
        name = f"{candidate.label}: {split.name}" + (f", {query}" if query != PLAIN else "")
        done = 0
        with self.progress.stage(name, len(positions)) as step:
            for batch in self._batches(candidate, split, rows, sinks, query):
                place = order[done : done + len(batch)]
                refuse_non_finite(candidate, split, batch, positions[place])
                yield place, batch
                done += len(batch)
                step(len(batch))

    def _batches(
        self,
        candidate: Candidate,
        split: Split,
        rows: IntArray,
        sinks: Mapping[str, Callable[[torch.Tensor], None]] | None = None,
        query: str = PLAIN,
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Logits by batch; before each, ``sinks`` are given what their layers put out."""
        assert isinstance(candidate.model, LoadedModel)
        outputs, inputs_of = dict(sinks or {}), {}
        if FEATURES in outputs:
            take = outputs.pop(FEATURES)
            inputs_of[self.anatomy(candidate).head] = lambda given: take(given.flatten(1))
        padding = Padding(self.anatomy(candidate).tokenwise if outputs else frozenset())
        with (
            on_device(candidate.model.module, self.device) as module,
            listening(module, padding.around(outputs), inputs_of),
            torch.inference_mode(),
        ):
            for inputs in split.dataset.batches(rows, self.batch_size):
                padding.meet(inputs)
                logits = network_logits(module, alter(inputs, query).to(self.device), candidate)
                yield logits.float().cpu().numpy()

    def _agree_on_classes(self) -> int:
        """Feed one example to every model: shapes must fit, and class counts must agree."""
        widths = {candidate: self._width(candidate) for candidate in self.case.candidates}
        expected = widths[self.case.subject]
        for candidate, width in widths.items():
            if width != expected:
                raise InputError(
                    f"{candidate.label} ({candidate.model.provenance.name}) gives {width} logits, "
                    f"the subject {expected}; all models must have the same classes"
                )
        for name, split in self.case.splits.items():
            top = int(split.labels.max())
            if top >= expected:
                raise InputError(
                    f"{split.dataset.name}: label {top} in {name}, but the models give {expected} "
                    f"logits (labels 0 to {expected - 1}); check data.label_column or num_classes"
                )
        return expected

    def _width(self, candidate: Candidate) -> int:
        forget = self.case.splits["forget"]
        if isinstance(candidate.model, RecordedModel):
            width = next(iter(candidate.model.splits.values())).logits.shape[1]
        else:
            width = next(self._batches(candidate, forget, forget.rows[:1])).shape[1]
        if width < 2:
            raise InputError(
                f"{candidate.model.provenance.name}: gives {width} logit per example; "
                "unaudit needs one logit per class (for a sigmoid z, the two logits 0 and z)"
            )
        return int(width)
