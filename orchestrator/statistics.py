"""Statistics of scores over folds and of answers to clips: intervals, tests, adjustments.

Plain functions of numbers, each with its source. Two-sided throughout; intervals are of 95 %.
What is not defined (one fold, no spread, no pair that differs) is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
"""Of every interval."""

FEWEST_PAIRS = 6
"""Pairs that differ, below which Wilcoxon's test cannot come below 0.05: 2 / 2**6 = 0.031."""

FEW_DISCORDANT = 25
"""Discordant pairs below which McNemar's test is the exact binomial one."""

_NO_SPREAD = 1e-12
"""Standard deviations below this are rounding errors of equal numbers, beside numbers near 1."""

_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean and how well it is known.

    Attributes:
        mean: the estimate.
        standard_error: of the mean.
        df: degrees of freedom.
        interval: mean ± t(df) standard errors.
    """

    mean: float
    standard_error: float
    df: int
    interval: Interval

    @property
    def t(self) -> float:
        """The mean in standard errors."""
        return self.mean / self.standard_error

    @property
    def p(self) -> float:
        """Two-sided p value of a mean of 0."""
        return 2 * self.share_below(-abs(self.mean), centre=0.0)

    def share_below(self, limit: float, centre: float | None = None) -> float:
        """Share of a t distribution of this width that lies below a limit.

        Args:
            limit: on the scale of the mean.
            centre: of the distribution; None for the mean itself.
        """
        # Not at module level: most of a second of import that only tables with pairs need.
        from scipy.special import stdtr

        at = (limit - (self.mean if centre is None else centre)) / self.standard_error
        return float(stdtr(self.df, at))


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Posterior probabilities of a mean difference; they add up to 1.

    Attributes:
        below: that it is below the region of practical equivalence.
        inside: that it is in it.
        above: that it is above it.
    """

    below: float
    inside: float
    above: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test.

    Attributes:
        p: two-sided.
        exact: by the binomial distribution; otherwise chi-squared with continuity correction.
    """

    p: float
    exact: bool


def standard_deviation(values: Sequence[float], ddof: int) -> float | None:
    """Root of the sum of squared deviations over `n - ddof`; None unless n is above `ddof`."""
    if len(values) <= ddof:
        return None
    mean = math.fsum(values) / len(values)
    return math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - ddof)


def estimate(values: Sequence[float], test_to_train: float = 0.0) -> MeanEstimate | None:
    """The mean of scores, or of paired differences, over folds.

    With `test_to_train` 0 the variance of the mean is s^2 / n, as for independent values
    (Student 1908). Folds share their training clips, so that differences over folds vary less
    than independent ones would; Nadeau and Bengio (2003, "Inference for the generalization
    error", Machine Learning 52) correct the variance of the mean to s^2 (1/n + n_test/n_train).
    The t distribution has n - 1 degrees of freedom.

    The same location, scale and degrees of freedom are the posterior of the Bayesian correlated
    t-test with its usual prior (Corani and Benavoli 2015, Machine Learning 100).

    Bouckaert and Frank (2004) use the correction on k folds repeated r times with n = k r. They
    draw new folds each time; where a repeat is only another seed on the same folds, its scores
    have to be averaged before, fold by fold, or n counts folds that there are not.

    Args:
        values: one each fold.
        test_to_train: clips evaluated over clips trained on.

    Returns:
        None for fewer than two values, or where they do not differ: nothing says how sure the
        mean is then.
    """
    spread = standard_deviation(values, ddof=1)
    if spread is None or spread <= _NO_SPREAD * max(1.0, *map(abs, values)):
        return None
    from scipy.special import stdtrit

    n = len(values)
    mean = math.fsum(values) / n
    error = spread * math.sqrt(1 / n + test_to_train)
    reach = error * float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return MeanEstimate(mean, error, n - 1, Interval(mean - reach, mean + reach))


def equivalence(difference: MeanEstimate, rope: float) -> Equivalence:
    """The Bayesian correlated t-test with a region of practical equivalence.

    Benavoli, Corani, Demšar and Zaffalon (2017, "Time for a change", JMLR 18).

    Args:
        difference: estimated with the corrected variance.
        rope: half the width of the region, which lies around 0.
    """
    below = difference.share_below(-rope)
    above = 1 - difference.share_below(rope)
    return Equivalence(below, max(0.0, 1 - below - above), above)


def wilson(hits: float, clips: int) -> Interval:
    """The score interval of a share without continuity correction (Wilson 1927, Newcombe 1998).

    Args:
        hits: 0 to `clips`; a fraction where several models have answered each clip.
        clips: at least 1.
    """
    share, z2 = hits / clips, _Z * _Z
    centre = (share + z2 / (2 * clips)) / (1 + z2 / clips)
    reach = math.sqrt(share * (1 - share) / clips + z2 / (4 * clips * clips))
    reach *= _Z / (1 + z2 / clips)
    # Rounding must not leave 0, 1 or the share itself outside.
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(min(share, low), max(share, high))


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided binomial p value of as many wins and losses (Dixon and Mood 1946).

    >>> sign_test(4, 0)
    0.125
    """
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 1))
    return min(1.0, math.ldexp(tail, 1 - n))


def mcnemar(first_only: int, second_only: int) -> McNemar | None:
    """McNemar's test (1947) on the pairs that are discordant.

    Exact where there are fewer than `FEW_DISCORDANT`; otherwise chi-squared with one degree of
    freedom and the continuity correction of Edwards (1948), as Dietterich (1998) has it.

    Args:
        first_only: clips that only the first one answers rightly.
        second_only: that only the second one does.

    Returns:
        None where no pair is discordant.
    """
    discordant = first_only + second_only
    if not discordant:
        return None
    if discordant < FEW_DISCORDANT:
        return McNemar(sign_test(first_only, second_only), exact=True)
    excess = max(0, abs(first_only - second_only) - 1)
    return McNemar(math.erfc(math.sqrt(excess * excess / discordant / 2)), exact=False)


def wilcoxon(differences: Sequence[float]) -> float | None:
    """The exact two-sided p value of Wilcoxon's signed-rank test (1945).

    Pairs without a difference are left out, equal differences share their mean rank; the
    distribution is that of all signs of the ranks that there are, ties included.

    Returns:
        None with fewer than `FEWEST_PAIRS` pairs that differ.
    """
    # Equal differences of fractions differ in their last bits.
    found = np.array([d for d in np.round(differences, 12) if d])
    if len(found) < FEWEST_PAIRS:
        return None
    _, places, counts = np.unique(np.abs(found), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    # Twice the rank is whole for ties too.
    doubled = (2 * last - counts + 1)[places]
    total = int(doubled.sum())
    shares = np.zeros(total + 1)
    shares[0] = 1.0
    for rank in doubled:
        with_it = np.zeros_like(shares)
        with_it[rank:] = shares[: total + 1 - rank]
        shares = (shares + with_it) / 2
    positive = int(doubled[found > 0].sum())
    tail = min(positive, total - positive)
    return min(1.0, 2 * float(shares[: tail + 1].sum()))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values adjusted by Holm (1979), which keeps the family's chance of a false alarm.

    Args:
        p_values: of one family; None is no member of it.

    Returns:
        In the same order; None for None.
    """
    members = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(members):
        highest = max(highest, min(1.0, (len(members) - place) * p))
        adjusted[i] = highest
    return adjusted
