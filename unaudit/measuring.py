"""Run every probe on every model: views in, one Measurement per probe out. Decides nothing."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np

from unaudit.errors import UnauditError
from unaudit.evidence import (
    Evidence,
    FloatArray,
    IntArray,
    Probe,
    ProbeCard,
    Scalar,
    Scores,
    Skipped,
    SplitName,
    Task,
)
from unaudit.progress import SILENT, Progress
from unaudit.views import BlackBox

if TYPE_CHECKING:
    from unaudit.case import Case
    from unaudit.engine.answers import AnswerCache
    from unaudit.white_box import WhiteBox

MIN_COMPARED = 3
"""Retrained models that a comparative probe needs. With two, each is as far from the other as the
other from it, so their spread is zero by construction and says nothing."""

_READ: Mapping[Task, str] = {
    "classification": "what a language model says of tokens; these models are classifiers",
    "language-modeling": "logits of classes, which a language model does not give",
}
"""What a probe reads that is not for models of this task."""

Answer: TypeAlias = Scores | Scalar


@dataclass(frozen=True, eq=False)
class Reading:
    """What one probe says of one model: one answer, or one per reference compared with."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one probe says of every model."""

    probe: Probe
    subject: Reading
    original: Reading | None
    retrained: tuple[Reading, ...]
    """A comparative probe's reading of retrained model i compares it with each j ≠ i, in order."""
    calibrators: Mapping[str, Reading] = field(default_factory=dict)
    """By the unlearner that made the model; those missing on which the probe declined or broke."""

    @property
    def card(self) -> ProbeCard:
        return self.probe.card


@dataclass(frozen=True)
class Missed:
    """A probe that gave no measurement, and why."""

    card: ProbeCard
    kind: Literal["skipped", "errored", "left-out"]
    reason: str


class _DeclinedError(Exception):
    """Ends one probe's run early; carries the reason."""


def measure_all(
    probes: Sequence[Probe],
    case: Case,
    view_of: Mapping[str, BlackBox],
    seed: int,
    progress: Progress = SILENT,
    *,
    inside_of: Mapping[str, WhiteBox] = MappingProxyType({}),
    answers: AnswerCache | None = None,
) -> tuple[list[Measurement], list[Missed]]:
    """Run ``probes`` on every model.

    Args:
        probes: in the order of the report.
        case: what is audited.
        view_of: what black-box probes are given, by the candidates' labels; shows outputs only.
        seed: root of every probe's generator.
        progress: told of every probe.
        inside_of: what white-box probes are given.
        answers: where answers of white-box probes are remembered.

    A probe's generator is derived from the seed and the probe's parameters, never from the model or
    from its place in the list: models pair up, and adding a probe changes no other number.
    """
    measured: list[Measurement] = []
    missed: list[Missed] = []
    with progress.stage("probing", len(probes)) as step:
        for probe in probes:
            try:
                measured.append(_measure(probe, case, view_of, inside_of, seed, answers))
            except _DeclinedError as stop:
                missed.append(Missed(probe.card, "skipped", str(stop)))
            except UnauditError:
                raise
            except Exception as error:  # a probe may break in any way; the audit reports it
                reason = f"{type(error).__name__}: {error}"
                missed.append(Missed(probe.card, "errored", reason))
            step(1)
    return measured, missed


def obstacle(card: ProbeCard, case: Case) -> str | None:
    """Why a probe cannot run on this case, or None."""
    if case.task not in card.tasks:
        return f"reads {_READ[case.task]}"
    if case.scenario not in card.scenarios:
        return f"does not apply to the {case.scenario} scenario"
    if card.asks == "relabeling" and case.swapped is None:
        return "the request is not a relabeling (request.kind = 'relabel')"
    if card.asks == "canaries" and "forget" not in case.marks.canaries:
        return "no canaries are marked in the list of forget ids ('unaudit canary make')"
    if card.shadows is not None and case.shadows is None:
        return "needs shadow models; add --shadows N (and a recipe, to train them)"
    if card.shadows == "unlearned" and case.shadows is not None and not case.shadows.unlearner:
        return "needs the unlearning method that was used; add --unlearner METHOD"
    for split in sorted(card.needs - set(case.splits)):
        return f"needs {split} examples; add --{split}"
    if card.access == "white-box":
        for candidate in case.candidates:
            if candidate.recorded:
                return (
                    f"looks inside every model, and {candidate.label} "
                    f"({candidate.model.provenance.name}) is recorded outputs; hand in its file"
                )
    if card.comparative and len(case.retrained) < MIN_COMPARED:
        return (
            f"compares with retrained models and needs {MIN_COMPARED} of them, there are "
            f"{len(case.retrained)}; add --retrained, or where a recipe makes them, raise "
            "calibration.retrained"
        )
    return None


def probe_generator(seed: int, probe: Probe) -> np.random.Generator:
    """The generator of a probe: decided by the root seed, its name and its parameters."""
    digest = hashlib.sha256(f"{probe.card.name}:{probe!r}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _measure(
    probe: Probe,
    case: Case,
    view_of: Mapping[str, BlackBox],
    inside_of: Mapping[str, WhiteBox],
    seed: int,
    answers: AnswerCache | None,
) -> Measurement:
    reason = obstacle(probe.card, case)
    if reason is not None:
        raise _DeclinedError(reason)
    references = [candidate.label for candidate in case.retrained]
    white_box = probe.card.access == "white-box"
    views: Mapping[str, BlackBox] = inside_of if white_box else view_of
    everyone = (*case.candidates, *case.calibrators)
    digests = {candidate.label: candidate.model.digest for candidate in everyone}

    sizes = {name: len(split) for name, split in case.splits.items()}

    def ask(*labels: str) -> Answer:
        def compute() -> Evidence:
            seen = [views[label] for label in labels]
            return cast(Callable[..., Evidence], probe)(*seen, probe_generator(seed, probe))

        if not white_box or answers is None:
            return _checked(compute(), sizes)
        return _checked(answers.recall(probe, tuple(digests[x] for x in labels), compute), sizes)

    def read(label: str) -> Reading:
        if not probe.card.comparative:
            return Reading((ask(label),))
        return Reading(tuple(ask(label, other) for other in references if other != label))

    original = None if case.original is None else read(case.original.label)
    retrained = tuple(read(label) for label in references)
    try:
        subject = read(case.subject.label)
    except _DeclinedError as stop:
        if original is None and not retrained:
            raise
        # what worked on the controls must not be avoided by a subject that makes it decline
        raise ValueError(f"declined on the subject alone: {stop}") from None
    calibrators = {}
    for candidate in case.calibrators:
        # these decide nothing, so what goes wrong on one of them costs its cell and no more
        with contextlib.suppress(Exception):
            calibrators[candidate.label] = read(candidate.label)
    return Measurement(probe, subject, original, retrained, calibrators)


def _checked(evidence: Evidence, sizes: Mapping[SplitName, int]) -> Answer:
    """The evidence, unless the probe declined or returned what cannot be evidence.

    Raises:
        _DeclinedError: the probe declined.
        ValueError: numbers that are none, scores that match no examples, a statistic without the
            scores that it needs.
    """
    if isinstance(evidence, Skipped):
        raise _DeclinedError(evidence.reason)
    if isinstance(evidence, Scalar):
        if not np.isfinite([evidence.value, evidence.stderr or 0.0]).all():
            raise ValueError("returned NaN or infinite values")
        _check_scores(evidence.influences, evidence.rows, sizes)
        return evidence
    groups: dict[SplitName, FloatArray | None] = {
        "forget": evidence.forget,
        "unseen": evidence.unseen,
        "retain": evidence.retain,
    }
    given = {split: scores for split, scores in groups.items() if scores is not None}
    _check_scores(given, evidence.rows, sizes)
    if evidence.statistic != "mean" and evidence.unseen is None:
        raise ValueError(f"its statistic '{evidence.statistic}' needs scores of unseen examples")
    return evidence


def _check_scores(
    groups: Mapping[SplitName, FloatArray],
    rows: Mapping[SplitName, IntArray],
    sizes: Mapping[SplitName, int],
) -> None:
    for split, scores in groups.items():
        own = rows.get(split)
        expected = sizes.get(split, 0) if own is None else len(own)
        if scores.shape != (expected,) or not len(scores):
            raise ValueError(f"returned {scores.shape} {split} scores for {expected} examples")
        if not np.isfinite(scores).all():
            raise ValueError("returned NaN or infinite scores")
