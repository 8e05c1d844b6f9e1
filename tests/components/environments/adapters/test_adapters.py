"""Environments of other libraries."""

import dm_env
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole
from gymnax.environments.classic_control.pendulum import Pendulum
from jumanji.environments import Maze, Minesweeper, Snake

from agents.learner import Learner
from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.adapters.jumanji import JumanjiEnvironment
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.environments.wrappers import PreviousAction
from components.networks.network import Network
from components.networks.torsos import Concatenate
from tests.helpers.agents_for_tests import make_agent
from tests.helpers.environments_for_tests import FIRST, LAST, MID, scan

# Jumanji.


def test_snake_agrees_with_jumanji():
    snake = Snake(4, 4, time_limit=100)
    adapter = JumanjiEnvironment(snake, 'grid')
    assert adapter.spec().observations.shape == (4, 4, 5)
    assert adapter.spec().actions.num_values == 4
    both_reset = jax.jit(lambda key: (adapter.reset(key), snake.reset(key)))
    both_step = jax.jit(lambda s, t, a, key: (adapter.step(s, a, key), snake.step(t, a)))
    random, total_reward, endings = np.random.default_rng(0), 0, 0
    for episode in range(4):
        (state, ours), (jumanji_state, theirs) = both_reset(jax.random.key(episode))
        assert (ours.step_type, ours.reward, ours.discount) == (FIRST, 0, 1)
        np.testing.assert_array_equal(ours.observation, theirs.observation.grid)
        for t in range(40):
            # Mostly allowed moves, so that it eats before it dies.
            allowed = np.flatnonzero(jumanji_state.action_mask)
            action = random.choice(allowed) if t < 25 and len(allowed) else random.integers(4)
            (state, ours), (jumanji_state, theirs) = both_step(state, jumanji_state, action, jax.random.key(t))
            np.testing.assert_array_equal(ours.observation, theirs.observation.grid)
            assert (ours.step_type, ours.reward) == (theirs.step_type, theirs.reward)
            assert ours.discount == (0 if theirs.last() else 1)
            total_reward += float(ours.reward)
            if ours.last():
                endings += 1
                break
    assert total_reward > 1
    assert endings == 4


def test_time_limit_of_snake_terminates():
    snake = Snake(6, 6, time_limit=3)
    adapter = JumanjiEnvironment(snake, 'grid')
    state, timestep = adapter.reset(jax.random.key(0))
    step, timesteps = jax.jit(adapter.step), []
    for _ in range(3):
        state, timestep = step(state, jnp.argmax(state.action_mask), jax.random.key(0))
        timesteps.append((int(timestep.step_type), float(timestep.discount)))
    assert timesteps == [(MID, 1), (MID, 1), (LAST, 0)]


def test_a_jumanji_observation_can_be_handed_over_whole():
    adapter = JumanjiEnvironment(Snake(6, 6, time_limit=500))
    observation = adapter.spec().observations
    assert {name: leaf.shape for name, leaf in observation._asdict().items()} == {
        'grid': (6, 6, 5),
        'step_count': (),
        'action_mask': (4,),
    }


def test_jumanji_says_which_fields_there_are():
    with pytest.raises(ValueError, match=r"'board'.* grid, step_count, action_mask"):
        JumanjiEnvironment(Snake(6, 6), 'board')


def test_jumanji_needs_one_discrete_action():
    with pytest.raises(ValueError, match='one discrete action'):
        JumanjiEnvironment(Minesweeper())


# Gymnax.


@jax.jit
def _play_cartpole(max_steps, actions):
    cartpole = CartPole()
    adapter = GymnaxEnvironment(cartpole, cartpole.default_params.replace(max_steps_in_episode=max_steps))
    return scan(Batch(adapter, 1), jax.random.key(0), actions[:, None])[0]


def play_cartpole(max_steps: int, actions) -> dm_env.TimeStep:
    return jax.tree.map(lambda leaf: np.asarray(leaf[:, 0]), _play_cartpole(max_steps, np.asarray(actions)))


def test_time_limit_of_cartpole_truncates():
    timesteps = play_cartpole(5, [0, 1] * 10)
    assert timesteps.step_type.tolist()[:9] == [FIRST, MID, MID, MID, MID, LAST, FIRST, MID, MID]
    assert timesteps.discount.tolist()[:9] == [1, 1, 1, 1, 1, 1, 0, 1, 1]
    assert timesteps.reward.tolist()[:9] == [0, 1, 1, 1, 1, 1, 0, 1, 1]


def test_falling_over_terminates():
    adapter = GymnaxEnvironment(CartPole())
    step = jax.jit(adapter.step)
    state, timestep = adapter.reset(jax.random.key(0))
    limit, num_steps = 12 * 2 * np.pi / 360, 0
    while not timestep.last() and num_steps < 50:
        state, timestep = step(state, jnp.int32(1), jax.random.key(0))
        num_steps += 1
        fallen = abs(timestep.observation[2]) > limit
        assert (timestep.step_type, timestep.reward, timestep.discount) == ((LAST, 1, 0) if fallen else (MID, 1, 1))
    assert 5 < num_steps < 20


def test_falling_over_at_the_time_limit_terminates():
    actions = [1] * 20
    discounts = play_cartpole(500, actions).discount
    falls_at = int(np.argmin(discounts))
    assert falls_at > 1
    assert discounts[falls_at] == 0
    timesteps = play_cartpole(falls_at, actions)
    assert (timesteps.step_type[falls_at], timesteps.discount[falls_at]) == (FIRST, 0)
    timesteps = play_cartpole(falls_at - 1, actions)
    assert (timesteps.step_type[falls_at - 1], timesteps.discount[falls_at - 1]) == (LAST, 1)


def test_gymnax_needs_discrete_actions():
    with pytest.raises(ValueError, match=r'Pendulum.* no discrete actions'):
        GymnaxEnvironment(Pendulum())


# What both share.


@pytest.mark.parametrize(
    ('make', 'num_actions'),
    [
        (lambda: GymnaxEnvironment('CartPole-v1'), 2),
        (lambda: GymnaxEnvironment(gymnax.make('Acrobot-v1')), 3),
        (lambda: GymnaxEnvironment(CartPole()), 2),
        (lambda: JumanjiEnvironment('Snake-v1', 'grid'), 4),
        (lambda: JumanjiEnvironment(Maze(), 'agent_position/row'), 4),
    ],
)
def test_environments_by_name_by_object_and_as_their_libraries_make_them(make, num_actions):
    assert make().spec().actions.num_values == num_actions


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: GymnaxEnvironment('CartPole-v9'),
            "gymnax has no environment 'CartPole-v9'; did you mean .*CartPole-v1",
        ),
        (lambda: JumanjiEnvironment('Snak-v1'), "jumanji has no environment 'Snak-v1'; did you mean .*Snake-v1"),
        (lambda: JumanjiEnvironment(Maze(), 'agent'), "no entry 'agent', there are agent_position, agent_position/row"),
        (lambda: JumanjiEnvironment(CartPole()), 'no jumanji environment'),
        (lambda: GymnaxEnvironment(Snake()), "has not gymnax's reset_env, step_env"),
    ],
)
def test_what_is_no_environment_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert '\n' not in str(error.value)


class WithoutTimeLimit:
    """gymnax's interface without `is_truncated` and `name`."""

    default_params = None

    def action_space(self, params):
        return CartPole().action_space(CartPole().default_params)

    def reset_env(self, key, params):
        return CartPole().reset_env(key, CartPole().default_params)

    def step_env(self, key, state, action, params):
        return CartPole().step_env(key, state, action, CartPole().default_params)


def test_without_a_time_limit_every_end_is_a_termination():
    timesteps, _ = scan(Batch(GymnaxEnvironment(WithoutTimeLimit()), 2), jax.random.key(0), np.zeros((30, 2), int))
    ended = np.asarray(timesteps.step_type)[1:] == FIRST
    assert ended.any()
    np.testing.assert_array_equal(np.asarray(timesteps.discount)[1:] == 0, ended)
    assert not (np.asarray(timesteps.step_type) == LAST).any()


def test_bounds_of_an_integer_observation_are_known():
    spec = GymnaxEnvironment('FrozenLake-misc').spec().observations
    assert (spec.shape, int(spec.minimum), int(spec.maximum)) == ((), 0, 15)


def test_a_spec_that_looks_at_values_is_taken_outside_of_the_program():
    class Looks(Catch):
        """Its spec needs concrete values."""

        def spec(self):
            assert int(jnp.int32(3)) == 3
            return super().spec()

    agent = make_agent(environment=Batch(PreviousAction(Looks(4, 3)), 5), network=Network(Concatenate()))
    Learner(agent).advance(1)
