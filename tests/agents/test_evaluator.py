import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.evaluator import Evaluator
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from components.environments.adapters.ale import Atari
from components.environments.adapters.host import HostEnvironment
from components.environments.batch import Batch
from components.environments.catch import Catch, HostCatch
from components.networks.network import Network
from components.networks.torsos import MLP
from components.types import CompositionError
from tests.helpers.agents_for_tests import make_agent


def always(learner, action):
    """Replaces a learner's weights by those of a policy that (almost surely) takes one action."""
    params = jax.tree.map(jnp.zeros_like, learner.state.agents.params)
    bias = params['network/logits_head']['b']
    params['network/logits_head']['b'] = bias.at[..., action].set(50.0)
    agents = learner.state.agents
    learner.state = learner.state._replace(agents=agents._replace(learning=agents.learning._replace(params=params)))


@pytest.mark.parametrize(('num_seeds', 'num_lifetimes'), [(1, 1), (2, 3)])
def test_one_episode_per_environment_of_a_known_policy(num_seeds, num_lifetimes):
    environment = Batch(Catch(4, 3), 300)
    agent = make_agent(environment=environment, network=Network(MLP((4,))), num_lifetimes=num_lifetimes)
    learner = Learner(agent, num_seeds=num_seeds)
    always(learner, 1)  # Stays in the middle: catches one ball in three.
    row = Evaluator(learner, 100, seed=0).evaluate(0)
    assert set(row) == {
        f'{p}/{x}' for p in ('stochastic', 'greedy') for x in ('episode_return', 'episode_length', 'cut_off')
    }
    for name in ('stochastic', 'greedy'):
        np.testing.assert_array_equal(row[f'{name}/episode_length'], [3] * num_seeds)
        np.testing.assert_allclose(row[f'{name}/episode_return'], [-1 / 3] * num_seeds, atol=0.2)
        np.testing.assert_array_equal(row[f'{name}/cut_off'], [0] * num_seeds)


def test_it_repeats_with_its_seed_and_draws_new_episodes_each_time():
    learner = Learner(make_agent(environment=Batch(Catch(4, 3), 50)))
    first, second = Evaluator(learner, 100, seed=0), Evaluator(learner, 100, seed=0)
    one, two = first.evaluate(0), first.evaluate(1)
    again = second.evaluate(0)
    np.testing.assert_array_equal(one['stochastic/episode_return'], again['stochastic/episode_return'])
    assert one['stochastic/episode_return'] != two['stochastic/episode_return']


def test_training_is_left_as_it_was():
    learner = Learner(make_agent())
    learner.advance(1)
    before = jax.device_get(learner.state.agents.actor_state.timestep)
    Evaluator(learner, 100, seed=0).evaluate(0)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(learner.state.agents.actor_state.timestep))


def test_episodes_that_do_not_end_count_as_they_stand():
    learner = Learner(make_agent(environment=Batch(Catch(50, 3), 2)))
    row = Evaluator(learner, 10, seed=0).evaluate(0)
    np.testing.assert_array_equal(row['greedy/episode_length'], [10])
    np.testing.assert_array_equal(row['greedy/cut_off'], [1])
    row = Evaluator(learner, 49, seed=0).evaluate(0)
    np.testing.assert_array_equal(row['greedy/cut_off'], [0])


def test_environments_on_the_host_are_closed_afterwards():
    environment = HostEnvironment(functools.partial(HostCatch, 4, 3), 5, seed_argument='seed')
    learner = Learner(make_agent(environment=environment), num_seeds=2)
    row = Evaluator(learner, 100, seed=0).evaluate(0)
    np.testing.assert_array_equal(row['stochastic/episode_length'], [3, 3])
    assert len(environment._batches) == 2  # Those that training goes on with.


def test_emulators_of_evaluations_are_a_small_batch_of_their_own_and_no_new_ones_each_time():
    def atari(batch_size):
        return Atari('breakout', batch_size, height=12, width=12, stack=1, max_frames=120)

    learner = Learner(make_agent(environment=atari(2)))
    few = atari(1)
    evaluator = Evaluator(learner, 20, seed=0, environment=few)
    rows = [evaluator.evaluate(number) for number in (0, 1, 0)]
    assert len(few._pool) == 2  # One for each policy.
    assert not few._pool._in_use
    assert len(learner.agent.environment._pool) == 1
    for name in ('stochastic', 'greedy'):
        assert [row[f'{name}/cut_off'].tolist() for row in rows] == [[1]] * 3
        assert [row[f'{name}/episode_length'].tolist() for row in rows] == [[20]] * 3
    jax.tree.map(np.testing.assert_array_equal, rows[0], rows[2])
    learner.advance(1)
    row = Evaluator(learner, 100, seed=0, environment=few).evaluate(0)
    assert row['greedy/cut_off'] == 0
    assert row['greedy/episode_length'] == 30  # Of four frames each.
    assert len(few._pool) == 2


def test_evaluations_are_played_in_what_looks_like_the_agents_environment():
    with pytest.raises(CompositionError, match=r'its observations are float32 \[5, 3\] instead of float32 \[4, 3\]'):
        Experiment(make_agent(), total_env_steps=100, evaluation_environment=Batch(Catch(5, 3), 1))
