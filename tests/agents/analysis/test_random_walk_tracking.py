"""How well the values of a walk that switches its reward are tracked: TD(lambda), and a run's agents."""

import jax
import numpy as np
import pytest

from agents.analysis import random_walk_tracking
from agents.learner import Learner
from components.types import ConfigurationError
from tests.helpers.predictors_for_tests import predictor


def td_lambda_loop(step_size, lambda_, actions, num_steps, switch_every):
    """Errors of online TD(lambda) with accumulating traces after each step, for one stream."""
    values, traces, position, errors = np.zeros(5), np.zeros(5), 2, []
    exact = np.arange(1, 6) / 6
    for t in range(num_steps):
        sign = 1 if t // switch_every % 2 == 0 else -1
        after = position + (1 if actions[t] else -1)
        traces = lambda_ * traces
        traces[position] += 1
        following = values[after] if 0 <= after < 5 else 0
        error = (sign if after == 5 else 0) + following - values[position]
        values = values + step_size * error * traces
        if not 0 <= after < 5:
            traces, after = np.zeros(5), 2
        position = after
        now = 1 if (t + 1) // switch_every % 2 == 0 else -1
        errors.append(np.square(values - now * exact).mean())
    return errors


def test_the_reference_is_td_lambda_online():
    key = jax.random.key(3)
    tracking = random_walk_tracking.track(key, num_streams=1, num_periods=1, skipped=0)
    actions = [bool(jax.random.bernoulli(k, shape=(1,))[0]) for k in jax.random.split(key, 960)[:200]]
    i, j = 6, 4
    expected = td_lambda_loop(random_walk_tracking.STEP_SIZES[i], random_walk_tracking.LAMBDAS[j], actions, 200, 960)
    np.testing.assert_allclose(tracking.td_lambda[i, j, 1:201], expected, rtol=1e-4)


def test_errors_between_phases_are_means_of_those_that_there_are():
    errors = np.full(960, np.nan)
    errors[[0, 29, 30, 500]] = 1, 3, 5, 7
    np.testing.assert_array_equal(random_walk_tracking.between_phases(errors), [2, 5, np.nan, np.nan, np.nan, 7])


def test_the_time_to_recover_is_that_of_the_first_small_error():
    assert random_walk_tracking.time_to_recover(np.array([1.2, np.nan, 0.3, 0.09, 0.2, 0.01])) == 3
    assert random_walk_tracking.time_to_recover(np.array([1.2, 0.3])) is None


def test_values_are_judged_in_the_steps_that_they_are_in_force():
    """Against a plain loop over updates and the steps that each one's weights act; a switch within a trajectory too."""
    switch_every = 110
    learner = Learner(predictor(switch_every, num_lifetimes=2), num_seeds=2)
    recovered = random_walk_tracking.recovery(learner, 6)
    errors = [[] for _ in range(switch_every)]
    for update in range(1, 6 * switch_every // 4 + 1):
        learner.advance(1)
        tables = np.asarray(learner.state.agents.params['network/value_head']['w'])[..., 0]
        for age in range(4 * update, 4 * update + 4):  # The first trajectory, of steps 0 to 3, was acted before.
            sign = 1 if age // switch_every % 2 == 0 else -1
            errors[age % switch_every].append(np.square(tables - sign * np.arange(1, 6) / 6).mean())
    np.testing.assert_allclose(recovered, [np.mean(same_time) for same_time in errors], rtol=1e-5)
    assert recovered[:5].mean() > recovered[-5:].mean()


def test_a_run_without_a_recovery_is_refused():
    with pytest.raises(ConfigurationError, match='not on a RandomWalk that switches'):
        random_walk_tracking.recovery(Learner(predictor(0)), 1)
    with pytest.raises(ConfigurationError, match="does not monitor 'value_error'"):
        random_walk_tracking.recovery(Learner(predictor(monitors={})), 1)


def test_a_table_has_a_line_for_each_predictor():
    errors = {'never': np.full(960, 0.3), 'soon': np.r_[np.full(50, 1.2), np.full(910, 0.05)]}
    table = random_walk_tracking.table(errors)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ['never', 'soon']
    assert cells[1:5] == [['0.3000', x] for x in ('1.2000', '1.2000', '0.0500', '0.0500')]
    assert cells[-1] == ['never', '50 steps']
