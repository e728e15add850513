"""All statistics of the product: pure functions on arrays. Probes and reports contain none."""

from unaudit.stats.auc import auc, auc_interval, auc_noise, influence_auc, placements
from unaudit.stats.bootstrap import (
    JointBootstrap,
    influence_mean,
    multinomial_counts,
    paired_bootstrap,
)
from unaudit.stats.epsilon import EpsilonBound, epsilon_lower_bound
from unaudit.stats.equivalence import (
    RatioTest,
    ResidualIndex,
    VariancePart,
    fieller,
    residual_index,
)
from unaudit.stats.fresh import p_below
from unaudit.stats.groups import GroupSpread, GroupSums, group_spread, group_sums
from unaudit.stats.in_model import in_model_index
from unaudit.stats.mix import same_mix_p
from unaudit.stats.multiplicity import false_discovery, holm
from unaudit.stats.proportion import clopper_pearson
from unaudit.stats.roc import OperatingPoint, RocBand, advantage, band, roc_curve, tpr_at_fpr
from unaudit.stats.samples import Interval

__all__ = [
    "EpsilonBound",
    "GroupSpread",
    "GroupSums",
    "Interval",
    "JointBootstrap",
    "OperatingPoint",
    "RatioTest",
    "ResidualIndex",
    "RocBand",
    "VariancePart",
    "advantage",
    "auc",
    "auc_interval",
    "auc_noise",
    "band",
    "clopper_pearson",
    "epsilon_lower_bound",
    "false_discovery",
    "fieller",
    "group_spread",
    "group_sums",
    "holm",
    "in_model_index",
    "influence_auc",
    "influence_mean",
    "multinomial_counts",
    "p_below",
    "paired_bootstrap",
    "placements",
    "residual_index",
    "roc_curve",
    "same_mix_p",
    "tpr_at_fpr",
]
