"""The residual index without references: 0 is exchangeability, 1 is the subject's own retain set.

RI = (AUC(forget, unseen) − ½) / (AUC(retain, unseen) − ½), all three groups scored on the subject.
A model that never saw the forget set cannot tell it from unseen examples if both were drawn alike
(sample scenario), so that end is known, not estimated. The unseen group is shared, which correlates
the two AUCs (DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unaudit.stats.auc import placements
from unaudit.stats.equivalence import (
    RatioTest,
    ResidualIndex,
    VariancePart,
    index_of,
    tail_p,
    unknown_index,
)
from unaudit.stats.samples import as_sample


def in_model_index(
    forget: npt.ArrayLike, unseen: npt.ArrayLike, retain: npt.ArrayLike, alpha: float, tau: float
) -> ResidualIndex:
    """Reference-free residual index of one model; its positive control is AUC(retain, unseen) > ½.

    With a single example in a group its variance is unknown: every p is 1, there is no interval.
    """
    groups = as_sample(forget, "forget"), as_sample(unseen, "unseen"), as_sample(retain, "retain")
    of_forget, below_forget = placements(groups[0], groups[1])
    of_retain, below_retain = placements(groups[2], groups[1])
    numerator, denominator = float(of_forget.mean()) - 0.5, float(of_retain.mean()) - 0.5
    if min(map(len, groups)) < 2:
        return unknown_index(numerator, denominator, alpha)
    dfs = [len(group) - 1 for group in groups]
    shared = np.cov(below_forget, below_retain) / len(groups[1])
    var_forget = float(of_forget.var(ddof=1)) / len(groups[0])
    var_retain = float(of_retain.var(ddof=1)) / len(groups[2])
    parts = (
        VariancePart.of_ratio(var_forget, 0.0, 0.0, dfs[0]),
        VariancePart.of_ratio(
            float(shared[0, 0]), float(shared[0, 1]), float(shared[1, 1]), dfs[1]
        ),
        VariancePart.of_ratio(0.0, 0.0, var_retain, dfs[2]),
    )
    control = tail_p(denominator, [float(shared[1, 1]), var_retain], dfs[1:])
    return index_of(RatioTest(numerator, denominator, parts), alpha, tau, control)
