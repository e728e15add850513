"""Are two samples drawn from the same mix of classes?"""

from __future__ import annotations

import numpy as np
from scipy import stats as distributions

from unaudit.evidence import IntArray


def same_mix_p(counts: IntArray) -> float:
    """p-value of Pearson's test of homogeneity for a (2, k) table of counts; 1 for one class.

    Classes that neither sample has are left out.
    """
    table = np.asarray(counts)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(distributions.chi2_contingency(table, correction=False).pvalue)
