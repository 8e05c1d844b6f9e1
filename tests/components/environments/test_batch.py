"""The contract of a batch of environments, how their episodes end, and Catch."""

import functools
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs
from gymnax.environments.classic_control.cartpole import CartPole
from jumanji.environments import Snake

from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.adapters.host import HostEnvironment
from components.environments.adapters.jumanji import JumanjiEnvironment
from components.environments.batch import Batch
from components.environments.catch import Catch, CatchState, HostCatch, look_ahead_return
from tests.helpers.environments_for_tests import (
    FIRST,
    LAST,
    MID,
    NUM_ACTIONS,
    LifelongProbe,
    Probe,
    check_member,
    host_probes,
    scan_through,
)

ENVIRONMENTS = {
    'catch': lambda: Batch(Catch(), 8),
    'small_catch': lambda: Batch(Catch(4, 3), 5),
    'snake': lambda: Batch(JumanjiEnvironment(Snake(6, 6, time_limit=500), 'grid'), 3),
    'cartpole': lambda: Batch(GymnaxEnvironment(CartPole()), 4),
    'host_catch': lambda: HostEnvironment(HostCatch, 6, seed_argument='seed'),
}


@pytest.fixture(params=ENVIRONMENTS, scope='module')
def environment(request):
    return ENVIRONMENTS[request.param]()


def random_actions(environment, num_steps: int) -> np.ndarray:
    shape = (num_steps, environment.batch_size)
    return np.random.default_rng(0).integers(environment.spec().actions.num_values, size=shape, dtype=np.int32)


@functools.cache
def compiled(environment):
    return jax.jit(environment.reset), jax.jit(environment.step)


def step_through(environment, key, actions) -> tuple[dm_env.TimeStep, Any]:
    """What `scan` returns, step by step; timesteps in NumPy."""
    reset, step = compiled(environment)
    reset_key, step_key = jax.random.split(key)
    state, timestep = reset(reset_key)
    timesteps = [timestep]
    for action, key in zip(actions, jax.random.split(step_key, len(actions)), strict=True):
        state, timestep = step(state, action, key)
        timesteps.append(timestep)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *timesteps), state


def struct(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


# The contract of a batch.


def test_reset_starts_an_episode_in_every_member(environment):
    _, timestep = compiled(environment)[0](jax.random.key(0))
    batch_size = environment.batch_size
    np.testing.assert_array_equal(timestep.step_type, [FIRST] * batch_size)
    np.testing.assert_array_equal(timestep.reward, [0.0] * batch_size)
    np.testing.assert_array_equal(timestep.discount, [1.0] * batch_size)
    members = [np.asarray(timestep.observation[i]) for i in range(batch_size)]
    assert any((member != members[0]).any() for member in members), 'all members start alike'


def test_timesteps_are_what_the_spec_says(environment):
    spec = environment.spec()
    assert isinstance(spec.actions, specs.DiscreteArray)
    timesteps, _ = step_through(environment, jax.random.key(0), random_actions(environment, 12))
    leading = (13, environment.batch_size)
    assert struct(timesteps) == dm_env.TimeStep(
        (leading, np.int32),
        (leading, np.float32),
        (leading, np.float32),
        ((*leading, *spec.observations.shape), spec.observations.dtype),
    )
    for index in np.ndindex(*leading):
        spec.observations.validate(timesteps.observation[index])
        spec.discounts.validate(timesteps.discount[index].astype(spec.discounts.dtype))


def test_reset_and_step_have_one_structure(environment):
    reset, step = compiled(environment)
    start = reset(jax.random.key(0))
    step = step(start[0], random_actions(environment, 1)[0], jax.random.key(1))
    assert jax.tree.structure(start) == jax.tree.structure(step)
    assert struct(start) == struct(step)


def test_a_scan_equals_single_steps_and_the_key_decides(environment):
    actions = random_actions(environment, 30)
    stepped, stepped_state = step_through(environment, jax.random.key(0), actions)
    scanned, scanned_state = scan_through(environment, jax.random.key(0), actions)
    again, _ = scan_through(environment, jax.random.key(0), actions)
    other, _ = scan_through(environment, jax.random.key(1), actions)
    # Two programs may round differently, one program may not.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), stepped, scanned)
    jax.tree.map(np.testing.assert_array_equal, scanned, again)
    assert (scanned.observation != other.observation).any()
    assert (scanned.step_type[1:] != MID).any(), 'no episode ended'
    assert struct(stepped_state) == struct(scanned_state)


@pytest.mark.parametrize('batch_size', [0, -1])
def test_an_empty_batch_is_refused(batch_size):
    with pytest.raises(ValueError, match='batch_size'):
        Batch(Catch(), batch_size)
    with pytest.raises(ValueError, match='batch_size'):
        HostEnvironment(HostCatch, batch_size)


# How an episode of a batch ends.


def run_probe(probe: Probe, kind: str, actions: np.ndarray) -> dm_env.TimeStep:
    batch_size = actions.shape[1]
    environment = Batch(probe, batch_size) if kind == 'compiled' else host_probes(probe, batch_size)[0]
    return scan_through(environment, jax.random.key(3), actions)[0]


KINDS = pytest.mark.parametrize('kind', ['compiled', 'host'])


@KINDS
def test_termination_restarts_in_the_same_step(kind):
    timesteps = run_probe(Probe((3,), (0.0,)), kind, np.array([[1], [0], [2], [1], [0], [2], [1]]))
    assert timesteps.step_type[:, 0].tolist() == [FIRST, MID, MID, FIRST, MID, MID, FIRST, MID]
    assert timesteps.reward[:, 0].tolist() == [0, 11, 20, 32, 11, 20, 32, 11]
    assert timesteps.discount[:, 0].tolist() == [1, 1, 1, 0, 1, 1, 0, 1]
    numbers, counts = timesteps.observation[:, 0].T
    assert counts.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert len(set(numbers[:3])) == len(set(numbers[3:6])) == 1
    assert len(set(numbers)) == 3


@KINDS
def test_truncation_shows_the_last_observation_then_restarts(kind):
    timesteps = run_probe(Probe((2,), (1.0,)), kind, np.array([[1], [0], [2], [1], [0], [2], [1]]))
    assert timesteps.step_type[:, 0].tolist() == [FIRST, MID, LAST, FIRST, MID, LAST, FIRST, MID]
    assert timesteps.reward[:, 0].tolist() == [0, 11, 20, 0, 11, 20, 0, 11]
    assert timesteps.discount[:, 0].tolist() == [1, 1, 1, 0, 1, 1, 0, 1]
    numbers, counts = timesteps.observation[:, 0].T
    assert counts.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert len(set(numbers[:3])) == len(set(numbers[3:6])) == 1
    assert len(set(numbers)) == 3


@KINDS
def test_episodes_of_one_step(kind):
    actions = np.array([[1], [0], [2], [1]])
    terminated = run_probe(Probe((1,), (0.0,)), kind, actions)
    assert terminated.step_type[:, 0].tolist() == [FIRST] * 5
    assert terminated.reward[:, 0].tolist() == [0, 11, 10, 12, 11]
    assert terminated.discount[:, 0].tolist() == [1, 0, 0, 0, 0]
    assert len(set(terminated.observation[:, 0, 0])) == 5
    truncated = run_probe(Probe((1,), (1.0,)), kind, actions)
    assert truncated.step_type[:, 0].tolist() == [FIRST, LAST, FIRST, LAST, FIRST]
    assert truncated.reward[:, 0].tolist() == [0, 11, 0, 12, 0]
    assert truncated.discount[:, 0].tolist() == [1, 1, 0, 1, 0]


@KINDS
def test_truncation_keeps_a_discount_between_0_and_1(kind):
    timesteps = run_probe(Probe((2,), (0.5,)), kind, np.array([[0]] * 4))
    assert timesteps.step_type[:, 0].tolist() == [FIRST, MID, LAST, FIRST, MID]
    assert timesteps.discount[:, 0].tolist() == [1, 1, 0.5, 0, 1]


@KINDS
def test_members_end_at_different_times_and_in_different_ways(kind):
    probe = Probe((1, 2, 3, 5), (0.0, 1.0))
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(40, 6))
    timesteps = run_probe(probe, kind, actions)
    endings = [check_member(probe, actions[:, i], *(leaf[:, i] for leaf in timesteps)) for i in range(6)]
    assert all(terminated > 0 and truncated > 0 for terminated, truncated in endings)
    assert any(0 < np.sum(step_type == LAST) < 6 for step_type in timesteps.step_type)


# What outlasts an episode.


def test_a_lifetime_outlasts_terminated_and_truncated_episodes():
    probe = Probe((1, 2, 3, 5), (0.0, 1.0))
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(40, 6))
    timesteps, state = scan_through(Batch(LifelongProbe(probe), 6), jax.random.key(3), actions)
    tasks, ages = timesteps.observation[..., 0], timesteps.observation[..., 1]
    assert len(set(tasks.flat)) == 1, 'one task for all copies and episodes'
    # The clock counts transitions: all steps but those after a truncation, also where an episode ends.
    is_transition = timesteps.step_type[:-1] != LAST
    np.testing.assert_array_equal(ages, np.concatenate([np.zeros((1, 6)), np.cumsum(is_transition, 0)]))
    np.testing.assert_array_equal(state.environment.age, ages[-1])
    episodes = timesteps._replace(observation=timesteps.observation[..., 2:])
    assert len(set(episodes.observation[0, :, 0])) == 6, 'every copy has an episode of its own'
    endings = [check_member(probe, actions[:, i], *(leaf[:, i] for leaf in episodes)) for i in range(6)]
    assert all(terminated > 0 and truncated > 0 for terminated, truncated in endings)


def test_every_reset_starts_another_lifetime():
    reset = jax.jit(jax.vmap(Batch(LifelongProbe(Probe((2,), (0.0,))), 3).reset))
    tasks = np.asarray(reset(jax.random.split(jax.random.key(0), 4))[1].observation[..., 0])
    assert [len(set(row)) for row in tasks] == [1] * 4
    assert len(set(tasks.flat)) == 4


def test_a_batch_without_lifetimes_draws_its_episodes_from_one_key_each():
    _, timestep = compiled(Batch(Catch(), 8))[0](jax.random.key(5))
    _, expected = jax.vmap(Catch().reset)(jax.random.split(jax.random.key(5), 8))
    np.testing.assert_array_equal(timestep.observation, expected.observation)


# Catch.


def test_catch_by_hand():
    catch = Catch(rows=4, columns=3)
    start = CatchState(jnp.int32(0), jnp.int32(0), jnp.int32(1))

    def play(actions):
        state, timesteps = start, []
        for action in actions:
            state, timestep = catch.step(state, jnp.int32(action), jax.random.key(0))
            timesteps.append(timestep)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *timesteps)

    caught = play([0, 1, 0])
    assert caught.step_type.tolist() == [MID, MID, LAST]
    assert caught.reward.tolist() == [0, 0, 1]
    assert caught.discount.tolist() == [1, 1, 0]
    assert caught.observation.tolist() == [
        [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]],
    ]
    missed = play([2, 2, 0])
    assert missed.reward.tolist() == [0, 0, -1]
    assert missed.discount.tolist() == [1, 1, 0]
    assert missed.observation.tolist() == [
        [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]],
    ]


def test_catch_starts_anywhere_with_the_paddle_in_the_middle():
    _, timestep = jax.vmap(Catch(6, 5).reset)(jax.random.split(jax.random.key(0), 200))
    boards = np.asarray(timestep.observation)
    np.testing.assert_array_equal(boards[:, -1], np.tile([0, 0, 1, 0, 0], (200, 1)))
    np.testing.assert_array_equal(boards[:, 0].sum(-1), 1)
    np.testing.assert_array_equal(boards[:, 1:-1], 0)
    assert (boards[:, 0].sum(0) > 20).all()


@pytest.mark.parametrize(('rows', 'columns'), [(10, 5), (4, 4), (2, 1)])
def test_both_catches_are_one_game(rows, columns):
    catch, host = Catch(rows, columns), HostCatch(rows, columns, seed=1)
    step, random, rewards = jax.jit(catch.step), np.random.default_rng(0), []
    for _ in range(15):
        theirs = host.reset()
        assert theirs.first()
        ball_column = int(np.argmax(theirs.observation[0]))
        state = CatchState(jnp.int32(0), jnp.int32(ball_column), jnp.int32(columns // 2))
        for t in range(1, rows):
            action = random.integers(3)
            state, ours = step(state, jnp.int32(action), jax.random.key(0))
            theirs = host.step(action)
            np.testing.assert_array_equal(ours.observation, theirs.observation)
            assert (ours.step_type, ours.reward, ours.discount) == (theirs.step_type, theirs.reward, theirs.discount)
            assert theirs.last() == (t == rows - 1)
        rewards.append(theirs.reward)
    assert set(rewards) == ({1.0} if columns == 1 else {-1.0, 1.0})
    assert host.step(0).first()


@pytest.mark.parametrize('catch', [Catch, HostCatch])
@pytest.mark.parametrize(('rows', 'columns'), [(1, 5), (5, 0)])
def test_catch_needs_a_grid(catch, rows, columns):
    with pytest.raises(ValueError, match=r'Catch.(rows|columns) must be at least'):
        catch(rows, columns)


@pytest.mark.parametrize(
    ('rows', 'columns', 'expected'),
    [
        (6, 11, (-0.818, -0.455, -0.091, 0.273, 0.636, 1.0)),
        (11, 6, (-0.667, -0.107, 0.346, 0.686, 0.904, 1.0)),
        (10, 5, (-0.600, 0.042, 0.526, 0.846, 1.0, 1.0)),
    ],
)
def test_return_of_who_looks_a_few_steps_ahead(rows, columns, expected):
    for num_steps, episode_return in enumerate(expected):
        assert look_ahead_return(rows, columns, num_steps) == pytest.approx(episode_return, abs=5.1e-4)
    assert look_ahead_return(rows, columns, 99) == pytest.approx(1)
