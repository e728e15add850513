"""What LiRA could detect with so many shadow models, worked out before any of them is trained.

The model: over networks that were not trained on an example its logit-scaled confidence is normal
with a standard deviation σ of its own; over networks that were, it lies d·σ higher. In the subject,
forget examples answer as if they had been trained on, unseen ones as if not, all independently.
Shadow models, half of which were trained on the example, tell the two distributions as well as so
many draws do. LiRA is as it is set by default (online, median, variance pooled below 32 models of
an arm), and its mean over forget examples is compared with that over unseen ones by a one-sided
t-test at level α.

So this is what LiRA alone would see: the audit corrects α for its other probes, and compares with
retrained models, whose spread is not known yet. Where some examples are remembered far better than
others, a smaller mean shift is enough, for the statistic grows with d².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import t

POWER = 0.8
"""Probability of detecting the shift that is named."""
PER_EXAMPLE = 32
"""Models of an arm from which on LiRA takes each example's own variance."""
UNEVEN = 1.0
"""Squared coefficient of variation of the examples' variances, which a pooled variance ignores. On
scikit-learn's digits it was 0.3 for members and up to 2.7 for others."""
LARGEST = 1e3
"""Standard deviations; larger shifts are not looked for."""


@dataclass(frozen=True)
class Power:
    """What the attack can detect."""

    models: int
    forget: int
    """Examples."""
    unseen: int
    """Examples of the same classes."""
    alpha: float
    shift: float
    """The smallest mean shift of the logit-scaled confidence that is detected with probability
    :data:`POWER`, in standard deviations between models."""

    @property
    def least_fpr(self) -> float:
        """The lowest false-positive rate at which a true-positive rate can be told."""
        return 1.0 / self.unseen

    def __str__(self) -> str:
        return (
            f"{self.models} shadow models and {self.forget} forget examples can detect a mean "
            f"shift of {self.shift:.2f} standard deviations ({100 * POWER:.0f} % power at "
            f"α = {100 * self.alpha:g} %)"
        )


def power_of(models: int, forget: int, unseen: int, alpha: float) -> Power | None:
    """What can be detected; None: there are too few examples to compare.

    Args:
        models: shadow models, of which each example is in half; at least 4.
        forget: examples.
        unseen: examples of the classes of the forget set.
        alpha: probability of a false alarm.
    """
    if forget < 1 or unseen < 1 or forget + unseen < 3:
        return None
    freedom = forget + unseen - 2
    distance = float(t.ppf(1.0 - alpha, freedom) + t.ppf(POWER, freedom))
    sampling = math.sqrt(1.0 / forget + 1.0 / unseen)

    def lacking(shift: float) -> float:
        return distance * sampling * math.sqrt(score_variance(shift, models // 2)) - shift**2

    if lacking(LARGEST) > 0:
        return None
    return Power(models, forget, unseen, alpha, float(brentq(lacking, 0.0, LARGEST)))


def score_variance(shift: float, arm: int) -> float:
    """Variance of an example's log-likelihood ratio, whose mean is ``shift``² higher for members.

    With the estimated means a and b of the arms it is (a − b)(x − (a + b)/2) in units of σ; a − b
    and (a + b)/2 are uncorrelated. A variance of the example's own adds the noise of log σ̂²,
    2/(h − 1) in either arm, to first order; a pooled one weighs examples by σ² instead. That scores
    beyond 5 nats are pressed together is left out; it helps.

    Args:
        shift: d.
        arm: h, shadow models in either arm.
    """
    square, noise = shift**2, median_variance(arm)
    own = (square + 2.0 * noise) * (1.0 + noise / 2.0) + square * noise / 2.0
    if arm >= PER_EXAMPLE:
        return own + (4.0 + 4.0 * square + square**2) / (2.0 * (arm - 1))
    return (1.0 + UNEVEN) * own


def median_variance(n: int) -> float:
    """Variance of the median of n draws from a standard normal distribution, to 5 %.

    π/2n for many; of an even number it is the mean of two.
    """
    return math.pi / 2.0 / (n + (0.55 if n % 2 else 1.3))
