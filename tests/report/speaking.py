"""Records of audits of language models."""

from __future__ import annotations

import math

import numpy as np

from unaudit.report.record import (
    Accuracy,
    Language,
    ModelExtraction,
    ModelPerplexity,
    Record,
    TextSplit,
    Worst,
)

from .parts import Card

TEXT_CARDS = (
    Card("perplexity", "Perplexity", "membership"),
    Card("zlib", "Perplexity over zlib", "membership"),
    Card("min-k", "Min-K% probability", "membership"),
    Card("min-k-plus-plus", "Min-K%++", "membership"),
    Card("extraction", "Extraction", "membership"),
    Card("token-kl", "KL of next-token odds", "output-distance", unsigned=True, scores=False),
)
LOSSES = {"forget": 2.71, "retain": 1.62, "unseen": 2.77}
"""Of models that never saw the forget set, nats per token."""
LABELED = tuple(range(4))


def with_language(record: Record, *, remembers: float, labeled: bool = False) -> Record:
    """The same audit of language models.

    Args:
        record: of the audit.
        remembers: how much of the forget set the subject remembers, 0 to 1.
        labeled: whether texts have classes.
    """
    rng = np.random.default_rng(11)
    named = {"subject": "subject", "original": "original"}
    found = [
        (
            row.model_copy(update={"model": named.get(row.role, row.model)}),
            *_numbers(remembers if row.role == "subject" else row.role == "original", rng),
        )
        for row in record.controls.accuracy
    ]
    controls = record.controls.model_copy(
        update={
            "accuracy": tuple(
                Accuracy.model_validate(row.model_dump() | _rates(losses))
                for row, losses, _ in found
            ),
            "per_class": record.controls.per_class if labeled else (),
        }
    )
    request = record.request.model_copy(
        update={
            "unit": "text",
            "input_shape": (212,),
            "n_classes": len(LABELED) if labeled else 1,
            "classes": record.request.classes if labeled else (),
        }
    )
    return record.model_copy(
        update={
            "controls": controls,
            "request": request,
            "language": Language(
                context=128,
                texts=(
                    TextSplit(split="forget", texts=200, tokens=18_204, longer=3),
                    TextSplit(split="retain", texts=800, tokens=71_930, longer=11),
                    TextSplit(split="unseen", texts=597, tokens=54_412, longer=0),
                ),
                perplexity=tuple(
                    ModelPerplexity(
                        model=row.model,
                        role=row.role,
                        **{name: math.exp(loss) for name, loss in losses.items()},
                    )
                    for row, losses, _ in found
                ),
                extraction=tuple(
                    ModelExtraction(model=row.model, role=row.role, **rates)
                    for row, _, rates in found
                ),
            ),
        }
    )


def _numbers(
    remembers: float, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, float]]:
    """Losses, and shares of texts that come out."""
    losses = {name: loss + rng.normal(0, 0.015) for name, loss in LOSSES.items()}
    losses["forget"] -= remembers * (LOSSES["forget"] - LOSSES["retain"])
    return losses, {"forget": round(48 * remembers) / 200, "retain": 0.25, "unseen": 0.0}


def _rates(losses: dict[str, float]) -> dict[str, float]:
    return {name: float(np.clip(0.9 - 0.2 * loss, 0, 1)) for name, loss in losses.items()}


def with_texts(record: Record, texts: tuple[str, ...]) -> Record:
    """The same record with texts of those that stand out most."""

    def told(found: Worst) -> Worst:
        return found.model_copy(
            update={
                "examples": tuple(
                    example.model_copy(update={"text": texts[place % len(texts)]})
                    for place, example in enumerate(found.examples)
                )
            }
        )

    environment = record.environment.model_copy(
        update={"warnings": ("contains texts of examples; do not publish",)}
    )
    return record.model_copy(
        update={"worst": tuple(map(told, record.worst)), "environment": environment}
    )
