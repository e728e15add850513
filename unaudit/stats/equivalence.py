"""The residual index RI = (s − r̄) / (o − r̄): confidence set, one-sided tests, equivalence.

Everything is a test of the linear contrast D(ρ) = s − r̄ − ρ (o − r̄), which is 0 at ρ = RI (Fieller
1954): no ratio is ever linearized, and a denominator that could be 0 gives an unbounded set instead
of a wrong one.

Target of inference. s is one draw of its training noise, so Var D(ρ) holds the training noise of
a *fresh* retrained model, s_r² (1 + (1 − ρ)²/m), beside the uncertainty from the examples. What is
covered is the index of the procedure that made the subject: for a freshly retrained subject it is
0, whatever its seed. For the one subject at hand, its noise taken as part of it, the interval is
wider than needed.

Variance comes in parts k, estimated separately with ν_k degrees of freedom each. A test at level α
compares D² with Σ t_k² V_k, where t_k is the (1 − α) quantile of Student's t with ν_k (Banerjee,
Sankhyā 23, 1961). Its error is ≤ α for every α and every mixture of the parts: P(D > √Σ t_k² V_k)
is E Φ̄(√x) at the mean x of t_k² V_k/σ_k² with weights σ_k²/σ², and Φ̄(√x) is convex, so by Jensen's
inequality it is at most the weighted mean of the single-part errors, which are α. The narrower
Welch–Satterthwaite test errs: with two retrained models and a tenth of the variance from examples,
8 % at α = 5 % and 3 % at α = 0.2 %, and Holm's correction lives in that tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from unaudit.evidence import FloatArray
from unaudit.stats.samples import require_rate

SMALLEST_P = 1e-30
"""Smaller p-values are reported as this; quantiles further out are not computed reliably."""


@dataclass(frozen=True)
class VariancePart:
    """One separately estimated part of Var D(ρ) = constant + linear·ρ + quadratic·ρ²."""

    constant: float
    linear: float
    quadratic: float
    df: float
    """Degrees of freedom of the estimate; ∞ if the variance is known."""

    @classmethod
    def of_ratio(
        cls, var_numerator: float, covariance: float, var_denominator: float, df: float
    ) -> VariancePart:
        """The part of D(ρ) = numerator − ρ·denominator that these (co)variances explain."""
        return cls(var_numerator, -2.0 * covariance, var_denominator, df)

    def at(self, rho: float) -> float:
        # rounding can make a variance of 0 slightly negative
        return max(0.0, self.constant + rho * (self.linear + rho * self.quadratic))


@dataclass(frozen=True)
class RatioTest:
    """Tests of the ratio numerator / denominator through D(ρ) = numerator − ρ·denominator."""

    numerator: float
    denominator: float
    parts: tuple[VariancePart, ...]

    def p_above(self, rho: float) -> float:
        """One-sided p against D(ρ) ≤ 0, that is ratio ≤ ρ if the denominator is positive."""
        return self._p(rho, 1.0)

    def p_below(self, rho: float) -> float:
        """One-sided p against D(ρ) ≥ 0, that is ratio ≥ ρ if the denominator is positive."""
        return self._p(rho, -1.0)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """The set of ρ that neither one-sided test rejects at ``alpha``: level 1 − 2α.

        None if the set is unbounded, that is if the denominator is not told from 0 at that level.
        """
        # D² ≤ Σ t² V in x = ρ − estimate: (d² − w₂) x² − w₁ x − w₀ ≤ 0
        squares = [(student_quantile(alpha, part.df) ** 2, part) for part in self.parts]
        w2 = sum(t2 * part.quadratic for t2, part in squares)
        lead = self.denominator**2 - w2
        if lead <= 0.0:
            return None
        estimate = self.numerator / self.denominator
        w0 = sum(t2 * part.at(estimate) for t2, part in squares)
        w1 = sum(t2 * (part.linear + 2.0 * estimate * part.quadratic) for t2, part in squares)
        # the root of larger magnitude first: the other one follows without cancellation
        far = w1 + math.copysign(math.sqrt(w1 * w1 + 4.0 * lead * w0), w1)
        if far == 0.0:
            return estimate, estimate
        roots = estimate + far / (2.0 * lead), estimate - 2.0 * w0 / far
        return min(roots), max(roots)

    def degrees_of_freedom(self, rho: float) -> float:
        """Welch–Satterthwaite, to describe how much data the width rests on; no test uses it."""
        variances = [part.at(rho) for part in self.parts]
        spent = sum(v * v / p.df for v, p in zip(variances, self.parts, strict=True))
        return sum(variances) ** 2 / spent if spent > 0.0 else math.inf

    def _p(self, rho: float, sign: float) -> float:
        difference = sign * (self.numerator - rho * self.denominator)
        return tail_p(
            difference, [part.at(rho) for part in self.parts], [part.df for part in self.parts]
        )


@dataclass(frozen=True)
class ResidualIndex:
    """How much of the original's distance to the retrained models the subject still has."""

    estimate: float
    """NaN where the original equals the retrained mean, and only there."""
    low: float | None
    high: float | None
    """None where the data do not bound the index (both ends together)."""
    level: float
    """1 − 2α: either end alone holds with confidence 1 − α."""
    p_residual: float
    """One-sided, against RI ≤ τ."""
    p_over_unlearned: float
    """One-sided, against RI ≥ −τ."""
    p_equivalence: float
    """Two one-sided tests, against RI ≤ −τ or RI ≥ τ; ≤ α just if the interval lies within ±τ."""
    degrees_of_freedom: float
    """Welch–Satterthwaite at the estimate; descriptive. ∞ without model spread, 0 if unknown."""
    positive_control_p: float
    """One-sided, against 'the original is no different from a fresh retrained model'."""
    detectable: float | None
    """The least index that could be told from 0: the interval's far end, were the estimate 0."""


def fieller(
    numerator: float,
    denominator: float,
    var_numerator: float,
    covariance: float,
    var_denominator: float,
    alpha: float,
    df: float = math.inf,
) -> tuple[float, float] | None:
    """Fieller's confidence set of numerator / denominator at level 1 − 2α; None if unbounded."""
    part = VariancePart.of_ratio(var_numerator, covariance, var_denominator, df)
    return RatioTest(numerator, denominator, (part,)).interval(alpha)


def residual_index(
    subject: float,
    original: float,
    retrained: FloatArray,
    deviations: FloatArray,
    alpha: float,
    tau: float,
    example_df: float = math.inf,
) -> ResidualIndex:
    """Residual index of ``subject`` between the (m,) ``retrained`` models and ``original``.

    Args:
        deviations: (replicates, 2 + m) example-level bootstrap deviations of subject, original and
            each retrained model, paired over the same examples. NaN: not known.
        example_df: degrees of freedom of the example part, about (smallest group) − 1.

    With one retrained model, or with unknown deviations, every p is 1 and there is no interval.
    """
    m = len(retrained)
    numerator, denominator = (
        subject - float(np.mean(retrained)),
        original - float(np.mean(retrained)),
    )
    mean_deviation = deviations[:, 2:].mean(axis=1)
    contrasts = np.stack([deviations[:, 0] - mean_deviation, deviations[:, 1] - mean_deviation])
    if m < 2 or not np.isfinite(contrasts).all():
        return unknown_index(numerator, denominator, alpha)
    examples = np.cov(contrasts)
    example_part = VariancePart.of_ratio(
        float(examples[0, 0]), float(examples[0, 1]), float(examples[1, 1]), example_df
    )
    # differences first: equal values have a spread of exactly 0
    spread = float(np.var(retrained - retrained[0], ddof=1))
    model_part = VariancePart.of_ratio(spread * (1.0 + 1.0 / m), spread / m, spread / m, df=m - 1)
    control = tail_p(
        denominator,
        [float(examples[1, 1]), spread * (1.0 + 1.0 / m)],
        [example_df, m - 1],
    )
    test = RatioTest(numerator, denominator, (example_part, model_part))
    return index_of(test, alpha, tau, positive_control_p=control)


def index_of(test: RatioTest, alpha: float, tau: float, positive_control_p: float) -> ResidualIndex:
    """Summarize a ratio test. Where the denominator is not positive, nothing can be claimed."""
    require_rate(alpha, "alpha")
    if tau < 0.0:
        raise ValueError(f"tau must not be negative, got {tau}")
    if test.denominator <= 0.0:
        unknown = unknown_index(test.numerator, test.denominator, alpha)
        return replace(unknown, positive_control_p=positive_control_p)
    estimate = test.numerator / test.denominator
    interval = test.interval(alpha)
    at_zero = RatioTest(0.0, test.denominator, test.parts).interval(alpha)
    return ResidualIndex(
        estimate=estimate,
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        level=1.0 - 2.0 * alpha,
        p_residual=test.p_above(tau),
        p_over_unlearned=test.p_below(-tau),
        p_equivalence=max(test.p_below(tau), test.p_above(-tau)),
        degrees_of_freedom=test.degrees_of_freedom(estimate),
        positive_control_p=positive_control_p,
        detectable=None if at_zero is None else max(-at_zero[0], at_zero[1]),
    )


def unknown_index(numerator: float, denominator: float, alpha: float) -> ResidualIndex:
    """An estimate without any claim: every p is 1, nothing is bounded, nothing detectable."""
    return ResidualIndex(
        estimate=numerator / denominator if denominator != 0.0 else math.nan,
        low=None,
        high=None,
        level=1.0 - 2.0 * alpha,
        p_residual=1.0,
        p_over_unlearned=1.0,
        p_equivalence=1.0,
        degrees_of_freedom=0.0,
        positive_control_p=1.0,
        detectable=None,
    )


def tail_p(difference: float, variances: Sequence[float], dfs: Sequence[float]) -> float:
    """One-sided p of a normal ``difference`` against a mean ≤ 0; see the module's head.

    Solves difference² = Σ t_k(p)² V_k for p. Without any variance p is 0 or 1.
    """
    total = sum(variances)
    if total <= 0.0:
        return 0.0 if difference > 0.0 else 1.0
    if difference <= 0.0:
        return 0.5 if difference == 0.0 else 1.0 - tail_p(-difference, variances, dfs)
    x = difference / math.sqrt(total)
    parts = [(math.sqrt(v / total), df) for v, df in zip(variances, dfs, strict=True) if v > 0.0]

    def excess(log_p: float) -> float:
        p = math.exp(log_p)
        return math.hypot(*(root * student_quantile(p, df) for root, df in parts)) / x - 1.0

    # between the p-values that the extreme parts would give if they were all of the variance
    tails = [max(student_tail(x, df), SMALLEST_P) for _, df in parts]
    low, high = math.log(min(tails)), math.log(max(tails))
    if excess(low) <= 0.0:
        return math.exp(low)
    if excess(high) >= 0.0:
        return math.exp(high)
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-12))


def student_quantile(p: float, df: float) -> float:
    """The upper p-quantile of Student's t; normal if ``df`` is infinite."""
    return -float(special.ndtri(p) if math.isinf(df) else special.stdtrit(df, p))


def student_tail(x: float, df: float) -> float:
    """P(T > x) for Student's t; normal if ``df`` is infinite."""
    return float(special.ndtr(-x) if math.isinf(df) else special.stdtr(df, -x))
