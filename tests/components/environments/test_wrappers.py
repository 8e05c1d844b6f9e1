"""Environments that change another one: against plain loops over the rewards of that one."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.as_dm_env import DmEnvironment
from components.environments.base import animator_of
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.environments.delayed_chain import DelayedChain
from components.environments.wrappers import DelayedReward, PreviousAction, PreviousReward, TimeInEpisode, unwrapped
from tests.helpers.environments_for_tests import Point

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)


def play(environment, actions, seed=0):
    """Timesteps of a batch, leaves `[T, B, ...]`, and its last state."""

    @jax.jit
    def run(key):
        state, _ = environment.reset(key)
        keys = jax.random.split(key, len(actions))
        return jax.lax.scan(lambda state, inputs: environment.step(state, *inputs), state, (actions, keys))

    return jax.tree.map(np.asarray, run(jax.random.key(seed)))


def delayed(timesteps, delay, ends):
    """The rewards of one environment's timesteps, held back by a plain loop."""
    rewards, pending_reward, num_steps = [], 0.0, 0
    for reward, end in zip(timesteps.reward, ends, strict=True):
        pending_reward, num_steps = pending_reward + reward, num_steps + 1
        pays = end or num_steps == delay
        rewards.append(pending_reward if pays else 0)
        if pays:
            pending_reward, num_steps = 0.0, 0
    return rewards


def cartpole(max_steps):
    environment = CartPole()
    return GymnaxEnvironment(environment, environment.default_params.replace(max_steps_in_episode=max_steps))


@pytest.mark.parametrize('delay', [1, 3, 4, 100])
@pytest.mark.parametrize('max_steps', [6, 500], ids=['truncated', 'terminated'])
def test_rewards_are_paid_every_few_steps_and_at_the_end(delay, max_steps):
    actions = jnp.asarray(np.random.default_rng(0).integers(2, size=(60, 3)))
    _, plain = play(Batch(cartpole(max_steps), 3), actions)
    _, held = play(Batch(DelayedReward(cartpole(max_steps), delay), 3), actions)
    for field in ('step_type', 'discount', 'observation'):
        np.testing.assert_array_equal(getattr(held, field), getattr(plain, field))
    assert (plain.step_type == (LAST if max_steps == 6 else FIRST)).sum() > 3
    for b in range(3):
        one = jax.tree.map(lambda x, b=b: x[:, b], plain)
        # A truncated episode ends with LAST, and restarts with a step that is no transition; a terminated one with
        # discount 0.
        restarts = np.concatenate([[False], one.step_type[:-1] == LAST])
        expected = delayed(one, delay, (one.step_type == LAST) | (one.discount == 0))
        np.testing.assert_array_equal(held.reward[:, b], expected)
        assert not held.reward[restarts, b].any()


def test_a_delay_of_one_step_delays_nothing():
    actions = jnp.asarray(np.random.default_rng(1).integers(3, size=(40, 4)))
    _, plain = play(Batch(Catch(4, 3), 4), actions)
    _, held = play(Batch(DelayedReward(Catch(4, 3), 1), 4), actions)
    assert plain.reward.any()
    jax.tree.map(np.testing.assert_array_equal, held, plain)


def test_a_hand_computed_episode():
    """Rewards 1 in each of 6 steps, 4 of them paid at once, the rest where the time limit truncates."""
    environment = DelayedReward(cartpole(6), 4)
    state, timestep = environment.reset(jax.random.key(0))
    assert (timestep.reward, timestep.discount, timestep.step_type) == (0, 1, FIRST)
    told = []
    for step in range(6):
        state, timestep = environment.step(state, jnp.int32(step % 2), jax.random.key(0))
        told.append((float(timestep.reward), float(timestep.discount), int(timestep.step_type)))
    assert told == [(0, 1, MID), (0, 1, MID), (0, 1, MID), (4, 1, MID), (0, 1, MID), (2, 1, LAST)]
    assert (state.num_steps, state.pending_reward) == (0, 0)


def test_what_is_owed_is_forgotten_where_an_episode_starts():
    environment = DelayedReward(cartpole(500), 4)
    state, _ = environment.step(environment.reset(jax.random.key(0))[0], jnp.int32(0), jax.random.key(0))
    assert (state.num_steps, state.pending_reward) == (1, 1)
    state, timestep = environment.restart(state, jax.random.key(1))
    assert (state.num_steps, state.pending_reward, timestep.reward) == (0, 0, 0)


def test_lifetimes_outlast_episodes():
    chain = DelayedChain(2, 30, noisy_rewards=True)
    environment = Batch(DelayedReward(chain, 3), 4)
    lengths = set()
    for seed in range(3):
        state, timesteps = play(environment, jnp.zeros((70, 4), int), seed)
        start, _ = environment.reset(jax.random.key(seed))
        assert (timesteps.discount == 0).any(0).all()  # An episode at least has ended in every copy.
        for field in ('length', 'good_action'):
            (value,) = set(np.asarray(getattr(start.environment.environment, field)).tolist())
            assert (getattr(state.environment.environment, field) == value).all()
        lengths |= set(state.environment.environment.length.tolist())
    assert len(lengths) > 1


def test_an_environment_without_lifetimes_restarts_as_it_resets():
    environment, key = DelayedReward(Catch(4, 3), 2), jax.random.key(3)
    state, _ = environment.reset(jax.random.key(4))
    jax.tree.map(np.testing.assert_array_equal, environment.restart(state, key), environment.reset(key))


def test_the_spec_allows_sums_and_is_the_others_apart_from_that():
    chain = DelayedChain(2, 5)
    plain, held = chain.spec(), DelayedReward(chain, 20).spec()
    held.rewards.validate(np.float32(20))
    assert held._replace(rewards=plain.rewards) == plain


def test_as_a_dm_env():
    environment = DmEnvironment(DelayedReward(cartpole(6), 4))
    rewards = [environment.reset().reward, *(environment.step(i % 2).reward for i in range(8))]
    assert rewards == [None, 0, 0, 0, 4, 0, 2, None, 0]


class Drawable(Catch):
    def animator(self):
        return lambda states, path: path.extend(states)


def test_what_can_be_drawn_still_is():
    environment = DelayedReward(Drawable(4, 3), 2)
    state, _ = environment.reset(jax.random.key(0))
    drawn = []
    animator_of(environment)([state], drawn)
    assert drawn == [state.environment]
    with pytest.raises(ValueError, match='DelayedChain has no method `animator`'):
        animator_of(DelayedReward(DelayedChain(2, 5)))


@pytest.mark.parametrize('delay', [0, -1])
def test_a_delay_that_is_none_is_refused(delay):
    with pytest.raises(ValueError, match=rf'^DelayedReward.delay must be at least 1, got {delay}$'):
        DelayedReward(Catch(), delay)


def everything(environment, num_steps=10, values=None):
    return TimeInEpisode(PreviousReward(PreviousAction(environment), values), num_steps)


@pytest.mark.parametrize('max_steps', [6, 500], ids=['truncated', 'terminated'])
def test_what_is_shown_of_the_past_is_that_of_the_step_before_and_zeros_at_a_start(max_steps):
    """Against a plain loop over the timesteps of the environment as it is."""
    actions = np.random.default_rng(0).integers(2, size=(60, 3))
    _, plain = play(Batch(cartpole(max_steps), 3), jnp.asarray(actions))
    _, timesteps = play(Batch(everything(cartpole(max_steps)), 3), jnp.asarray(actions))
    for field in ('step_type', 'discount', 'reward'):
        np.testing.assert_array_equal(getattr(timesteps, field), getattr(plain, field))
    shown = timesteps.observation
    np.testing.assert_array_equal(shown['observation'], plain.observation)
    assert (plain.step_type == FIRST).sum() > 3
    time = np.zeros(3)
    for t, action in enumerate(actions):
        starts = plain.step_type[t] == FIRST
        time = np.where(starts, 0, time + 1)
        np.testing.assert_array_equal(shown['previous_action'][t], np.where(starts[:, None], 0, np.eye(2)[action]))
        np.testing.assert_array_equal(shown['previous_reward'][t, :, 0], np.where(starts, 0, plain.reward[t]))
        np.testing.assert_allclose(shown['time'][t, :, 0], time / 10, rtol=1e-6)


def test_the_first_timestep_of_all_shows_zeros():
    _, timestep = everything(Catch(4, 3)).reset(jax.random.key(0))
    assert all(not np.any(timestep.observation[name]) for name in ('previous_action', 'previous_reward', 'time'))


def test_rewards_can_be_shown_one_hot():
    environment = PreviousReward(Catch(2, 3), (-1.0, 0.0, 1.0))
    state, timestep = environment.reset(jax.random.key(0))
    np.testing.assert_array_equal(timestep.observation['previous_reward'], [0, 0, 0])
    _, timestep = environment.step(state, jnp.int32(1), jax.random.key(0))
    np.testing.assert_array_equal(timestep.observation['previous_reward'], np.eye(3)[int(timestep.reward) + 1])
    assert environment.spec().observations['previous_reward'].shape == (3,)


def test_what_is_shown_is_what_the_spec_says():
    environment = everything(Catch(4, 3), values=(0, 1))
    _, timestep = environment.reset(jax.random.key(0))
    specs = environment.spec().observations
    assert {name: (x.shape, x.dtype) for name, x in timestep.observation.items()} == {
        name: (spec.shape, spec.dtype) for name, spec in specs.items()
    }


def test_a_lifetime_goes_on_inside():
    environment = Batch(PreviousAction(DelayedChain(2, 6)), 4)
    state, _ = environment.reset(jax.random.key(2))
    step = jax.jit(environment.step)
    tasks = []
    for t in range(14):
        state, _ = step(state, jnp.zeros(4, jnp.int32), jax.random.key(t))
        inside = state.environment.environment
        tasks.append(np.concatenate([inside.length, inside.good_action]))
    assert (np.asarray(tasks) == tasks[0]).all()


def test_the_innermost_environment_and_its_state():
    environment = everything(DelayedReward(Catch(4, 3), 2))
    state, timestep = environment.reset(jax.random.key(0))
    inside, own = unwrapped(environment, state)
    assert inside == Catch(4, 3)
    assert timestep.observation['observation'].shape == inside.spec().observations.shape
    assert own is state.environment.environment.environment.environment


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: DelayedReward(PreviousReward(Catch())), 'put PreviousReward around DelayedReward'),
        (lambda: DelayedReward(PreviousAction(PreviousReward(Catch()))), 'put PreviousReward around DelayedReward'),
        (lambda: PreviousReward(Catch(), ()), r'PreviousReward\.values is empty'),
        (lambda: TimeInEpisode(Catch(), 0), r'TimeInEpisode\.num_steps must be at least 1, got 0'),
        (lambda: PreviousAction(PreviousAction(Catch())).spec(), "have an entry 'previous_action' already"),
    ],
)
def test_bad_compositions_are_one_line(make, match):
    with pytest.raises(ValueError, match=match) as error:
        make()
    assert '\n' not in str(error.value)


def test_an_action_of_several_numbers_is_shown_as_they_are():
    environment = PreviousAction(Point())
    assert environment.spec().observations['previous_action'].shape == (2,)
    state, timestep = environment.reset(jax.random.key(0))
    np.testing.assert_array_equal(timestep.observation['previous_action'], [0, 0])
    _, timestep = environment.step(state, jnp.array([0.5, -0.25]), jax.random.key(1))
    np.testing.assert_array_equal(timestep.observation['previous_action'], [0.5, -0.25])
