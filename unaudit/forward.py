"""One forward pass per model and split, kept in the store and shared by every probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from unaudit.agreement import agreed_sizes
from unaudit.asking import Answers, Question, ask
from unaudit.case import Candidate, Case
from unaudit.devices import choose_device, on_device
from unaudit.engine.answers import code_digest
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError
from unaudit.evidence import FloatArray, IntArray, SplitName
from unaudit.loading import LoadedModel, RecordedModel
from unaudit.loading.libraries import libraries
from unaudit.logits import LOGITS, AskLogits, recorded_logits
from unaudit.progress import SILENT, Progress
from unaudit.shadows.queries import PLAIN, check_queries
from unaudit.splits import Split
from unaudit.token_distances import Remembered
from unaudit.token_outputs import TokenOutputs
from unaudit.token_scores import FORMS, LAST_STATES, SCORED_BY, AskTokens, outputs_of, rows_at_once
from unaudit.tokens import width_of
from unaudit.views import BlackBox, Outputs, Predictions
from unaudit.white_box import FEATURES, Anatomy, WhiteBox, examine

__all__ = ["LOGITS", "ForwardPass"]

Recorded: TypeAlias = dict[str, npt.NDArray[Any]]
"""Memory-mapped arrays by part: what layers put out, logits, scores of tokens."""


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
        sizes = agreed_sizes(case, self.device)
        self.n_classes, self._n_logits = sizes.n_classes, sizes.n_logits

    @property
    def step_size(self) -> int:
        """Elements of a batch of inputs, or of what the tokens of texts become; 0 without any."""
        shape = getattr(self.case.splits["forget"].dataset, "input_shape", (0,))
        network = getattr(self.case.subject.model, "module", None)
        return self.batch_size * math.prod(shape) * width_of(network)

    def view(self, candidate: Candidate) -> BlackBox:
        """What a black-box probe may see of ``candidate``; outputs are computed on first use."""
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

    def _loader(self, candidate: Candidate, split: Split) -> Callable[[], Predictions]:
        def load() -> Predictions:
            if self._language:
                return self.tokens(candidate, split)
            return Outputs(logits=self.logits(candidate, split), labels=split.labels)

        return load

    def _asker(self, candidate: Candidate) -> Callable[[SplitName, str], FloatArray]:
        return lambda name, query: self.queried(candidate, self.case.splits[name], query)

    @property
    def _language(self) -> bool:
        return self.case.task == "language-modeling"

    @property
    def _beside(self) -> tuple[str, ...]:
        """Layers that are recorded in the pass that gives the outputs."""
        return (FEATURES,) if self.record_features else ()

    def logits(self, candidate: Candidate, split: Split) -> npt.NDArray[np.float32]:
        """(n, n_classes) float32 of a classifier, in the split's order.

        Raises:
            InputError: the model gives NaN or infinite logits; names the first example.
        """
        if isinstance(candidate.model, RecordedModel):
            return recorded_logits(candidate, split)
        return self.record(candidate, split, (LOGITS, *self._beside))[LOGITS]

    def tokens(self, candidate: Candidate, split: Split) -> TokenOutputs:
        """What a language model says of the tokens of each text, in the split's order.

        Raises:
            InputError: the model gives NaN or infinite logits; names the first text.
        """
        # retrained models are compared with in whole predictions
        kept = (LAST_STATES,) if split.name == "forget" and self.case.retrained else ()
        found = self.record(candidate, split, (*FORMS, *kept, *self._beside))
        if not kept:
            return outputs_of(split, found)
        assert isinstance(candidate.model, LoadedModel)
        rows = rows_at_once(self._n_logits, self.device)
        again = Remembered(candidate.model.module, found[LAST_STATES], rows, self.device)
        return outputs_of(split, found, again)

    def record(
        self,
        candidate: Candidate,
        split: Split,
        layers: Sequence[str],
        rows: IntArray | None = None,
    ) -> Recorded:
        """Outputs of modules, (n, …) float32 and memory-mapped; one pass computes all that miss.

        Args:
            candidate: a model with weights.
            split: whose examples.
            layers: module names or :data:`FEATURES`; of all examples of a split also what the
                network says: :data:`LOGITS`, or of a language model parts of its
                :data:`~unaudit.token_scores.FORMS`.
            rows: (n,) positions in the split; default: all.

        Raises:
            InputError: no such layer, or the model gives NaN or infinite logits; names the first
                example.
        """
        positions = np.arange(len(split), dtype=np.int64) if rows is None else rows
        question = self._question(candidate, split, layers)
        said = question.forms if rows is None else {}
        decides = self._decides(candidate, split)
        keys = {
            part: _key_of_answer(part, decides)
            if part in said
            else self._key_of_layer(candidate, part, decides, rows)
            for part in layers
        }
        forms = {
            key: said[part]
            if part in said
            else ((len(positions), *self.anatomy(candidate).shape(part)), np.float32)
            for part, key in keys.items()
        }

        def fill(missing: Mapping[str, npt.NDArray[Any]]) -> None:
            arrays = {part: missing[key] for part, key in keys.items() if key in missing}
            answers = {part: arrays.pop(part) for part in said if part in arrays}
            for place, batch in self._asked(question, positions, arrays, put=bool(answers)):
                where = question.rows_of(place)
                for part, array in answers.items():
                    array[where] = batch[part]

        found = self.store.arrays(forms, fill)
        return {part: found[key] for part, key in keys.items()}

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
        check_queries([PLAIN] if query == PLAIN else [PLAIN, query], split.dataset.input_shape)
        if self._language:
            return self.tokens(candidate, split).logit_confidence
        key = content_key("queried", query=query, **self._decides(candidate, split))
        question = AskLogits(candidate, split, self._n_logits, query)
        labels = split.labels

        def fill(confidence: npt.NDArray[Any]) -> None:
            everything = np.arange(len(split), dtype=np.int64)
            for place, batch in self._asked(question, everything, query=query):
                confidence[place] = Outputs(batch[LOGITS], labels[place]).logit_confidence

        return self.store.array(key, (len(split),), np.float64, fill)

    def _question(self, candidate: Candidate, split: Split, parts: Sequence[str]) -> Question:
        if not self._language:
            return AskLogits(candidate, split, self._n_logits)
        # outputs of layers have one row per token of the longest text of all
        padded = not {*FORMS, LAST_STATES, FEATURES}.issuperset(parts)
        kept = LAST_STATES in parts
        return AskTokens(candidate, split, self._n_logits, padded=padded, keep_states=kept)

    def _decides(self, candidate: Candidate, split: Split) -> dict[str, Any]:
        """What every pass depends on."""
        own = {"code": code_digest(*SCORED_BY)} if self._language else {}
        return own | {
            "model": candidate.model.digest,
            "data": split.digest,
            "batch_size": self.batch_size,
            "device": self.device.type,
            "torch": libraries(getattr(candidate.model, "arch", None)),
        }

    def _key_of_layer(
        self, candidate: Candidate, layer: str, decides: dict[str, Any], rows: IntArray | None
    ) -> str:
        more: dict[str, Any] = {}
        if layer == FEATURES:
            more["head"] = self.anatomy(candidate).head
        if rows is not None:
            more["rows"] = sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()
        return content_key("activations", layer=layer, **decides, **more)

    def _asked(
        self,
        question: Question,
        positions: IntArray,
        layers: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        put: bool = True,
        query: str = PLAIN,
    ) -> Iterator[tuple[IntArray, Answers]]:
        """Answers by batch with their places among ``positions``, see :func:`ask`."""
        candidate = question.candidate
        name = f"{candidate.label}: {question.split.name}"
        return ask(
            question,
            positions,
            size=self.batch_size,
            device=self.device,
            stage=partial(self.progress.stage, name if query == PLAIN else f"{name}, {query}"),
            anatomy=self.anatomy(candidate) if layers else None,
            layers=layers or {},
            put=put,
        )


def _key_of_answer(part: str, decides: dict[str, Any]) -> str:
    if part == LOGITS:
        return content_key("logits", **decides)
    return content_key("token scores", part=part, **decides)
