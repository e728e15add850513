"""The words of a report, one place for terminal and page.

What a word may claim is limited: a test at its settings finds evidence or does not. The templates
and this file are under a lint test that refuses words which promise more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unaudit.evidence import FAMILIES, Access, Family
from unaudit.report.nouns import nouns_of
from unaudit.report.record import Depth, Outcome, ProbeOutcome, Record

FAMILY_TITLES: Mapping[Family, str] = {
    "membership": "Membership",
    "output-distance": "Output distance",
    "representation": "Representation",
    "recoverability": "Recoverability",
    "utility": "Utility",
}

FAMILY_QUESTIONS: Mapping[Family, str] = {
    "membership": "Do forget examples still look like training examples?",
    "output-distance": "How far are the outputs from those of retrained models?",
    "representation": "What do activations and weights still hold?",
    "recoverability": "How fast does the forgotten knowledge come back?",
    "utility": "Does the model still do its work?",
}

OUTCOME_TITLES: Mapping[Outcome, str] = {
    "pass": "Pass",
    "fail": "Fail",
    "inconclusive": "Inconclusive",
}

OUTCOME_MEANINGS: Mapping[Outcome, str] = {
    "pass": "No evidence of retained influence above the margin",
    "fail": "Evidence of retained influence",
    "inconclusive": "The evidence does not decide",
}

OUTCOME_SYMBOLS: Mapping[Outcome, str] = {"pass": "✓", "fail": "✗", "inconclusive": "?"}

TIERS: Mapping[str, str] = {
    "T0": "T0, data only",
    "T1": "T1, restricted unpickling",
    "T2": "T2, code from the model's side was allowed to run",
}

STATISTICS: Mapping[str, str] = {
    "mean": "mean over forget",
    "auc": "AUC, forget against unseen",
    "mean-difference": "mean, forget − unseen",
    "scalar": "one number",
}

Mark = Literal["filled", "up", "down", "square", "diamond", "ring", "hollow"]


@dataclass(frozen=True)
class Reading:
    """How one outcome of a probe is written and drawn."""

    word: str
    symbol: str
    mark: Mark
    meaning: str


_LIKE = Reading("like retrained", "●", "filled", "the whole interval lies within ±τ")
_BOUNDED = Reading("not residual", "○", "ring", "the interval ends below τ and starts below −τ")
_RESIDUAL = Reading("residual", "▲", "up", "the whole interval lies above τ")
_OVER = Reading("over-unlearned", "▼", "down", "the whole interval lies below −τ")
_OPEN = Reading("inconclusive", "◇", "diamond", "the interval crosses a margin")
_BLIND = Reading(
    "not informative", "□", "hollow", "the probe cannot see on these data; not counted"
)
_DIFFERS = Reading(
    "differs", "■", "square", "a distance above τ: different from retrained, direction unknown"
)
READINGS: tuple[Reading, ...] = (_LIKE, _BOUNDED, _RESIDUAL, _DIFFERS, _OVER, _OPEN, _BLIND)

_BY_OUTCOME: Mapping[ProbeOutcome, Reading] = {
    "like-retrained": _LIKE,
    "not-residual": _BOUNDED,
    "residual": _RESIDUAL,
    "over-unlearned": _OVER,
    "inconclusive": _OPEN,
    "not-informative": _BLIND,
}


def reading(outcome: ProbeOutcome, *, unsigned: bool = False) -> Reading:
    """An unsigned probe measures a distance, which has no direction to report."""
    return _DIFFERS if unsigned and outcome == "residual" else _BY_OUTCOME[outcome]


def unsigned_probes(record: Record) -> frozenset[str]:
    """Names of the planned probes that measure a distance."""
    return frozenset(probe.name for probe in record.plan.probes if probe.unsigned)


DETECTION: Mapping[str, str] = {"passed": "seen", "failed": "not seen", "not-run": "not run"}
"""The positive control: does the probe tell the original from the retrained models?"""
SILENCE: Mapping[str, str] = {"passed": "silent", "failed": "false alarm", "not-run": "not run"}
"""The negative control: does it leave held-out retrained models unflagged?"""

MUST_APPEAR: tuple[str, ...] = (
    "Passing is not proof of deletion.",
    "Failing is evidence, not proof of storage.",
    "Averages do not protect individuals.",
    "Results age as attacks improve.",
    "Other copies, backups and distilled models were not tested.",
    "This report is not legal advice.",
)


@dataclass(frozen=True)
class ThreatModel:
    """The adversary that the audit stands for, in the terms of NIST AI 100-2 E2025."""

    knowledge: str
    capability: str
    auxiliary: str
    goal: str
    stage: str
    compute: str


def threat_model(record: Record) -> ThreatModel:
    """Derived from the access that the policy fixed and from what was handed in."""
    access: Access = record.plan.policy.access
    references = len(record.controls.retrained)
    unit = record.request.unit
    labeled = " with their labels" if record.request.n_classes > 1 else ""
    auxiliary = [f"{record.request.forget:,} forget {unit}s{labeled}"]
    if record.request.unseen:
        auxiliary.append(f"{record.request.unseen:,} {unit}s that no audited model was trained on")
    if record.request.retain:
        auxiliary.append(f"{record.request.retain:,} retained training {unit}s")
    if references:
        auxiliary.append(f"{references} retrained reference model{'s' if references > 1 else ''}")
    if record.controls.original is not None:
        auxiliary.append("the original model")
    if record.shadows is not None:
        auxiliary.append(f"{record.shadows.models} shadow models, trained by the original's recipe")
    white = access == "white-box"
    return ThreatModel(
        knowledge=(
            "White-box: architecture, weights, activations and gradients"
            if white
            else "Black-box: inputs and full output scores (logits), nothing inside the model"
            if record.language is None
            else "Black-box: texts and full output scores (logits) of every token in them, nothing "
            "inside the model"
        ),
        capability=(
            "Query access, and training of private copies of the model"
            if white
            else "Query access without a limit on the number of queries"
        ),
        auxiliary="; ".join(auxiliary),
        goal=(
            "Privacy compromise: membership inference on the forget set"
            + (", extraction of its texts" if record.language else "")
            + (", and recovery of what the representation still holds" if white else "")
        ),
        stage="Deployment: the model is finished; training cannot be influenced",
        compute="One device; the cost by stage is listed under Reproduction",
    )


SHALLOW: Mapping[Depth, str] = {
    "identical weights": "The subject is the original: every weight is the same.",
    "encoder weights identical": (
        "The subject's encoder is the original's: only the last layer changed."
    ),
    "encoder activations identical": (
        "The encoder gives the original's features: only the last layer changed."
    ),
}


def shallow(record: Record) -> str | None:
    """What of the original was left as it was, on one line; None if nothing was or none is known.

    It is no verdict: that rests on the probes.
    """
    change = record.inside.shallow if record.inside else None
    if change is None:
        return None
    if change.kind == "encoder activations identical" and not change.head_differs:
        return "The encoder gives the original's features, and the last layer is the same."
    return SHALLOW.get(change.kind)


def no_bound(record: Record) -> str:
    """Why there is no upper bound, in a few words."""
    lacking = [f for f in record.families if f.required and f.pooled is None]
    if not lacking:
        return "a required family has no bound above" if record.families else "nothing was pooled"
    *names, last = (FAMILY_TITLES[family.family].lower() for family in lacking)
    return f"{', '.join(names)}{' and ' if names else ''}{last} could not be pooled"


def families_without_probe(record: Record) -> tuple[Family, ...]:
    """Families in which nothing was planned: attacks that this audit did not run."""
    planned = {probe.family for probe in record.plan.probes}
    return tuple(f for f in FAMILIES if f not in planned and f != "utility")


def scope(record: Record) -> str:
    """What the outcome holds for, in one sentence."""
    request, policy = record.request, record.plan.policy
    models = len(record.controls.retrained)
    sees = sum(control.informative for control in record.calibration.probes)
    against = (
        f"against {models} retrained model{'s' if models != 1 else ''}"
        if models
        else "without retrained models"
    )
    return (
        f"Scope: these tests, at these settings, on one model file and {request.forget:,} forget "
        f"{request.unit}{'s' if request.forget != 1 else ''} ({request.scenario} scenario), with "
        f"{policy.access} access, {against}; {sees} of {len(record.plan.probes)} planned probes "
        "could see on these data."
    )


def scenario_meaning(record: Record) -> str:
    """The scenario in plain words."""
    nouns = nouns_of(record)
    own = nouns.kind if len(record.request.classes) == 1 else nouns.kinds
    return {
        "class": f"The forget set is all training data of its {own}.",
        "partial-class": f"The forget set is part of the training data of its {own}.",
        "sample": f"The forget set is spread over the {nouns.kinds} of the training data."
        if record.request.n_classes > 1
        else "The forget set is a part of the training data.",
    }[record.request.scenario]


def _beyond(record: Record) -> bool:
    """Whether some test, or several taken together, lies beyond the margin after correction."""
    found = [test.p_adjusted for test in record.findings]
    found += [family.p_adjusted for family in record.families]
    return any(p is not None and p <= record.plan.policy.alpha for p in found)


def found(record: Record) -> str:
    """The result in plain words."""
    tau = record.plan.policy.tau
    if record.verdict.outcome == "pass":
        return (
            "At these settings, the subject could not be told apart from models that never saw the "
            f"data by more than {tau:.2f} of the distance between those models and the original. "
            "Smaller traces may remain."
        )
    if record.verdict.outcome == "inconclusive" and _beyond(record):
        return (
            "The evidence does not decide. Tests found the subject beyond the margin, but the "
            "models that it was compared with are in doubt, as the verdict says, and so is that "
            "finding. That is not a good result, and not evidence of retained influence either."
        )
    if record.verdict.outcome == "inconclusive":
        return (
            "The evidence does not decide. What was measured neither shows retained influence "
            "beyond the margin nor rules it out; that is not a good result and not a bad one."
        )
    failing = {finding.outcome for finding in record.findings if finding.fails}
    failing |= {family.outcome for family in record.families if family.fails}
    if failing == {"over-unlearned"}:
        return nouns_of(record).say(
            "The subject stands out on the far side: it treats the forget examples as less "
            "familiar than a model would that never saw them. That too can betray which examples "
            "were meant to be forgotten."
        )
    return (
        "On the forget set the subject still differs from models that never saw the data, by more "
        "than the margin, in a test, or in several taken together, that can see the difference. "
        "That is evidence that the data still have influence."
    )
