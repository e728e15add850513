"""What shadow models add to a sample record."""

from __future__ import annotations

import numpy as np

from unaudit.report.record import Record, ShadowAttack, ShadowModels, Worst, WorstExample

from .parts import Card, digest

SHADOW_CARDS = (
    Card("lira", "Likelihood ratio (LiRA)", "membership"),
    Card("u-lira", "Unlearning LiRA (U-LiRA)", "membership"),
    Card("rmia", "Robust attack (RMIA)", "membership"),
    Card("klom", "KL of margins (KLoM)", "output-distance", unsigned=True, scores=False),
)
VARIANTS = {
    "lira": "online, median, pooled variance, 60 shadows, 2 queries",
    "u-lira": "median, pooled variance, 60 shadows, 2 queries",
    "rmia": "online, gamma = 1, 60 shadows, 2 queries",
    "klom": "60 shadows, 20 bins, one subject",
}
NOTES = (
    "Half of the 60 shadow models hold each of these examples: 200 of 200 forget, 597 of 597 "
    "unseen and 3 of 800 retain.",
    "Each is trained on 1000 examples, the subject's original on 1000.",
    "Each unlearns 198 to 202 of them once, the request is for 200; 98 % of the class make-up is "
    "the same.",
)


def with_shadows(record: Record) -> Record:
    """The same audit with 60 shadow models, for a record built with :data:`SHADOW_CARDS`."""
    rng = np.random.default_rng(5)
    titles = {card.name: card.title for card in SHADOW_CARDS}
    findings = tuple(
        finding.model_copy(
            update={"detail": {"variant": VARIANTS[finding.probe], "models_per_arm": [30.0, 30.0]}}
        )
        if finding.probe in VARIANTS
        else finding
        for finding in record.findings
    )
    return record.model_copy(
        update={
            "findings": findings,
            "shadows": ShadowModels(
                models=60,
                train_size=1000,
                queries=("plain", "flip"),
                unlearner="finetune",
                notes=NOTES,
                attacks=tuple(
                    ShadowAttack(
                        probe=finding.probe,
                        title=finding.title,
                        variant=VARIANTS[finding.probe],
                        left_out=3 if finding.probe == "u-lira" else 0,
                    )
                    for finding in findings
                    if finding.probe in VARIANTS
                ),
            ),
            "worst": tuple(
                worst(probe, titles[probe], top, start, rng)
                for probe, top, start in (("lira", 5.8, 0), ("u-lira", 0.99, 7), ("rmia", 1.0, 40))
            ),
        }
    )


def worst(probe: str, title: str, top: float, start: int, rng: np.random.Generator) -> Worst:
    """Ten examples of which the lists of close ``start`` have some in common."""
    scores = top * (1 - np.sort(rng.uniform(0, 0.2, 10)))
    shares = np.round(1 - np.sort(rng.uniform(0, 0.03, 10)), 4)
    return Worst(
        probe=probe,
        title=title,
        unseen=597,
        examples=tuple(
            WorstExample(name=digest(f"{start + at}")[:16], score=float(f"{s:.3g}"), above_unseen=u)
            for at, (s, u) in enumerate(zip(scores, shares, strict=True))
        ),
    )
