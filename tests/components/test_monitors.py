"""Monitors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learner import Learner
from components.monitors import StateValueError
from components.types import CompositionError
from tests.helpers.agents_for_tests import make_agent
from tests.helpers.predictors_for_tests import predictor


class Rows:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.rows = []
        self.write = self.rows.append


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


def test_a_head_that_nothing_trains_is_refused():
    monitors = {'value_error': StateValueError(value_head='other')}
    with pytest.raises(CompositionError, match=r'Agent.monitors: value_error reads other, .* it trains value'):
        predictor(monitors=monitors)


def test_a_network_without_a_bias_in_its_heads_is_a_table():
    learner = Learner(predictor())
    params = jax.tree.map(lambda x: x[0, 0], learner.state.agents.params)
    assert jax.tree.map(jnp.shape, params) == {'network/value_head': {'w': (5, 1)}}
