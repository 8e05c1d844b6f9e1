"""Monitors, and the reference that a walk's errors are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.learner import Learner
from components.acting.policies import FixedPolicy
from components.environments.batch import Batch
from components.environments.random_walk import RandomWalk
from components.meta_optimisers.base import Fixed
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.monitors import StateValueError
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ValueRegression
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent
from tools import random_walk_reference


class Rows:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.rows = []
        self.write = self.rows.append


def predictor(switch_every=6, **kwargs):
    objective = ValueRegression(LambdaReturn(1.0, 1.0), value_head='value', policy=FixedPolicy((0.5, 0.5)))
    parts = {
        'environment': Batch(RandomWalk(switch_every=switch_every), 1),
        'network': Network(MLP(()), head_bias=False),
        'update_rule': UpdateRule(objective, Optimiser(optax.identity(), 0.5)),
        'meta_parameters': MetaParameterSet(),
        'meta_optimiser': Fixed(),
        'policy': FixedPolicy((0.5, 0.5)),
        'monitors': {'value_error': StateValueError()},
        'unroll_length': 4,
    }
    return make_agent(**{**parts, **kwargs})


def test_the_error_of_a_table_is_that_to_the_values_of_the_moment():
    logger = Rows()
    learner = Learner(predictor(), num_seeds=2, logger=logger)
    # The first trajectory of 4 steps is there from the start, so the clock stands at 8, 12, 16, ...: beyond 6, 12 and
    # 18.
    for sign in (-1, 1, 1, -1):
        learner.advance(1)
        table = np.asarray(learner.state.agents.params['network/value_head']['w'])[:, 0, :, 0]
        expected = np.square(table - sign * np.arange(1, 6) / 6).mean(-1)
        np.testing.assert_allclose(logger.rows[-1]['monitor/value_error'], expected, rtol=1e-5)


def test_an_environment_without_known_values_is_refused():
    with pytest.raises(CompositionError, match='StateValueError needs a Batch of RandomWalk'):
        make_agent(monitors={'value_error': StateValueError()})


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


def test_a_head_that_nothing_trains_is_refused():
    monitors = {'value_error': StateValueError(value_head='other')}
    with pytest.raises(CompositionError, match=r'Agent.monitors: value_error reads other, .* it trains value'):
        predictor(monitors=monitors)


def test_the_reference_is_td_lambda_online():
    key = jax.random.key(3)
    tracking = random_walk_reference.track(key, num_streams=1, num_periods=1, skipped=0)
    actions = [bool(jax.random.bernoulli(k, shape=(1,))[0]) for k in jax.random.split(key, 960)[:200]]
    i, j = 6, 4
    expected = td_lambda_loop(random_walk_reference.STEP_SIZES[i], random_walk_reference.LAMBDAS[j], actions, 200, 960)
    np.testing.assert_allclose(tracking.td_lambda[i, j, 1:201], expected, rtol=1e-4)


def test_errors_between_phases_are_means_of_those_that_there_are():
    errors = np.full(960, np.nan)
    errors[[0, 29, 30, 500]] = 1, 3, 5, 7
    np.testing.assert_array_equal(random_walk_reference.between_phases(errors), [2, 5, np.nan, np.nan, np.nan, 7])


def test_the_time_to_recover_is_that_of_the_first_small_error():
    assert random_walk_reference.time_to_recover(np.array([1.2, np.nan, 0.3, 0.09, 0.2, 0.01])) == 3
    assert random_walk_reference.time_to_recover(np.array([1.2, 0.3])) is None


def test_values_are_judged_in_the_steps_that_they_are_in_force():
    """Against a plain loop over updates and the steps that each one's weights act; a switch within a trajectory too."""
    switch_every = 110
    learner = Learner(predictor(switch_every, num_lifetimes=2), num_seeds=2)
    recovered = random_walk_reference.recovery(learner, 6)
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
    with pytest.raises(random_walk_reference.ConfigurationError, match='not on a RandomWalk that switches'):
        random_walk_reference.recovery(Learner(predictor(0)), 1)
    with pytest.raises(random_walk_reference.ConfigurationError, match="does not monitor 'value_error'"):
        random_walk_reference.recovery(Learner(predictor(monitors={})), 1)


def test_a_network_without_a_bias_in_its_heads_is_a_table():
    learner = Learner(predictor())
    params = jax.tree.map(lambda x: x[0, 0], learner.state.agents.params)
    assert jax.tree.map(jnp.shape, params) == {'network/value_head': {'w': (5, 1)}}
