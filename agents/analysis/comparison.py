"""Statistics over seeds that compare variants: interquartile means, bootstrap intervals, probability of improvement.

They are those of Agarwal et al. (2021) for one environment, in which their stratified bootstrap draws seeds of a
variant with replacement. Of a few seeds every draw that there is counts with its probability, so that an interval is
exact and depends on no random numbers; of more seeds draws are made at random, from a fixed key.

Source: Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021; numbers
equal those of their library rliable (tests/agents/analysis/test_comparison.py).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_SEEDS = 3
"""Fewer have no interval: the bootstrap of one or two seeds tells nothing of the seeds that were not run."""

LEVEL = 0.95
"""Share of the bootstrap's draws that an interval holds."""

NUM_DRAWS = 20_000
"""Of an interval of final performance."""

NUM_DRAWS_OF_CURVES = 500
"""Of the band around a curve, at each of its points."""


NUM_DRAWS_OVER_GAMES = 5_000
"""Of statistics over games, which are always drawn at random."""


class Resamples(NamedTuple):
    """Draws of seeds with replacement.

    Attributes:
      counts: how often each seed is in each draw, `[R, S]`.
      weights: probability of each draw, `[R]`.
    """

    counts: np.ndarray
    weights: np.ndarray


class Estimate(NamedTuple):
    """A statistic with its bootstrap interval; NaN at both ends where there are too few seeds for one.

    Attributes:
      value: `[...]`.
      low: lower end.
      high: upper end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@functools.lru_cache(maxsize=64)
def resamples(num_seeds: int, num_draws: int) -> Resamples:
    """All draws of a bootstrap if there are at most `num_draws` that differ, else as many at random."""
    if _num_draws_that_differ(num_seeds) > num_draws:
        draws = np.random.default_rng(0).integers(num_seeds, size=(num_draws, num_seeds))
        return Resamples(_counts(draws, num_seeds), np.full(num_draws, 1 / num_draws))
    draws = np.array(list(itertools.combinations_with_replacement(range(num_seeds), num_seeds)))
    counts = _counts(draws, num_seeds)
    orders = math.factorial(num_seeds) / np.prod(np.vectorize(math.factorial)(counts), axis=1)
    return Resamples(counts, orders / num_seeds**num_seeds)


def _num_draws_that_differ(num_seeds: int) -> int:
    return math.comb(2 * num_seeds - 1, num_seeds)


def _counts(draws: np.ndarray, num_seeds: int) -> np.ndarray:
    return (draws[:, :, None] == np.arange(num_seeds)).sum(1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean without the lowest and the highest quarter, both rounded down to whole seeds.

    Args:
      values: `[S, ...]`.

    Returns:
      `[...]`.
    """
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(0)


def interquartile_mean_interval(values: np.ndarray, num_draws: int = NUM_DRAWS) -> Estimate:
    """The interquartile mean with its bootstrap interval.

    Args:
      values: `[S, ...]`.
      num_draws: largest number of draws.
    """
    value, num_seeds = interquartile_mean(values), len(values)
    if num_seeds < MIN_SEEDS:
        return _without_interval(value)
    counts, weights = resamples(num_seeds, num_draws)
    # A draw holds the sorted values so many times each: those of the middle half are taken from what is counted below.
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, 0)
    cut = num_seeds // 4
    below = np.cumsum(counts.T[order], axis=0)  # [S, ..., R]
    held = np.diff(np.clip(below, cut, num_seeds - cut), axis=0, prepend=cut)
    means = np.einsum('s...,s...r->r...', ordered, held) / (num_seeds - 2 * cut)
    return Estimate(value, *interval(means, weights))


def interval(draws: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic.

    Args:
      draws: the statistic of each draw, `[R, ...]`.
      weights: probability of each draw, `[R]`.

    Returns:
      Its ends, `[...]`.
    """
    order = np.argsort(draws, axis=0)
    ordered = np.take_along_axis(draws, order, 0)
    below = np.cumsum(weights[order], axis=0)

    def percentile(share: float) -> np.ndarray:
        index = np.argmax(below >= share - 1e-9, axis=0)
        return np.take_along_axis(ordered, index[None], 0)[0]

    return percentile((1 - LEVEL) / 2), percentile((1 + LEVEL) / 2)


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Probability that a seed of the first variant has more than one of the second; ties count half.

    Args:
      first: `[S1]`.
      second: `[S2]`.
    """
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    value = wins.mean()
    if min(len(first), len(second)) < MIN_SEEDS:
        return _without_interval(value)
    if math.prod(map(_num_draws_that_differ, wins.shape)) > NUM_DRAWS:
        return Estimate(value, *interval(*_random_probabilities(wins)))
    firsts, seconds = (resamples(size, NUM_DRAWS) for size in wins.shape)
    draws = firsts.counts @ wins @ seconds.counts.T / wins.size
    weights = firsts.weights[:, None] * seconds.weights
    return Estimate(value, *interval(draws.ravel(), weights.ravel()))


def _random_probabilities(wins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    first, second = (random.multinomial(size, np.full(size, 1 / size), NUM_DRAWS) for size in wins.shape)
    return np.einsum('ri,ij,rj->r', first, wins, second) / wins.size, np.full(NUM_DRAWS, 1 / NUM_DRAWS)


class OverGames(NamedTuple):
    """Statistics of an agent over games.

    Attributes:
      median: over games, of the mean over seeds.
      mean: over games, likewise.
      interquartile_mean: over all runs of all games together.
    """

    median: Estimate
    mean: Estimate
    interquartile_mean: Estimate


def over_games(scores: Sequence[np.ndarray]) -> OverGames:
    """Statistics over games, with intervals of a bootstrap that draws seeds of each game with replacement.

    Args:
      scores: of each game, `[S]`, in a unit that games have in common; the numbers of seeds may differ.
    """

    def statistics(draws: Sequence[np.ndarray]) -> np.ndarray:
        """Of scores `[R, S]` of each game, `[R, 3]`."""
        means = np.stack([draw.mean(1) for draw in draws], 1)
        runs = np.concatenate(draws, 1)
        return np.stack([np.median(means, 1), means.mean(1), interquartile_mean(runs.T)], 1)

    (values,) = statistics([game[None] for game in scores])
    if min(map(len, scores)) < MIN_SEEDS:
        return OverGames(*map(_without_interval, values))
    random = np.random.default_rng(0)
    draws = statistics([random.choice(game, (NUM_DRAWS_OVER_GAMES, len(game))) for game in scores])
    weights = np.full(NUM_DRAWS_OVER_GAMES, 1 / NUM_DRAWS_OVER_GAMES)
    return OverGames(*(Estimate(x, *interval(draw, weights)) for x, draw in zip(values, draws.T, strict=True)))


def performance_profile(values: np.ndarray, thresholds: np.ndarray) -> Estimate:
    """Share of seeds above each threshold, with its bootstrap interval.

    Args:
      values: `[S]`.
      thresholds: `[N]`.

    Returns:
      `[N]`.
    """
    above = (values[:, None] > thresholds).astype(float)
    if len(values) < MIN_SEEDS:
        return _without_interval(above.mean(0))
    counts, weights = resamples(len(values), NUM_DRAWS)
    return Estimate(above.mean(0), *interval(counts @ above / len(values), weights))


def _without_interval(value: np.ndarray) -> Estimate:
    return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))


def last_rows(values: np.ndarray, share: float) -> np.ndarray:
    """Mean of each seed over its last rows, without empty cells; NaN where there is none else.

    Args:
      values: `[S, P]`.
      share: of the rows, rounded up.

    Returns:
      `[S]`.
    """
    last = values[:, values.shape[1] - math.ceil(values.shape[1] * share) :]
    is_known = np.isfinite(last)
    count = is_known.sum(1)
    return np.where(count > 0, np.where(is_known, last, 0).sum(1) / np.maximum(count, 1), np.nan)
