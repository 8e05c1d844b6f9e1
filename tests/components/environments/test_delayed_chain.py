import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.delayed_chain import DelayedChain, DelayedChainState

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
KEY = jax.random.key(0)


def at(position=0, first_action=0, length=3, good_action=1):
    return DelayedChainState(*map(jnp.int32, (position, first_action, length, good_action)))


def play(chain, state, actions):
    timesteps = []
    for action in actions:
        state, timestep = chain.step(state, jnp.int32(action), KEY)
        index = np.flatnonzero(timestep.observation).tolist()
        timesteps.append((int(timestep.step_type), float(timestep.reward), float(timestep.discount), index))
    return timesteps


@pytest.mark.parametrize(
    ('actions', 'good_action', 'reward', 'offset'),
    [((1, 0, 0), 1, 1, 4), ((1, 1, 1), 0, -1, 4), ((0, 1, 1), 1, -1, 0), ((0, 1, 0), 0, 1, 0)],
)
def test_the_first_action_alone_decides(actions, good_action, reward, offset):
    chain = DelayedChain(2, 4)
    assert play(chain, at(good_action=good_action), actions) == [
        (MID, 0, 1, [offset + 1]),
        (MID, 0, 1, [offset + 2]),
        (LAST, reward, 0, []),
    ]


@pytest.mark.parametrize('good_action', [0, 1])
def test_an_episode_of_one_step(good_action):
    assert play(DelayedChain(1, 1), at(length=1, good_action=good_action), [1]) == [
        (LAST, 1 if good_action else -1, 0, [])
    ]


def test_lengths_and_good_actions_are_uniform_and_independent():
    num_draws = 16_000
    state, timestep = jax.jit(jax.vmap(DelayedChain(3, 6).reset))(jax.random.split(KEY, num_draws))
    counts = np.bincount(np.asarray(state.length) * 2 + np.asarray(state.good_action), minlength=14)
    assert counts[:6].sum() == 0
    assert len(counts) == 14
    assert (abs(counts[6:] - num_draws / 8) < 5 * np.sqrt(num_draws / 8 * 7 / 8)).all()
    assert timestep.first().all()
    np.testing.assert_array_equal(timestep.observation, np.eye(12)[np.zeros(num_draws, int)])


def test_a_batch_keeps_its_task_over_episodes():
    chain, num_steps, batch_size = DelayedChain(2, 5, noisy_rewards=True, num_distractors=3), 60, 4
    batch = Batch(chain, batch_size)
    actions = np.random.default_rng(0).integers(2, size=(num_steps, batch_size))
    keys = jax.random.split(jax.random.key(1), num_steps)

    @jax.jit
    def run(key):
        state, timestep = batch.reset(key)
        return state, timestep, jax.lax.scan(lambda s, inputs: batch.step(s, *inputs), state, (actions, keys))[1]

    state, first, timesteps = jax.tree.map(np.asarray, run(KEY))
    (length,), (good_action,) = set(state.environment.length.tolist()), set(state.environment.good_action.tolist())
    assert first.observation[:, 0].tolist() == [1] * batch_size
    chain.spec().observations.validate(first.observation[0])
    assert (timesteps.observation.dtype, timesteps.reward.dtype, timesteps.discount.dtype) == (np.float32,) * 3
    noise, lasts = [], []
    for i in range(batch_size):
        position, first_action = 0, 0
        for t in range(num_steps):
            first_action = actions[t, i] if position == 0 else first_action
            position += 1
            over = position == length
            if over:
                lasts.append(timesteps.reward[t, i] == (1 if first_action == good_action else -1))
                position, first_action = 0, 0
            else:
                noise.append(timesteps.reward[t, i])
            assert (timesteps.step_type[t, i], timesteps.discount[t, i]) == ((FIRST, 0) if over else (MID, 1))
            expected = np.eye(10)[first_action * 5 + position]
            np.testing.assert_array_equal(timesteps.observation[t, i, :10], expected)
    assert all(lasts)
    assert len(lasts) >= batch_size * (num_steps // 5)
    assert set(noise) == {-1, 1}
    bits = timesteps.observation[..., 10:].reshape(-1, 3)
    assert set(bits.flat) == {0, 1}
    assert len(np.unique(bits, axis=0)) == 8


def test_bits_and_noise_are_fair_and_independent():
    num_draws = 8_000
    chain = DelayedChain(5, 5, noisy_rewards=True, num_distractors=2)
    step = functools.partial(chain.step, at(length=5), jnp.int32(0))
    _, timestep = jax.jit(jax.vmap(step))(jax.random.split(KEY, num_draws))
    tosses = np.stack([np.asarray(timestep.reward) > 0, *np.asarray(timestep.observation[:, 10:]).T], -1)
    for outcome in np.ndindex(2, 2, 2):
        assert abs((tosses == outcome).all(-1).sum() - num_draws / 8) < 5 * np.sqrt(num_draws / 8 * 7 / 8), outcome


def test_a_dm_environment_keeps_its_task():
    environment = DmEnvironment(DelayedChain(2, 9), seed=1)
    lives = []
    for _ in range(4):
        timestep, num_steps = environment.reset(), 0
        while not timestep.last():
            timestep, num_steps = environment.step(0), num_steps + 1
        lives.append((num_steps, float(timestep.reward)))
    assert len(set(lives)) == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'min_length': 0}, r'DelayedChain.min_length must be at least 1, got 0'),
        ({'max_length': 4}, r'DelayedChain.max_length must be at least min_length = 5, got 4'),
        ({'num_distractors': -1}, r'DelayedChain.num_distractors must be at least 0, got -1'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DelayedChain(**arguments)
