"""Statistics over seeds, by hand and beside those of rliable."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from agents.analysis import comparison
from tests.helpers import rliable_numbers

RLIABLE = json.loads((pathlib.Path(__file__).resolve().parents[2] / 'data/rliable.json').read_text())
SCORES = {name: np.array(scores) for name, scores in rliable_numbers.SCORES.items()}
THREE_STANDARD_ERRORS = 0.014
"""Of the share within an interval of 5,000 draws: 2 * 3 * sqrt(0.025 * 0.975 / 5000)."""


def check_interval(monkeypatch, compute, low, high):
    """Whether rliable's ends are percentiles 2.5 and 97.5, as exactly as its random draws can find them."""
    low, high = np.array(low), np.array(high)
    monkeypatch.setattr(comparison, 'LEVEL', 0.95 - THREE_STANDARD_ERRORS)
    narrow = compute()
    monkeypatch.setattr(comparison, 'LEVEL', 0.95 + THREE_STANDARD_ERRORS)
    wide = compute()
    assert (low <= narrow.low + 1e-9).all()
    assert (high >= narrow.high - 1e-9).all()
    assert (low >= wide.low - 1e-9).all()
    assert (high <= wide.high + 1e-9).all()


@pytest.mark.parametrize('name', SCORES)
def test_interquartile_means_are_those_of_rliable(monkeypatch, name):
    value, low, high = RLIABLE['interquartile_mean'][name]
    assert comparison.interquartile_mean_interval(SCORES[name]).value == pytest.approx(value, rel=1e-12)
    check_interval(monkeypatch, lambda: comparison.interquartile_mean_interval(SCORES[name]), low, high)


@pytest.mark.parametrize('pair', RLIABLE['probability_of_improvement'])
def test_probabilities_of_improvement_are_those_of_rliable(monkeypatch, pair):
    value, low, high = RLIABLE['probability_of_improvement'][pair]
    scores = [SCORES[name] for name in pair.split(',')]
    assert comparison.probability_of_improvement(*scores).value == pytest.approx(value, rel=1e-12)
    check_interval(monkeypatch, lambda: comparison.probability_of_improvement(*scores), low, high)


@pytest.mark.parametrize('name', RLIABLE['performance_profile'])
def test_performance_profiles_are_those_of_rliable(monkeypatch, name):
    value, low, high = RLIABLE['performance_profile'][name]
    arguments = SCORES[name], np.array(rliable_numbers.THRESHOLDS)
    np.testing.assert_allclose(comparison.performance_profile(*arguments).value, value, rtol=1e-12)
    check_interval(monkeypatch, lambda: comparison.performance_profile(*arguments), low, high)


def test_interquartile_means_by_hand():
    assert comparison.interquartile_mean(np.array([5.0, 1.0, 3.0])) == 3  # Nothing is cut of three.
    assert comparison.interquartile_mean(np.array([100.0, 1.0, 2.0, 4.0, 3.0])) == 3
    np.testing.assert_array_equal(comparison.interquartile_mean(np.array([[0, 9], [1, 8], [2, 7], [3, 6]])), [1.5, 7.5])


def test_an_interval_of_few_seeds_is_that_of_all_draws():
    scores = np.array([[0.0, 5.0], [0.3, 4.0], [0.7, -1.0], [1.0, 2.0]])
    draws = np.array(
        [comparison.interquartile_mean(scores[list(draw)]) for draw in itertools.product(range(4), repeat=4)]
    )
    ends = np.quantile(draws, [0.025, 0.975], axis=0, method='inverted_cdf')
    found = comparison.interquartile_mean_interval(scores)
    np.testing.assert_allclose([found.low, found.high], ends)


def test_draws_of_many_seeds_are_the_same_every_time():
    scores = np.random.default_rng(0).normal(size=(30, 2))
    first, second = (comparison.interquartile_mean_interval(scores) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first.low < first.value).all()
    assert (first.value < first.high).all()


@pytest.mark.parametrize('num_seeds', [1, 2])
def test_one_or_two_seeds_have_no_interval(num_seeds):
    scores = np.arange(num_seeds, dtype=float)
    for found in (
        comparison.interquartile_mean_interval(scores),
        comparison.probability_of_improvement(scores, np.arange(5.0)),
        comparison.performance_profile(scores, np.array([0.5])),
    ):
        assert np.isfinite(found.value).all()
        assert np.isnan([found.low, found.high]).all()


def test_ties_count_half():
    assert comparison.probability_of_improvement(np.array([1.0, 2.0]), np.array([1.0, 1.0])).value == 0.75


def test_final_performance_is_the_mean_of_the_last_rows_that_have_a_number():
    values = np.array([[0, 0, 1, 3, np.nan], [9, np.nan, 9, np.nan, np.nan]])
    np.testing.assert_array_equal(comparison.last_rows(values, 0.4), [3, np.nan])
    np.testing.assert_array_equal(comparison.last_rows(values, 0.41), [2, 9])  # Three rows: rounded up.
    np.testing.assert_array_equal(comparison.last_rows(values, 1), [1, 9])
