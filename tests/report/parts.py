"""Parts of records, from seeded draws that keep to what an audit would write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from unaudit.evidence import Family, Scenario
from unaudit.report.record import (
    Accuracy,
    Histogram,
    Interval,
    ModelRef,
    OperatingPoint,
    PlannedProbe,
    ProbeOutcome,
    Roc,
)

TAU = 0.5


@dataclass(frozen=True)
class Card:
    name: str
    title: str
    family: Family
    unsigned: bool = False
    scores: bool = True


CARDS = (
    Card("loss", "Loss attack (MIA-I)", "membership"),
    Card("confidence", "Confidence attack (C-MIA)", "membership"),
    Card("entropy", "Entropy attack (E-MIA)", "membership"),
    Card("modified_entropy", "Modified entropy attack", "membership"),
    Card("margin", "True-label margin", "membership"),
    Card("train_vs_test", "Train-vs-test (MIA-II)", "membership"),
    Card("jsd", "Jensen–Shannon divergence", "output-distance", unsigned=True, scores=False),
    Card("activation_l2", "Softmax distance, L2", "output-distance", unsigned=True, scores=False),
    Card("disagreement", "Prediction disagreement", "output-distance", unsigned=True, scores=False),
    Card("zrf", "Zero retrain forgetting", "output-distance", scores=False),
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def probe_outcome(interval: Interval, tau: float = TAU) -> ProbeOutcome:
    low = -np.inf if interval.low is None else interval.low
    high = np.inf if interval.high is None else interval.high
    if low > tau:
        return "residual"
    if high < -tau:
        return "over-unlearned"
    return "like-retrained" if -tau <= low and high <= tau else "inconclusive"


def model(role: str, name: str, **changes: object) -> ModelRef:
    values: dict[str, object] = {
        "role": role,
        "name": name,
        "sha256": digest(name),
        "size_bytes": 336_912,
        "format": "safetensors",
        "tier": "T0",
        "arch": "unaudit:mlp?widths=64-128-128-10",
        "parameters": 26_122,
    }
    return ModelRef.model_validate({**values, **changes})


def histogram(card: Card, shift: float, rng: np.random.Generator) -> Histogram:
    forget = rng.normal(2.4 + shift, 1.3, 200)
    unseen = rng.normal(2.4, 1.5, 597)
    retain = rng.normal(3.6, 1.0, 800)
    edges = np.linspace(min(unseen.min(), -2), max(retain.max(), 7), 31)
    return Histogram(
        probe=card.name,
        title=card.title,
        unit="log-odds of the true label",
        edges=tuple(edges.tolist()),
        forget=tuple(np.histogram(forget, edges)[0].tolist()),
        unseen=tuple(np.histogram(unseen, edges)[0].tolist()),
        retain=tuple(np.histogram(retain, edges)[0].tolist()),
    )


def roc(card: Card, shift: float, rng: np.random.Generator) -> Roc:
    forget = np.sort(rng.normal(shift, 1.0, 200))[::-1]
    unseen = np.sort(rng.normal(0.0, 1.0, 597))[::-1]
    thresholds = np.concatenate([[np.inf], np.sort(np.concatenate([forget, unseen]))[::-1]])
    fpr = np.array([(unseen >= t).mean() for t in thresholds])
    tpr = np.array([(forget >= t).mean() for t in thresholds])
    spread = 1.96 * np.sqrt(tpr * (1 - tpr) / 200 + 1e-4)
    auc = float(np.trapezoid(tpr, fpr))
    points = []
    for rate in (0.1, 0.01):
        at = float(tpr[fpr <= rate].max())
        points.append(
            OperatingPoint(fpr=rate, tpr=at, low=max(0.0, at - 0.05), high=min(1.0, at + 0.06))
        )
    return Roc(
        probe=card.name,
        title=card.title,
        positives=200,
        negatives=597,
        auc=Interval(estimate=auc, low=auc - 0.045, high=auc + 0.045, level=0.9),
        advantage=float((tpr - fpr).max()),
        fpr=tuple(fpr.tolist()),
        tpr=tuple(tpr.tolist()),
        band_low=tuple(np.clip(tpr - spread, 0, 1).tolist()),
        band_high=tuple(np.clip(tpr + spread, 0, 1).tolist()),
        points=tuple(points),
        epsilon_low=max(0.0, shift - 0.6),
    )


def planned(card: Card) -> PlannedProbe:
    return PlannedProbe(
        name=card.name,
        title=card.title,
        label=f"{card.name.title().replace('_', '')}(folds=2)",
        family=card.family,
        access="black-box",
        measures="How well an attacker tells forget from unseen examples; higher: more remembered.",
        source="Yeom et al. 2018, section 3.2; Kurmanji et al. 2023, section 5",
        blind_spots=(
            "Influence that does not change the outputs.",
            "Models that never overfitted.",
        ),
        unsigned=card.unsigned,
    )


def accuracies(
    center: float, references: int, scenario: Scenario, subject: str
) -> tuple[Accuracy, ...]:
    by_class = scenario != "sample"

    def row(name: str, role: str, forget: float, unseen: float) -> Accuracy:
        return Accuracy.model_validate(
            {
                "model": name,
                "role": role,
                "forget": forget,
                "retain": 0.999,
                "unseen": unseen,
                "unseen_kept": unseen + 0.01 if by_class else None,
                "unseen_forgotten": forget - 0.02 if by_class and forget > 0.02 else None,
            }
        )

    rows = [row(subject, "subject", min(1.0, 0.93 + 0.06 * center), 0.931)]
    if references:
        rows.append(row("original.safetensors", "original", 1.0, 0.947))
    rows += [
        row(f"retrained-{i}.safetensors", "retrained", 0.93 + 0.004 * i, 0.936)
        for i in range(references)
    ]
    return tuple(rows)
