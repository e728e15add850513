"""Which probes will decline, told before any model says anything.

A probe decides by labels, sizes, marks and layers whether it can run. So it is asked itself, with
views that know these and nothing that a model would have to be run for. What it declines for there,
it declines for in an audit, in the same words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

import torch
from torch import nn

from unaudit.case import Candidate, Case
from unaudit.data.text_dataset import TextDataset
from unaudit.evidence import Evidence, FloatArray, IntArray, Probe, Skipped, SplitName
from unaudit.measuring import Missed, obstacle, probe_generator
from unaudit.shadows import Shadows, ShadowScores
from unaudit.shadows.design import Design
from unaudit.splits import Split
from unaudit.token_outputs import TokenOutputs
from unaudit.views import BlackBox, Outputs, Predictions
from unaudit.white_box import WhiteBox


def will_run(probes: Sequence[Probe], case: Case, seed: int) -> tuple[list[Probe], list[Missed]]:
    """Split probes into those that nothing known before a model runs stands against, and the
    others with the reason.

    Args:
        probes: within the access level.
        case: with references, or with stand-ins for those that are still to be made.
        seed: of the audit.
    """
    reasons = [foreseen(probe, case, seed) for probe in probes]
    found = list(zip(probes, reasons, strict=True))
    return (
        [probe for probe, reason in found if reason is None],
        [Missed(probe.card, "skipped", reason) for probe, reason in found if reason is not None],
    )


def foreseen(probe: Probe, case: Case, seed: int) -> str | None:
    """Why a probe will be skipped, or None if only models could tell."""
    reason = obstacle(probe.card, case)
    if reason is not None:
        return reason
    for candidates in _asked(probe, case):
        unknown = _Unknown()
        views = [_view(probe, case, candidate, unknown) for candidate in candidates]
        try:
            found = cast(Callable[..., Evidence], probe)(*views, probe_generator(seed, probe))
        except Exception:  # it wants what only a model can say, or breaks in a way of its own
            continue
        if isinstance(found, Skipped) and not unknown.looked_at:
            return found.reason
    return None


def unscored(design: Design, queries: tuple[str, ...], unlearner: str | None) -> Shadows:
    """Shadow models that are still to be trained: known is what each will be trained on."""
    unknown = cast(Any, _Unknown())
    splits = {
        name: ShadowScores(
            rows=design.rows[name],
            scores=unknown,
            member=design.member[:, place],
            unlearned=None if design.erased is None else unknown,
            erased=None if design.erased is None else design.erased[:, place],
        )
        for name, place in design.columns.items()
    }
    return Shadows(splits, queries, unlearner, design.train_size)


class _UnaskedError(Exception):
    """No model has been run."""


class _Unknown:
    """What only a model can say: it may be passed on and cut, but not looked at."""

    looked_at = False

    def _look(self, *_: object, **__: object) -> NoReturn:
        self.looked_at = True
        raise _UnaskedError

    def __getitem__(self, _: object) -> _Unknown:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        self._look()

    __hash__ = object.__hash__


_OPERATORS = (
    "array", "len", "iter", "bool", "call", "float", "int", "index", "eq", "ne", "lt", "le", "gt",
    "ge", "neg", "abs", "invert", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and",
    "or", "radd", "rsub", "rmul", "rtruediv", "rpow",
)  # fmt: skip
for _name in _OPERATORS:  # Python asks the class for them, never __getattr__
    setattr(_Unknown, f"__{_name}__", _Unknown._look)

_KNOWN = {"labels", "counts", "starts", "n_classes"}


class _Silent:
    """Predictions of which only labels and sizes are known."""

    def __getattribute__(self, name: str) -> Any:
        if name in _KNOWN or name.startswith("__"):
            return super().__getattribute__(name)
        return self.__dict__["unknown"]


class _SilentOutputs(_Silent, Outputs):
    n_classes = -1


class _SilentTokens(_Silent, TokenOutputs):
    pass


class _Outside(BlackBox):
    """Everything of a black box but what the model answers."""

    def __init__(self, case: Case, unknown: _Unknown) -> None:
        largest = max(int(split.labels.max()) for split in case.splits.values())
        super().__init__(
            {name: self._loader(case, split, unknown) for name, split in case.splits.items()},
            scenario=case.scenario,
            forget_classes=case.forget_classes,
            n_classes=1 + largest,
            marks=case.marks,
            shadows=case.shadows,
        )
        self._unknown = unknown

    def queries(self, split: SplitName) -> FloatArray:
        return cast(FloatArray, self._unknown)

    def _loader(self, case: Case, split: Split, unknown: _Unknown) -> Callable[[], Predictions]:
        def load() -> Predictions:
            kind: type[Predictions] = _SilentOutputs
            known: dict[str, Any] = {"labels": split.labels, "unknown": unknown}
            if case.task == "language-modeling":
                kind = _SilentTokens
                assert isinstance(split.dataset, TextDataset)
                # nothing predicts the first token of a text
                known["counts"] = split.dataset.lengths[split.rows] - 1
            else:
                known["n_classes"] = self.n_classes
            silent = kind.__new__(kind)
            silent.__dict__.update(known)
            return silent

        return load


class _Inside(WhiteBox):
    """The same of a white box: the layers of the network are known, what they put out is not."""

    def __init__(self, case: Case, candidate: Candidate, unknown: _Unknown) -> None:
        super().__init__(_Outside(case, unknown), candidate, cast(Any, unknown))
        self._splits = case.splits

    def labels(self, split: SplitName) -> IntArray:
        return self._splits[split].labels

    def private_copy(self) -> nn.Module:
        return _hollow(self._model.module)


def _view(probe: Probe, case: Case, candidate: Candidate, unknown: _Unknown) -> BlackBox:
    if probe.card.access == "white-box":
        return _Inside(case, candidate, unknown)
    return _Outside(case, unknown)


def _asked(probe: Probe, case: Case) -> Iterator[tuple[Candidate, ...]]:
    """What the probe is called with, without repeating models that are alike by construction."""
    if not probe.card.comparative:
        yield (case.subject,)
        return
    seen = set()
    for candidate in case.candidates:
        other = next(x for x in case.retrained if x is not candidate)
        models = id(candidate.model), id(other.model)
        if models not in seen:
            seen.add(models)
            yield candidate, other


def _hollow(module: nn.Module) -> nn.Module:
    """The same layers, with weights of the same shapes that hold no numbers."""
    memo: dict[int, Any] = {}
    for weight in module.parameters():
        empty = torch.empty_like(weight, device="meta")
        memo[id(weight)] = nn.Parameter(empty, requires_grad=weight.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo).eval()
