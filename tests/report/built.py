"""Whole records of a given outcome, without a look inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unaudit.evidence import Scenario
from unaudit.report.record import (
    Calibration,
    ClassAccuracy,
    ClassCount,
    Controls,
    Duplicates,
    Environment,
    FamilyFinding,
    Finding,
    Interval,
    Outcome,
    Plan,
    Policy,
    ProbeControl,
    Record,
    Request,
    Skip,
    Subject,
    Verdict,
)

from .parts import (
    CARDS,
    TAU,
    Card,
    accuracies,
    digest,
    histogram,
    model,
    planned,
    probe_outcome,
    roc,
)
from .unlearned import NO_FAKE


def build(
    *,
    outcome: Outcome,
    scenario: Scenario,
    center: float,
    cards: Sequence[Card] = CARDS,
    references: int = 5,
    half_width: float = 0.22,
    blind: frozenset[str] = frozenset({"modified_entropy", "zrf"}),
    seed: int = 7,
    subject: str = "unlearned.safetensors",
    classes: Sequence[int] = tuple(range(10)),
) -> Record:
    """A record whose informative probes scatter around a residual index of ``center``."""
    rng = np.random.default_rng(seed)
    findings, controls, histograms, rocs = [], [], [], []
    for position, card in enumerate(cards):
        informative = card.name not in blind and references > 0
        estimate = float(center + rng.normal(0, 0.09))
        width = half_width * (1 + 0.25 * rng.random()) * (1 if informative else 7)
        low: float | None = estimate - width
        high: float | None = estimate + width
        if not informative and position % 2:
            low = high = None
        index = Interval(estimate=estimate, low=low, high=high, level=0.9)
        read = probe_outcome(index) if informative else "not-informative"
        fails = read == "residual"
        findings.append(
            Finding(
                probe=card.name,
                title=card.title,
                family=card.family,
                statistic="mean-difference" if card.scores else "scalar",
                measure=float(0.06 + 0.5 * estimate),
                residual_index=index if references else None,
                outcome=read,
                counted=informative,
                p_residual=0.0004 if fails else float(rng.uniform(0.2, 0.99)),
                p_over_unlearned=float(rng.uniform(0.5, 0.99)),
                p_adjusted=(0.003 if fails else 1.0) if informative else None,
                fails=fails,
                detail={"attacker": "logistic regression", "folds": 2, "balanced": True},
            )
        )
        controls.append(
            ProbeControl(
                probe=card.name,
                mode="retrained" if references else None,
                original=0.55 if references else None,
                retrained=tuple((0.06 + 0.04 * rng.normal(size=references)).tolist()),
                positive="not-run" if not references else "passed" if informative else "failed",
                negative="passed" if references else "not-run",
                detectable=0.21 if informative else None,
                informative=informative,
                reason=None
                if informative
                else "The original and the retrained models give the same scores (AUC 0.51)."
                if references
                else "No retrained model was handed in.",
            )
        )
        if card.scores:
            histograms.append(histogram(card, 1.1 * max(0.0, center), rng))
            rocs.append(roc(card, 1.1 * max(0.0, center), rng))
    families = []
    for family in ("membership", "output-distance"):
        fails = outcome == "fail" and (center > 0 or family == "membership")
        names = tuple(
            f.probe for f in findings if f.family == family and f.outcome != "not-informative"
        )
        pooled = (
            Interval(
                estimate=center,
                low=center - half_width * 0.8,
                high=center + half_width * 0.8,
                level=0.9,
            )
            if names
            else None
        )
        families.append(
            FamilyFinding.model_validate(
                {
                    "family": family,
                    "required": True,
                    "informative": names,
                    "pooled": pooled,
                    "outcome": probe_outcome(pooled) if pooled else "not-informative",
                    "p_adjusted": (0.002 if fails else 1.0) if pooled else None,
                    "fails": fails,
                }
            )
        )
    upper = center + half_width * 0.8 if references else None
    headline = {
        "pass": f"Residual influence is at most {100 * (upper or 0):.0f}% of the original's "
        "(95% confidence).",
        "fail": f"The pooled membership index is {center:.2f}, above the margin of {TAU:.2f}.",
        "inconclusive": "The intervals cross the margin of 0.50: these data cannot decide.",
    }[outcome]
    return Record(
        report_id=digest(f"{outcome}{scenario}{center}")[:16],
        subject=Subject(
            model=model(
                "subject",
                subject,
                format="pt state dict",
                tier="T1",
                ignored=("numpy scalar ×3", "optimizer", "epoch"),
            ),
            claimed_method="fine-tuning on the retained data, 10 epochs",
        ),
        request=Request(
            forget=200,
            retain=800,
            unseen=597,
            validation=0,
            ids_hmac=digest("ids"),
            id_type="index",
            data_sha256=digest("data"),
            input_shape=(64,),
            n_classes=10,
            scenario=scenario,
            scenario_source="detected",
            classes=tuple(
                ClassCount(label=c, forget=200 // len(classes), retain=80, unseen=60)
                for c in classes
            ),
            duplicates=Duplicates(forget_retain=3, forget_unseen=0, retain_unseen=1),
        ),
        plan=Plan(
            sha256=digest("plan"),
            policy=Policy(
                preset="standard",
                tau=TAU,
                alpha=0.05,
                access="black-box",
                accept_black_box=True,
                fail_on="inconclusive",
            ),
            probes=tuple(planned(card) for card in cards),
            seed=0,
            bootstrap=2000,
            config={
                "schema_version": 1,
                "model": {"path": subject, "arch": "unaudit:mlp?widths=64-128-128-10"},
                "policy": {"preset": "standard", "tau": None},
                "run": {"formats": ["html", "pdf"], "seed": 0},
            },
        ),
        controls=Controls(
            original=model("original", "original.safetensors") if references else None,
            retrained=tuple(
                model("retrained", f"retrained-{i}.safetensors") for i in range(references)
            ),
            smallest_rank_p=1 / (references + 1) if references else None,
            accuracy=accuracies(center, references, scenario, subject),
            per_class=tuple(
                ClassAccuracy(
                    label=c,
                    forget=float(np.clip(0.93 + 0.06 * center + rng.normal(0, 0.02), 0, 1)),
                    retain=0.998 if scenario == "sample" else None,
                    unseen=float(np.clip(rng.normal(0.93, 0.02), 0, 1)),
                    retrained_forget=float(np.clip(rng.normal(0.93, 0.02), 0, 1)),
                )
                for c in classes
            ),
            warnings=()
            if references != 1
            else ("With one retrained model the spread between retrained models is unknown.",),
        ),
        findings=tuple(findings),
        families=tuple(families),
        skipped=(
            Skip(
                probe="idi",
                title="Information difference index",
                kind="left-out",
                reason="needs white-box access; the policy fixes black-box",
            ),
            Skip(
                probe="aus",
                title="Adaptive unlearning score",
                kind="skipped",
                reason="needs the original model",
            ),
        ),
        calibration=Calibration(
            probes=tuple(controls), histograms=tuple(histograms), rocs=tuple(rocs)
        ),
        inside=None,
        sanity=NO_FAKE,
        verdict=Verdict(
            outcome=outcome,
            assurance_level=2 if references else 1,
            headline=headline,
            upper_bound=upper,
            reasons=(
                "Every required family has an informative probe.",
                f"The pooled intervals end at {upper or 0:.2f} at most.",
            )
            if outcome == "pass"
            else ("Membership: 4 of 6 probes lie above the margin after Holm's correction.",)
            if outcome == "fail"
            else ("The pooled intervals of both families cross the margin.",),
            caps=()
            if references
            else ("Without retrained models the assurance level cannot exceed 1.",),
            missing=()
            if references >= 5
            else ("More retrained models (5 or more) would narrow the intervals.",),
            next_step=None
            if outcome != "inconclusive"
            else "Hand in 4 more retrained models; the intervals would then be about ±0.2.",
            exit_code={"pass": 0, "fail": 1, "inconclusive": 3}[outcome],
        ),
        environment=Environment(
            unaudit="0.1.0",
            python="3.11.7",
            platform="Linux x86_64",
            device="cpu",
            packages={"numpy": "2.4.6", "scipy": "1.17.1", "torch": "2.13.0+cpu"},
            command=f"unaudit check {subject} --forget forget.txt --original original.safetensors",
            started="2026-05-03T14:05:09+00:00",
            seconds={"load": 0.41, "forward": 1.9, "probes": 3.2, "bootstrap": 5.75, "report": 0.6},
            warnings=("The network was not cut off while the checkpoint was converted.",),
        ),
    )
