"""Small environments that say what happened in them, and ways to step through any."""

import dataclasses
import functools
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.environments.adapters.host import HostEnvironment
from components.environments.base import make_timestep

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


@dataclasses.dataclass(frozen=True)
class Frames:
    """Images of 8 bits, as emulators show them: `[height, width, stack]`, each step another.

    Episodes have `length` steps; action 1 is worth 5 points, action 2 loses 2.
    """

    height: int
    width: int
    stack: int = 4
    length: int = 6

    def spec(self):
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray((self.height, self.width, self.stack), np.uint8, 0, 255),
            actions=specs.DiscreteArray(NUM_ACTIONS),
            rewards=specs.Array((), np.float32),
            discounts=specs.BoundedArray((), np.float32, 0, 1),
        )

    def reset(self, key):
        state = ProbeState(jax.random.randint(key, (), 0, 256), jnp.int32(0))
        return state, make_timestep(self._image(state), first=True)

    def step(self, state, action, key):
        del key
        state = ProbeState(state.number, state.count + 1)
        last = state.count == self.length
        reward = jnp.array([0.0, 5.0, -2.0])[action]
        return state, make_timestep(self._image(state), reward, jnp.where(last, 0, 1), last=last)

    def _image(self, state):
        row, column, age = jnp.meshgrid(*map(jnp.arange, (self.height, self.width, self.stack)), indexing='ij')
        number = jnp.uint32(41) * (row * self.width + column) + jnp.uint32(97) * (state.count + age) + state.number
        return (number * number // 16).astype(jnp.uint8)


class Point:
    """A point in the plane that moves by each action, two numbers in [-1, 1]; it never arrives."""

    def spec(self):
        return specs.EnvironmentSpec(
            observations=specs.Array((2,), np.float32),
            actions=specs.BoundedArray((2,), np.float32, -1, 1),
            rewards=specs.Array((), np.float32),
            discounts=specs.BoundedArray((), np.float32, 0, 1),
        )

    def reset(self, key):
        return jnp.zeros(2), make_timestep(jnp.zeros(2), first=True)

    def step(self, state, action, key):
        return state + action, make_timestep(state + action, -jnp.linalg.norm(state))


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


def scan_through(environment, key, actions) -> tuple[dm_env.TimeStep, Any]:
    """What `scan` returns, as one compiled program; timesteps in NumPy."""
    timesteps, state = compiled_scan(environment)(key, actions)
    return jax.tree.map(np.asarray, timesteps), state


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
