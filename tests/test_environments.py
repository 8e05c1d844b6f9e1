import dataclasses
import functools
import gc
import weakref
from typing import Any, NamedTuple

import acme
import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import core as acme_core
from acme import specs
from acme.utils import loggers
from gymnax.environments.classic_control.cartpole import CartPole
from gymnax.environments.classic_control.pendulum import Pendulum
from jumanji.environments import Minesweeper, Snake

from components.environments.adapters import GymnaxEnvironment, JumanjiEnvironment
from components.environments.base import Batch, DmEnvironment
from components.environments.catch import Catch, CatchState, HostCatch
from components.environments.host import HostEnvironment

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
NUM_ACTIONS = 3


class ProbeState(NamedTuple):
    number: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Probe:
    """Episodes whose number, drawn at the start, says after how many steps and with which discount they end.

    An observation is the number and the count of steps; a reward is ten times the count, plus the action.
    """

    lengths: tuple[int, ...]
    last_discounts: tuple[float, ...]

    def ending(self, number: int) -> tuple[int, float]:
        i, j = number % len(self.lengths), number // len(self.lengths) % len(self.last_discounts)
        return self.lengths[i], self.last_discounts[j]

    def spec(self):
        return specs.EnvironmentSpec(
            observations=specs.Array((2,), np.int32),
            actions=specs.DiscreteArray(NUM_ACTIONS),
            rewards=specs.Array((), np.float32),
            discounts=specs.BoundedArray((), np.float32, 0, 1),
        )

    def reset(self, key):
        state = ProbeState(jax.random.randint(key, (), 0, 2**20), jnp.int32(0))
        return state, self._timestep(FIRST, 0, 1, state)

    def step(self, state, action, key):
        del key
        state = ProbeState(state.number, state.count + 1)
        length = jnp.asarray(self.lengths)[state.number % len(self.lengths)]
        last_discount = jnp.asarray(self.last_discounts)[state.number // len(self.lengths) % len(self.last_discounts)]
        last = state.count >= length
        # What comes after the end must not be looked at.
        reward = jnp.where(state.count > length, jnp.nan, 10 * state.count + action)
        return state, self._timestep(jnp.where(last, LAST, MID), reward, jnp.where(last, last_discount, 1), state)

    def _timestep(self, step_type, reward, discount, state):
        return dm_env.TimeStep(jnp.int32(step_type), jnp.float32(reward), jnp.float32(discount), jnp.stack(state))


class HostProbe(dm_env.Environment):
    """The same as a `dm_env.Environment`, which remembers its actions and whether it was closed."""

    def __init__(self, probe: Probe, seed: int = 0):
        self.probe, self.seed, self.actions, self.numbers, self.closed = probe, seed, [], [], False
        self._random = np.random.default_rng(seed)
        self._over = True

    def reset(self):
        self._over, self._count = False, 0
        self.numbers.append(int(self._random.integers(2**20)))
        return dm_env.restart(self._observation())

    def step(self, action):
        assert not self._over
        self.actions.append(int(action))
        self._count += 1
        length, last_discount = self.probe.ending(self.numbers[-1])
        reward = float(10 * self._count + action)
        if self._count < length:
            return dm_env.transition(reward, self._observation())
        self._over = True
        return dm_env.TimeStep(dm_env.StepType.LAST, reward, last_discount, self._observation())

    def observation_spec(self):
        return self.probe.spec().observations

    def action_spec(self):
        return self.probe.spec().actions

    def close(self):
        self.closed = True

    def _observation(self):
        return np.array([self.numbers[-1], self._count], np.int32)


def host_probes(probe: Probe, batch_size: int) -> tuple[HostEnvironment, list[HostProbe]]:
    """A batch, and the list that its members are added to when they are made."""
    made = []

    def make(seed):
        made.append(HostProbe(probe, seed))
        return made[-1]

    environment = HostEnvironment(make, batch_size, seed_argument='seed')
    made.clear()  # The example that the spec is read from.
    return environment, made


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


def scan(environment, key, actions) -> tuple[dm_env.TimeStep, Any]:
    """Timesteps of reset and each step, leaves `[T+1, B, ...]`, and the last state."""
    reset_key, step_key = jax.random.split(key)

    def step(carry, inputs):
        carry = environment.step(carry[0], *inputs)
        return carry, carry[1]

    start = environment.reset(reset_key)
    (state, _), timesteps = jax.lax.scan(step, start, (actions, jax.random.split(step_key, len(actions))))
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start[1], timesteps), state


@functools.cache
def compiled_scan(environment):
    return jax.jit(functools.partial(scan, environment))


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


def scan_through(environment, key, actions) -> tuple[dm_env.TimeStep, Any]:
    """What `scan` returns, as one compiled program; timesteps in NumPy."""
    timesteps, state = compiled_scan(environment)(key, actions)
    return jax.tree.map(np.asarray, timesteps), state


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


def check_member(probe: Probe, actions, step_types, rewards, discounts, observations) -> tuple[int, int]:
    """Plays one member of a batch by the rule; returns how many episodes were terminated and truncated."""
    number, count = observations[0].tolist()
    length, last_discount = probe.ending(number)
    over, terminated, truncated = False, 0, 0
    for t, action in enumerate(actions, 1):
        if over:
            expected = FIRST, 0, 0
        elif count + 1 < length:
            expected = MID, 10 * (count + 1) + action, 1
        elif last_discount == 0:
            expected = FIRST, 10 * length + action, 0
        else:
            expected = LAST, 10 * length + action, last_discount
        assert (step_types[t], rewards[t], discounts[t]) == expected, t
        truncated += over
        terminated += expected[0] == FIRST and not over
        over = expected[0] == LAST
        if expected[0] == FIRST:
            assert observations[t][0] != number, t
            number, count = int(observations[t][0]), 0
            length, last_discount = probe.ending(number)
        else:
            count += 1
        assert observations[t].tolist() == [number, count], t
    return terminated, truncated


@KINDS
def test_members_end_at_different_times_and_in_different_ways(kind):
    probe = Probe((1, 2, 3, 5), (0.0, 1.0))
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(40, 6))
    timesteps = run_probe(probe, kind, actions)
    endings = [check_member(probe, actions[:, i], *(leaf[:, i] for leaf in timesteps)) for i in range(6)]
    assert all(terminated > 0 and truncated > 0 for terminated, truncated in endings)
    assert any(0 < np.sum(step_type == LAST) < 6 for step_type in timesteps.step_type)


# What outlasts an episode.


class LifelongState(NamedTuple):
    task: jax.Array
    age: jax.Array
    episode: ProbeState


@dataclasses.dataclass(frozen=True)
class LifelongProbe:
    """A probe with a task that its lifetime draws, and a clock; an observation is task, age, number and count."""

    probe: Probe

    def spec(self):
        return self.probe.spec()._replace(observations=specs.Array((4,), np.int32))

    def reset(self, key):
        task_key, key = jax.random.split(key)
        return self._start(jax.random.randint(task_key, (), 0, 2**20), jnp.int32(0), key)

    def restart(self, state, key):
        return self._start(state.task, state.age, key)

    def step(self, state, action, key):
        return self._result(state.task, state.age + 1, self.probe.step(state.episode, action, key))

    def _start(self, task, age, key):
        return self._result(task, age, self.probe.reset(key))

    def _result(self, task, age, result):
        state = LifelongState(task, age, result[0])
        return state, result[1]._replace(observation=jnp.stack(jax.tree.leaves(state)))


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
    with pytest.raises(ValueError, match='rows'):
        catch(rows, columns)


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


# Environments on the host.


def test_rows_of_a_vmap_have_environments_of_their_own():
    probe = Probe((2, 3, 5), (0.0, 1.0))
    environment, made = host_probes(probe, batch_size=2)
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(2, 60, 2))

    run = jax.jit(jax.vmap(functools.partial(scan, environment)))
    timesteps, state = run(jax.random.split(jax.random.key(0), 2), actions)
    timesteps = jax.tree.map(np.asarray, timesteps)
    assert state.batch_id.shape == (2,)
    assert len(set(np.asarray(state.batch_id).tolist())) == 2
    assert len(made) == 4
    probe_of = {member.numbers[0]: member for member in made}
    assert len(probe_of) == 4
    for row in range(2):
        for i in range(2):
            leaves = [leaf[row, :, i] for leaf in timesteps]
            check_member(probe, actions[row, :, i], *leaves)
            # A member is told the actions of its own row, in order, but for those of masked steps.
            after_truncation = leaves[0][:-1] == LAST
            assert after_truncation.any()
            told = actions[row, ~after_truncation, i].tolist()
            assert probe_of[int(leaves[3][0, 0])].actions == told

    environment.close(state)
    assert all(member.closed for member in made)


def test_steps_of_batches_in_turn_do_not_mix():
    """Two batches of one environment, stepped alternately."""
    probe = Probe((4,), (0.0,))
    environment, _ = host_probes(probe, batch_size=2)
    states, timesteps = zip(*(environment.reset(jax.random.key(seed)) for seed in range(2)), strict=True)
    states, numbers = list(states), [np.asarray(timestep.observation[:, 0]) for timestep in timesteps]
    for t in range(1, 4):
        for i in range(2):
            states[i], timestep = environment.step(states[i], jnp.full(2, i), jax.random.key(0))
            np.testing.assert_array_equal(timestep.observation, np.stack([numbers[i], [t, t]], -1))
            np.testing.assert_array_equal(timestep.reward, [10 * t + i] * 2)


def test_close_frees_one_batch():
    environment, made = host_probes(Probe((4,), (0.0,)), batch_size=3)
    state, _ = environment.reset(jax.random.key(0))
    other_state, _ = environment.reset(jax.random.key(1))
    closed, kept = made[:3], made[3:]
    references = [weakref.ref(member) for member in closed]
    environment.close(state)
    assert [member.closed for member in closed] == [True] * 3
    assert [member.closed for member in kept] == [False] * 3
    made.clear()
    del closed
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    _, timestep = environment.step(other_state, jnp.zeros(3, jnp.int32), jax.random.key(0))
    assert timestep.observation[:, 1].tolist() == [1] * 3


def test_seeds_come_from_the_key():
    environment, made = host_probes(Probe((4,), (0.0,)), batch_size=3)
    for seed in (0, 1, 0):
        environment.reset(jax.random.key(seed))
    seeds = [member.seed for member in made]
    assert seeds[:3] == seeds[6:]
    assert len(set(seeds[:6])) == 6


def test_without_seed_argument_the_factory_takes_none():
    calls = []

    def make(*args, **kwargs):
        calls.append((args, kwargs))
        return HostCatch(3, 3)

    environment = HostEnvironment(make, 2)
    environment.reset(jax.random.key(0))
    assert calls == [((), {})] * 3


def test_host_rewards_are_scalars():
    class TwoRewards(HostCatch):
        def reward_spec(self):
            return specs.Array((2,), np.float32)

    with pytest.raises(ValueError, match=r'scalar rewards, got rewards of shape \(2,\)'):
        HostEnvironment(TwoRewards, 2)


# A pure-JAX environment as a `dm_env.Environment`.


def summary(timestep: dm_env.TimeStep):
    return timestep.step_type, timestep.reward, timestep.discount, int(timestep.observation[1])


@pytest.mark.parametrize('last_discount', [0.0, 1.0])
def test_dm_environment_follows_dm_env(last_discount):
    environment = DmEnvironment(Probe((2,), (last_discount,)))
    first = dm_env.StepType.FIRST, None, None, 0
    assert summary(environment.step(1)) == first  # A step before any reset is one.
    for _ in range(2):
        assert summary(environment.step(2)) == (dm_env.StepType.MID, 12, 1, 1)
        assert summary(environment.step(1)) == (dm_env.StepType.LAST, 21, last_discount, 2)
        assert summary(environment.step(2)) == first
    assert summary(environment.step(0)) == (dm_env.StepType.MID, 10, 1, 1)
    assert summary(environment.reset()) == first
    assert summary(environment.step(0)) == (dm_env.StepType.MID, 10, 1, 1)


def test_dm_environment_hands_out_numpy_of_the_spec():
    environment = DmEnvironment(Catch())
    timestep = environment.reset()
    while not timestep.last():
        assert isinstance(timestep.step_type, dm_env.StepType)
        environment.observation_spec().validate(timestep.observation)
        timestep = environment.step(environment.action_spec().generate_value())
    environment.observation_spec().validate(timestep.observation)
    environment.discount_spec().validate(timestep.discount)


@pytest.mark.parametrize('last_discount', [0.0, 1.0])
def test_dm_environment_lives_one_lifetime(last_discount):
    environment = DmEnvironment(LifelongProbe(Probe((2,), (last_discount,))))
    observations = [environment.reset().observation]
    observations += [environment.step(0).observation for _ in range(5)]
    observations += [environment.reset().observation, environment.reset().observation]
    tasks, ages, numbers, counts = zip(*observations, strict=True)
    assert len(set(tasks)) == 1
    assert ages == (0, 1, 2, 2, 3, 4, 4, 4)
    assert counts == (0, 1, 2, 0, 1, 2, 0, 0)
    assert len(set(numbers)) == 4


def test_dm_environment_draws_episodes_from_its_seed():
    def numbers(seed):
        environment = DmEnvironment(Probe((2,), (0.0,)), seed)
        return [int(environment.reset().observation[0]) for _ in range(5)]

    assert numbers(0) == numbers(0)
    assert len({*numbers(0), *numbers(1)}) == 10


class RandomActor(acme_core.Actor):
    """Counts what it is told."""

    def __init__(self):
        self.num_first, self.rewards = 0, []
        self._random = np.random.default_rng(0)

    def observe_first(self, timestep):
        assert timestep.first()
        self.num_first += 1

    def select_action(self, observation):
        assert observation.shape == (10, 5)
        return self._random.integers(3, dtype=np.int32)

    def observe(self, action, next_timestep):
        self.rewards.append(float(next_timestep.reward))

    def update(self, wait=False):
        pass


def test_dm_environment_runs_in_acmes_loop():
    actor = RandomActor()
    loop = acme.EnvironmentLoop(DmEnvironment(Catch()), actor, logger=loggers.NoOpLogger())
    for episode in range(1, 4):
        result = loop.run_episode()
        assert result['episode_length'] == 9
        assert actor.num_first == episode
        assert actor.rewards[-9:-1] == [0] * 8
        assert result['episode_return'] == actor.rewards[-1]
        assert abs(actor.rewards[-1]) == 1
    assert len(actor.rewards) == 27
