"""The case: one subject, its references and disjoint splits. Built once, frozen, checked.

forget       to be removed
retain       the rest of the training data
unseen       never trained on by anyone
validation   never trained on, but an unlearner may have used it; no metric's non-members
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from unaudit.blind import tell_apart
from unaudit.case_data import IdType, canary_rows, common_text, forget_rows, open_data
from unaudit.data.selection import by_content
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.evidence import Scenario, SplitName, Task
from unaudit.loading import Model, RecordedModel, Trust, load_model
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.shadows import Shadows
from unaudit.splits import Copies, Split, cut, detect_scenario, mark, mix_differs, swapped_classes
from unaudit.text import plain
from unaudit.views import Marks

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["subject", "original", "retrained", "calibrator"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model with the part it plays."""

    role: Role
    label: str
    """``subject``, ``original``, ``retrained 1``, …"""
    model: Model

    @property
    def recorded(self) -> bool:
        """Known by recorded outputs only: nothing of its inside can be seen."""
        return isinstance(self.model, RecordedModel)


@dataclass(frozen=True, eq=False)
class Case:
    """Everything an audit looks at."""

    subject: Candidate
    original: Candidate | None
    retrained: tuple[Candidate, ...]
    splits: Mapping[SplitName, Split]
    scenario: Scenario
    scenario_source: Literal["detected", "stated"]
    id_type: IdType
    ids_hmac: str
    """Of the sorted forget ids, under the auditor's key."""
    copies: Copies | None
    """None where inputs are not at hand."""
    mix_differs: bool
    """Whether forget and unseen differ in their mix of the forget classes by more than chance, in
    whether their labels are right, in that the forget examples were chosen by what they say, or in
    what can be told of texts without any model."""
    warnings: tuple[str, ...] = field(default=())
    calibrators: tuple[Candidate, ...] = field(default=())
    """Models that bundled unlearners made of the original: they show what probes say of models
    whose truth is known, and decide nothing."""
    swapped: tuple[int, int] | None = None
    """The classes of a relabeling; None: the request is to erase."""
    shadows: Shadows | None = None
    """What shadow models say of the examples; None: none were trained."""
    base: Mapping[str, Tensor] | None = None
    """Weights by name that references were trained from; None: random ones."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Subject, original, retrained."""
        return _all(self.subject, self.original, self.retrained)

    @property
    def task(self) -> Task:
        """What the models do; they all do the same."""
        text = getattr(self.subject.model, "text", None)
        return "language-modeling" if text is not None and text.causal else "classification"

    @property
    def forget_classes(self) -> tuple[int, ...]:
        return tuple(int(label) for label in np.unique(self.splits["forget"].labels))

    @property
    def marks(self) -> Marks:
        """What the request says of the examples, for views."""
        canaries = {
            name: split.canaries
            for name, split in self.splits.items()
            if split.canaries is not None
        }
        return Marks(canaries, self.swapped)

    @property
    def sources_digest(self) -> str:
        """Of the data sets' content, labels, order and preprocessing, however they are split."""
        named = {f"{name}={split.dataset.digest}" for name, split in self.splits.items()}
        named -= {f"forget={self.splits['forget'].dataset.digest}"}
        return hashlib.sha256("\n".join(sorted(named)).encode()).hexdigest()

    @property
    def data_digest(self) -> str:
        """Of every split's content, labels, order and preprocessing; not to be published."""
        digests = sorted(f"{name}={split.digest}" for name, split in self.splits.items())
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def build_case(plan: AuditPlan, store: Store, progress: Progress = SILENT) -> Case:
    """Load the models, open the data, find the forget set and check what must hold.

    Raises:
        UsageError: something that the plan must name is missing.
        InputError: a file, key or id cannot be used, or splits overlap.
        UnsafeModelError: a model file was refused.
    """
    subject, original, retrained = load_candidates(plan, progress)
    with progress.stage("reading data"):
        models = {model.label: model.model for model in _all(subject, original, retrained)}
        text = common_text(models, plan)
        train, extra = open_data(plan, subject.model, store, text)
        forget, id_type, listed = forget_rows(plan, train, subject.model)
        splits, copies = cut(train, forget, extra)
        splits = mark(splits, canary_rows(plan, listed, train, extra))
        swapped = None
        if plan.request.kind == "relabel":
            swapped = swapped_classes(splits["forget"], plan.request.swapped)
    detected = detect_scenario(splits["forget"].labels, splits["retain"].labels)
    stated = plan.request.scenario
    if stated not in (None, "sample") and train.labels.min() == train.labels.max():
        raise UsageError(
            f"the scenario was stated as '{stated}', but all examples of {plain(train.name)} are "
            "of one class or have no labels; take --scenario out"
        )
    warnings = [note for dataset in (train, *extra.values()) for note in dataset.notes]
    if stated is not None and stated != detected:
        warnings.append(f"the scenario was stated as '{stated}', the labels look like '{detected}'")
    differs = "unseen" in splits and (
        # wrong labels are less likely than right ones, whatever a model was trained on
        swapped is not None
        or by_content(plan.request.forget)
        or mix_differs(splits["forget"], splits["unseen"])
    )
    if "unseen" in splits and not differs and (stated or detected) != "class":
        told = tell_apart(splits["forget"], splits["unseen"])
        if told is not None and told.differ:
            differs = True
            warnings.append(told.note)
    return Case(
        subject=subject,
        original=original,
        retrained=retrained,
        splits=splits,
        scenario=stated or detected,
        scenario_source="stated" if stated else "detected",
        id_type=id_type,
        ids_hmac=_ids_hmac(splits["forget"], store.secret()),
        copies=copies,
        mix_differs=differs,
        warnings=tuple(warnings),
        swapped=swapped,
    )


def _all(
    subject: Candidate, original: Candidate | None, retrained: tuple[Candidate, ...]
) -> tuple[Candidate, ...]:
    return (subject, *(() if original is None else (original,)), *retrained)


def load_candidates(
    plan: AuditPlan, progress: Progress = SILENT
) -> tuple[Candidate, Candidate | None, tuple[Candidate, ...]]:
    """Load subject, original and retrained models and refuse repeats among the retrained."""
    if plan.model.path is None:
        raise UsageError("no model given; name one on the line or as model.path in unaudit.toml")
    trust = Trust(plan.model.trust_reason) if plan.model.trust_code else None

    def load(role: Role, label: str, spec: str) -> Candidate:
        return Candidate(role, label, load_model(spec, arch=plan.model.arch, trust=trust))

    specs = plan.references
    with progress.stage("loading models", 1 + bool(specs.original) + len(specs.retrained)) as step:
        subject = load("subject", "subject", plan.model.path)
        step(1)
        original = None
        if specs.original is not None:
            original = load("original", "original", specs.original)
            step(1)
        retrained = []
        for number, spec in enumerate(specs.retrained, start=1):
            retrained.append(load("retrained", f"retrained {number}", spec))
            step(1)
    _refuse_repeats(subject, original, retrained)
    return subject, original, tuple(retrained)


def _refuse_repeats(
    subject: Candidate, original: Candidate | None, retrained: list[Candidate]
) -> None:
    """A model that is its own control would make its verdict by construction."""
    seen: dict[str, Candidate] = {}
    for candidate in retrained:
        twin = seen.setdefault(candidate.model.digest, candidate)
        if twin is not candidate:
            raise UsageError(
                f"{candidate.label} ({candidate.model.provenance.name}) has the same weights "
                f"as {twin.label} ({twin.model.provenance.name}); "
                "retrained models need different seeds"
            )
    if subject.model.digest in seen:
        raise UsageError(
            f"the subject has the same weights as {seen[subject.model.digest].label}; "
            "a subject cannot be its own reference, take it out of --retrained"
        )
    if original is not None and original.model.digest in seen:
        raise UsageError(
            f"the original has the same weights as {seen[original.model.digest].label}; "
            "check --original and --retrained"
        )


def _ids_hmac(forget: Split, key: bytes) -> str:
    ids = sorted(forget.id_of(position) for position in range(len(forget)))
    return hmac.new(key, "\n".join(ids).encode(), "sha256").hexdigest()
