"""Adaptive unlearning score: forgetting weighed against lost accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._selection import (
    MIN_EXAMPLES,
    absent,
    all_rows,
    rows_of_forget_classes,
    rows_of_kept_classes,
    too_few,
)
from unaudit.evidence import PROBES, Evidence, ProbeCard, Scalar, Scenario
from unaudit.views import BlackBox


def aus(
    forget_accuracy: float, test_accuracy: float, baseline_accuracy: float, scenario: Scenario
) -> float:
    """AUS = (1 − (A_or − A_t)) / (1 + Δ); about 1 is ideal, lower is worse.

    Class scenario (DUCK's "class removal"): Δ = A_f, the accuracy on *test* examples of the forget
    classes, and A_t that on test examples of the kept ones. Otherwise ("homogeneous removal"):
    Δ = |A_f − A_t| with the accuracy on the forget set itself and on all test examples. Scoring a
    removed class by the second formula rewards the model that still knows it.

    Args:
        forget_accuracy: A_f, in [0, 1].
        test_accuracy: A_t, in [0, 1].
        baseline_accuracy: A_or, the accuracy before unlearning on the examples of A_t, in [0, 1].

    Source: Cotogni et al. 2023 (DUCK), adaptive unlearning score.
    """
    gap = forget_accuracy if scenario == "class" else abs(forget_accuracy - test_accuracy)
    return (1.0 - (baseline_accuracy - test_accuracy)) / (1.0 + gap)


@PROBES.register("aus")
@dataclass(frozen=True)
class AdaptiveUnlearningScore:
    """1 − AUS, with a retrained model's accuracy in the place of the original's.

    A probe sees a model and a retrained one, never the original; the accuracy that unlearning may
    cost is measured from the model that one would deploy instead.

    For classifiers alone: the formula of class removal is 1 where nothing of the class is right,
    while a language model that never saw a topic still predicts many of its tokens.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="aus",
        title="Unlearning score (1 − AUS)",
        family="utility",
        measures=(
            "1 minus the adaptive unlearning score: 0 = forgets and keeps its accuracy like a "
            "retrained model, higher = the forget set is still known or accuracy was lost."
        ),
        source="Cotogni et al. 2023 (DUCK), AUS; against a retrained model, not the original",
        cost="no forward pass beyond the shared ones; milliseconds",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Mixes forgetting with lost accuracy: alone it does not say which.",
            "Sees the winning class only, not the confidence in it.",
        ),
        needs=frozenset({"unseen"}),
        comparative=True,
    )

    def __call__(self, view: BlackBox, reference: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        own, baseline = view.outputs("unseen"), reference.outputs("unseen")
        if view.scenario == "class":
            asked = rows_of_forget_classes(view, "unseen")
            tested = rows_of_kept_classes(view, "unseen")
            if len(asked) < MIN_EXAMPLES:
                return too_few(len(asked), "unseen examples of the forget classes")
            forget = own.correct[asked]
        else:
            tested = all_rows(view, "unseen")
            forget = view.outputs("forget").correct
        if len(tested) < MIN_EXAMPLES:
            kept = " of the kept classes" if view.scenario == "class" else ""
            return too_few(len(tested), f"unseen examples{kept}")
        return _scalar(forget, own.correct[tested], baseline.correct[tested], view.scenario)


def _scalar(
    forget: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    baseline: npt.NDArray[np.bool_],
    scenario: Scenario,
) -> Scalar:
    """The score and its standard error over examples (delta method, test examples paired)."""
    a_f, a_t, a_or = float(forget.mean()), float(test.mean()), float(baseline.mean())
    score = aus(a_f, a_t, a_or, scenario)
    if scenario == "class":
        by_forget, by_test, gap = 1.0, 0.0, a_f
    else:
        by_forget = math.copysign(1.0, a_f - a_t)
        by_test, gap = -by_forget, abs(a_f - a_t)
    # score = numerator / (1 + gap); each accuracy is a mean of zeros and ones
    of_forget = -score * by_forget / (1.0 + gap)
    of_test = (1.0 - score * by_test) / (1.0 + gap)
    influence = of_test * test - baseline / (1.0 + gap)
    variance = of_forget**2 * a_f * (1.0 - a_f) / len(forget) + influence.var() / len(test)
    return Scalar(
        value=1.0 - score,
        stderr=math.sqrt(variance),
        detail={
            "aus": score,
            "formula": "class removal" if scenario == "class" else "homogeneous removal",
            "forget_accuracy": a_f,
            "test_accuracy": a_t,
            "retrained_test_accuracy": a_or,
        },
    )
