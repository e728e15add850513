"""The forget examples that stand out most, under names that only the auditor can resolve."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import FloatArray, IntArray, Scores
from unaudit.recording.shadows import with_shadows
from unaudit.report.record import Worst, WorstExample

MOST = 10
"""Examples of each attack."""
NAME_DIGITS = 16
"""Hex digits of a name."""


def namer(key: bytes, data: str) -> Callable[[str], str]:
    """From the id of an example to its name.

    Args:
        key: the auditor's.
        data: ``Case.sources_digest``. With it in the name, whoever has one audit made under the
            same key learns nothing of the examples of another that happen to have the same ids.
    """

    def name_of(example_id: str) -> str:
        # another hash than that of the list of ids, which a request of one odd id could mimic
        digest = hmac.new(key, f"{data} {example_id}".encode(), "sha512")
        return digest.hexdigest()[:NAME_DIGITS]

    return name_of


def worst(
    case: Case, calibrated: Sequence[Calibrated], name_of: Callable[[str], str]
) -> tuple[Worst, ...]:
    """Of each attack with shadow models, the forget examples with the highest scores.

    Args:
        case: knows the ids.
        calibrated: of every probe that gave a measurement; one without scores of single forget and
            unseen examples is passed over.
        name_of: see :func:`namer`.
    """
    forget = case.splits["forget"]
    found = []
    for item in with_shadows(calibrated):
        card, answer = item.measurement.card, item.measurement.subject.answers[0]
        if not isinstance(answer, Scores) or answer.unseen is None:
            continue
        rows = answer.rows.get("forget", np.arange(len(answer.forget)))
        names = [name_of(forget.id_of(int(row))) for row in rows]
        examples = [
            WorstExample(
                name=names[at],
                score=float(f"{answer.forget[at]:.3g}"),
                above_unseen=_share_below(answer.forget[at], answer.unseen),
            )
            for at in _highest(answer.forget, names)
        ]
        found.append(
            Worst(
                probe=card.name,
                title=card.title,
                unseen=len(answer.unseen),
                examples=tuple(examples),
            )
        )
    return tuple(found)


def _highest(scores: FloatArray, names: Sequence[str]) -> IntArray:
    """Positions; among equals, names decide: places in the list of ids would tell something."""
    order = np.lexsort((np.array(names), -scores))
    return np.asarray(order[:MOST], dtype=np.int64)


def _share_below(score: float, unseen: FloatArray) -> float:
    below, equal = np.count_nonzero(unseen < score), np.count_nonzero(unseen == score)
    return float((below + equal / 2) / len(unseen))
