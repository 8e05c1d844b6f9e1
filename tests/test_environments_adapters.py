"""Environments of other libraries."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole
from gymnax.environments.classic_control.pendulum import Pendulum
from jumanji.environments import Minesweeper, Snake

from components.environments.adapters import GymnaxEnvironment, JumanjiEnvironment
from components.environments.base import Batch
from tests.environments_for_tests import FIRST, LAST, MID, scan

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
