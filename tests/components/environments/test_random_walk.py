import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.random_walk import RandomWalk, RandomWalkState

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
LEFT, RIGHT = 0, 1
KEY = jax.random.key(0)


def at(position, num_env_steps=0):
    return RandomWalkState(jnp.int32(position), jnp.int32(num_env_steps))


def summary(timestep):
    return (
        int(timestep.step_type),
        float(timestep.reward),
        float(timestep.discount),
        np.asarray(timestep.observation).tolist(),
    )


def test_a_walk_by_hand():
    walk = RandomWalk(num_states=3)
    state, timestep = walk.reset(KEY)
    assert summary(timestep) == (FIRST, 0, 1, [0, 1, 0])
    state, timestep = walk.step(state, jnp.int32(RIGHT), KEY)
    assert summary(timestep) == (MID, 0, 1, [0, 0, 1])
    end, timestep = walk.step(state, jnp.int32(RIGHT), KEY)
    assert summary(timestep) == (LAST, 1, 0, [0, 0, 0])
    assert int(end.num_env_steps) == 2
    again, timestep = walk.restart(end, KEY)
    assert summary(timestep) == (FIRST, 0, 1, [0, 1, 0])
    assert int(again.num_env_steps) == 2
    _, timestep = walk.step(at(0), jnp.int32(LEFT), KEY)
    assert summary(timestep) == (LAST, 0, 0, [0, 0, 0])


@pytest.mark.parametrize(('num_states', 'start'), [(1, 0), (2, 1), (5, 2), (6, 3)])
def test_it_starts_in_the_centre(num_states, start):
    state, timestep = RandomWalk(num_states).reset(KEY)
    assert int(state.position) == start
    assert np.flatnonzero(timestep.observation).tolist() == [start]


def test_the_sign_flips_after_every_period():
    walk = RandomWalk()
    ages = np.array([0, 959, 960, 1919, 1920, 2879, 2880])
    assert walk.sign(at(ages, ages)).tolist() == [1, 1, -1, -1, 1, 1, -1]
    # The transition that a period's last step makes is still paid by it.
    pays = [float(walk.step(at(4, num_env_steps), jnp.int32(RIGHT), KEY)[1].reward) for num_env_steps in (959, 960)]
    assert pays == [1, -1]


@pytest.mark.parametrize('switch_every', [None, 0])
def test_a_constant_walk_never_flips(switch_every):
    assert RandomWalk(switch_every=switch_every).sign(at(0, 10**9)) == 1


def test_the_clock_of_a_batch_runs_on_over_episodes():
    """Against a plain loop, every copy with a clock of its own, all of which show the same time."""
    walk, num_steps, batch_size = RandomWalk(3, switch_every=5), 40, 3
    actions = np.random.default_rng(0).integers(2, size=(num_steps, batch_size))
    batch = Batch(walk, batch_size)
    state, _ = batch.reset(KEY)
    state, timesteps = jax.jit(lambda state: jax.lax.scan(lambda s, a: batch.step(s, a, KEY), state, actions))(state)
    assert state.environment.num_env_steps.tolist() == [num_steps] * batch_size
    assert walk.spec().actions.num_values == 2
    for index in np.ndindex(num_steps, batch_size):
        walk.spec().observations.validate(np.asarray(timesteps.observation)[index])
        walk.spec().rewards.validate(np.asarray(timesteps.reward)[index])
        walk.spec().discounts.validate(np.asarray(timesteps.discount)[index])
    rewards = set()
    for i in range(batch_size):
        position = 1
        for t in range(num_steps):
            position += 1 if actions[t, i] == RIGHT else -1
            sign = 1 if t // 5 % 2 == 0 else -1
            reward, over = (sign if position == 3 else 0), position in (-1, 3)
            position = 1 if over else position
            observation = [float(position == j) for j in range(3)]
            expected = (FIRST, reward, 0, observation) if over else (MID, 0, 1, observation)
            assert summary(jax.tree.map(lambda leaf, t=t, i=i: leaf[t, i], timesteps)) == expected
            rewards.add(reward)
    assert rewards == {-1, 0, 1}


def test_the_clock_of_a_dm_environment_runs_on_over_episodes():
    environment = DmEnvironment(RandomWalk(1, switch_every=2))
    rewards = []
    for _ in range(6):
        environment.reset()
        timestep = environment.step(RIGHT)
        assert timestep.last()
        rewards.append(float(timestep.reward))
    assert rewards == [1, 1, -1, -1, 1, 1]


def test_values_are_known_where_they_are():
    walk = RandomWalk()
    np.testing.assert_allclose(walk.values(at(2)), np.arange(1, 6) / 6, rtol=1e-5)
    # Gambler's ruin for a policy that goes right with probability 0.8.
    np.testing.assert_allclose(walk.values(at(2), 0.8), [0.750, 0.938, 0.985, 0.996, 0.999], atol=6e-4)
    ruin = (1 - 0.25 ** np.arange(1, 6)) / (1 - 0.25**6)
    np.testing.assert_allclose(walk.values(at(2), 0.8), ruin, rtol=1e-5)
    np.testing.assert_allclose(walk.values(at(2, num_env_steps=960), 0.8), -ruin, rtol=1e-5)
    # Always right, discounted: the reward is as many steps away as there are states to the right.
    np.testing.assert_allclose(walk.values(at(2), 1.0, discount=0.5), 0.5 ** np.arange(4, -1, -1), rtol=1e-5)
    assert RandomWalk(1).values(at(0), 0.3).tolist() == [np.float32(0.3)]


def test_values_of_a_policy_that_depends_on_the_state_solve_bellmans_equation():
    walk, right, discount = RandomWalk(4, None), np.array([0.9, 0.2, 0.6, 0.3]), 0.8
    values = np.asarray(walk.values(at(0), right, discount))
    padded = np.concatenate([[0], values, [0]])
    rewards = np.array([0, 0, 0, 0.3])
    np.testing.assert_allclose(values, rewards + discount * (right * padded[2:] + (1 - right) * padded[:-2]), rtol=1e-5)


def test_values_of_a_batch_have_the_signs_of_its_copies():
    ages = jnp.array([[0, 960], [1920, 5]])
    values = RandomWalk().values(RandomWalkState(ages, ages))
    assert values.shape == (2, 2, 5)
    assert np.sign(values[..., 0]).tolist() == [[1, -1], [1, 1]]
    np.testing.assert_array_equal(values[0, 1], -values[0, 0])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_states': 0}, r'RandomWalk.num_states must be at least 1, got 0'),
        ({'switch_every': -1}, r'RandomWalk.switch_every must be None or at least 0, got -1'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomWalk(**arguments)
