"""Signal-to-noise ratio of random vectors: unbiased estimate, confidence interval, paired difference.

The signal-to-noise ratio of a random vector with mean mu and covariance Sigma is theta = |mu| / sqrt(tr Sigma). For one
number this is |mu| / sigma, without a sign. The squared length of the mean of `N` draws overestimates |mu|^2 by
tr Sigma / N, so that the plug-in ratio of pure noise is 1 / sqrt(N). Here |mu|^2 is estimated without bias, by the mean
inner product of two different draws.

Measured coverage of the 95% intervals with 256 draws (1, 30 and 1,000 numbers; normal and Student's t with 5 degrees of
freedom; equal variances and one dominating eigenvalue): 92% to 98% for theta; 92% to 100% for a difference, mostly more
than 95% where one or both means are lost in noise, and about 90% for two means that oppose each other although the
draws correlate. With fewer draws of one number theta is covered in 94% (64 draws), 91% (16) and 81% (4).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

Interval = tuple[float, float]

QUANTILE = 1.96
"""Standard normal quantile of an interval of 95%."""

BOUND_QUANTILE = 2.576
"""That of 99%, for a bound beside such an interval, which then costs little of its coverage."""

METHOD = 'unbiased |mu|^2 with score interval'
"""What tables say of how their signal-to-noise ratios were estimated."""

_TINY = np.finfo(float).tiny


class SquaredNorm(NamedTuple):
    """Estimate of the squared length |mu|^2 of a mean, with confidence limits of the length.

    The estimate from `N` draws is the U-statistic T = sum_{i != j} x_i . x_j / (N (N - 1)). Its variance is

        4 / N mu' Sigma mu + 2 / (N (N - 1)) tr Sigma^2 = slope |mu|^2 + floor,  slope = 4 / N (mu' Sigma mu / |mu|^2).

    A confidence limit is the |mu| from whose square T is `quantile` standard errors away, the standard error being that
    at the limit (a score interval, as Wilson's for a proportion). T is approximately normal; for few numbers with a
    mean near 0 it is skewed, so that nearly all misses are lower limits above the truth.

    Attributes:
      estimate: T, or 0 if it is negative.
      slope: 4 / N times the variance of the draws along the mean; as far as the mean is lost in noise, along the noise
        of the mean, which is tr Sigma^2 / tr Sigma.
      floor: variance of T where the mean is 0.
      influences: of each draw on T, `[N]`.

    Source: Chen and Qin (2010), "A two-sample test for high-dimensional data with applications to gene-set testing",
    for T and its variance. The score interval is this project's choice.
    """

    estimate: float
    slope: float
    floor: float
    influences: np.ndarray

    @property
    def length(self) -> float:
        """Estimate of |mu|."""
        return self.limit(0)

    @property
    def interval(self) -> Interval:
        """95% interval of |mu|."""
        return self.limit(-QUANTILE), self.limit(QUANTILE)

    def limit(self, quantile: float) -> float:
        """Confidence limit of |mu|: the upper one for a positive standard normal quantile, else the lower one."""
        half = quantile**2 * self.slope / 2
        root = np.sqrt(half**2 + quantile**2 * (self.slope * self.estimate + self.floor))
        return float(np.sqrt(np.maximum(self.estimate + half + np.sign(quantile) * root, 0)))


@dataclasses.dataclass(frozen=True)
class Draws:
    """Independent draws of a random vector, divided by their standard deviation sqrt(tr Sigma).

    Attributes:
      values: `[N, P]`, of total variance 1; NaN if the draws do not vary.
      variance: tr Sigma before the division.
      squared_norm: of the mean of `values`, whose length is theta. Its influences include those through the standard
        deviation.
    """

    values: np.ndarray
    variance: float
    squared_norm: SquaredNorm

    @classmethod
    def standardise(cls, draws: np.ndarray) -> 'Draws':
        """Divides draws `[N, P]`, at least four, by their standard deviation sqrt(tr Sigma)."""
        scale = max(np.abs(draws).max(), _TINY)  # Squares of meta-gradients can be very small.
        variance = (draws / scale).var(0, ddof=1).sum()
        values = draws / scale / (np.sqrt(variance) if variance > 0 else np.nan)
        through_scale = _mean_product(values, values) * _variance_influences(values)
        return cls(values, float(variance * scale**2), _squared_norm(values, through_scale))


def difference(ours: Draws, theirs: Draws) -> tuple[float, Interval]:
    """Signal-to-noise of paired draws less that of others, and its 95% interval.

    Combines the confidence limits of both by the method of variance estimates recovery (MOVER), with the correlation
    of the two estimates where both lower limits are above 0, else with the worst case, -1. The interval is cut off at
    the 99% limit of the length of the difference of the two means, which no difference of lengths exceeds: draws that
    are equal up to scale differ by exactly 0.

    Source: Zou and Donner (2008), "Construction of confidence limits about effect measures: a general approach", for
    MOVER. The worst case and the cut are this project's choice.
    """
    a, b = ours.squared_norm, theirs.squared_norm
    resolved = a.interval[0] > 0 and b.interval[0] > 0
    correlation = _correlation(a.influences, b.influences) if resolved else -1.0

    def distance(quantile: float) -> float:
        to_a, to_b = a.limit(quantile) - a.length, b.limit(-quantile) - b.length
        # One of the two distances is negative: a positive correlation makes the interval shorter.
        return float(np.sqrt(np.maximum(to_a**2 + to_b**2 + 2 * correlation * to_a * to_b, 0)))

    apart = ours.values - theirs.values
    through_scales = (_mean_product(apart, x.values) * _variance_influences(x.values) for x in (ours, theirs))
    bound = _squared_norm(apart, np.subtract(*through_scales)).limit(BOUND_QUANTILE)
    found = a.length - b.length
    low = np.minimum(np.maximum(found - distance(-QUANTILE), 0 - bound), found)
    high = np.maximum(np.minimum(found + distance(QUANTILE), bound), found)
    return found, (float(low), float(high))


def _squared_norm(values: np.ndarray, through_scale: np.ndarray) -> SquaredNorm:
    """Estimates |mu|^2 from draws `[N, P]`; subtracts `through_scale`, `[N]`, from the influences."""
    size = len(values)
    influences = (values @ values.sum(0) - np.square(values).sum(1)) / (size - 1) - through_scale
    deviations = values - values.mean(0)
    trace_of_square = _trace_of_squared_covariance(deviations)
    # The influences vary by tr Sigma^2 / N even if the mean is 0: that part belongs to the floor.
    along_mean = ((size - 1) ** 2 * influences.var(ddof=1) - (size - 2) * trace_of_square) / (size - 2) ** 2
    along_noise = trace_of_square / np.maximum(deviations.var(0, ddof=1).sum(), _TINY)
    estimate = np.maximum(_mean_product(values, values), 0)
    floor = 2 * trace_of_square / (size * (size - 1))
    # A weighted mean of the variances in both directions, by the estimate and by its standard error at a mean of 0.
    error = np.sqrt(floor)
    slope = 4 / size * (np.maximum(along_mean, 0) + error * along_noise) / np.maximum(estimate + error, _TINY)
    return SquaredNorm(float(estimate), float(slope), float(floor), influences)


def _mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of a_i . b_j over different draws i and j, each `[N, P]`."""
    return float((a.sum(0) @ b.sum(0) - (a * b).sum()) / (len(a) * (len(a) - 1)))


def _trace_of_squared_covariance(deviations: np.ndarray) -> float:
    """Estimates tr Sigma^2 without bias from deviations `[N, P]` from their mean.

    sum_{i, j} U_ij^2 / (N (N - 3)), where U are the U-centred inner products of different draws.

    Source: Szekely and Rizzo (2014), "Partial distance correlation with methods for dissimilarities", for U-centring.
    """
    size, num_numbers = deviations.shape
    squares = np.square(deviations).sum(1)
    # Both have the same sum of squares.
    products = deviations.T @ deviations if num_numbers < size else deviations @ deviations.T
    total = np.square(products).sum() - squares @ squares * size / (size - 2)
    total += squares.sum() ** 2 / ((size - 1) * (size - 2))
    return float(np.maximum(total, 0)) / (size * (size - 3))


def _variance_influences(values: np.ndarray) -> np.ndarray:
    """Influence of each draw of `[N, P]` on half the total variance, up to a constant, `[N]`."""
    return np.square(values - values.mean(0)).sum(1) / 2


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.maximum(np.sqrt((a @ a) * (b @ b)), _TINY))
