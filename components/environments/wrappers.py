"""Wrappers: environments that change another one."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import PyTree

from components.component import PositiveInt, component
from components.environments.base import Animator, Environment, animator_of, restart, spec_of
from components.types import Array


class DelayedRewardState(NamedTuple):
    """State of a `DelayedReward`.

    Attributes:
      environment: state of the environment itself.
      num_steps: since rewards were last paid, or the episode started. int32 scalar.
      pending_reward: sum of the rewards of these steps. Scalar.
    """

    environment: PyTree
    num_steps: Array
    pending_reward: Array


@component
class DelayedReward:
    """Another environment whose rewards are held back, and paid as a sum every `delay` steps of an episode and at its
    end.

    Returns of whole episodes without discount stay what they are. Observations do too: they do not tell when it pays
    next. What outlasts the episodes of an environment that is `Lifelong` still does, and one that is `Drawable` still
    is.

    Args:
      environment: the other one.
      delay: steps, at least 1, which delays nothing.

    Raises:
      ValueError: if `delay` < 1, or a `PreviousReward` inside would show rewards before they are paid.

    Source: Zheng et al. (2018), section 4, the MuJoCo tasks with a delay of 20.
    """

    environment: Environment
    delay: PositiveInt = 20

    def __post_init__(self) -> None:
        if any(isinstance(environment, PreviousReward) for environment in layers(self.environment)):
            raise ValueError(
                'DelayedReward.environment holds a PreviousReward, which would show other rewards than are paid: put '
                'PreviousReward around DelayedReward'
            )

    def spec(self) -> specs.EnvironmentSpec:
        spec = spec_of(self.environment)
        rewards = spec.rewards  # A sum can be out of bounds that hold for one reward.
        return spec._replace(rewards=specs.Array(rewards.shape, rewards.dtype, rewards.name))

    def reset(self, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        return _initial(*self.environment.reset(key))

    def restart(self, state: DelayedRewardState, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        return _initial(*restart(self.environment, state.environment, key))

    def step(self, state: DelayedRewardState, action: Array, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        own, timestep = self.environment.step(state.environment, action, key)
        num_steps, pending_reward = state.num_steps + 1, state.pending_reward + timestep.reward
        pays = (num_steps == self.delay) | timestep.last()
        state = DelayedRewardState(own, jnp.where(pays, 0, num_steps), jnp.where(pays, 0, pending_reward))
        return state, timestep._replace(reward=jnp.where(pays, pending_reward, 0))

    def animator(self) -> Animator:
        animate = animator_of(self.environment)
        return lambda states, path: animate([state.environment for state in states], path)


def _initial(own: PyTree, timestep: dm_env.TimeStep) -> tuple[DelayedRewardState, dm_env.TimeStep]:
    return DelayedRewardState(own, jnp.int32(0), jnp.zeros_like(timestep.reward)), timestep


class MemoryState(NamedTuple):
    """State of an environment that shows something of the past.

    Attributes:
      environment: state of the environment itself.
      memory: what is shown next, or is needed for it.
    """

    environment: PyTree
    memory: Array


class _Memory(abc.ABC):
    """An environment whose observations have one more entry, beside those of another environment.

    If observations of the other are a mapping, it gets the entry; anything else becomes the entry `observation`. What
    the other one draws for a lifetime, and its way to draw itself, stay.
    """

    environment: Environment
    name: str

    @abc.abstractmethod
    def entry_spec(self) -> specs.Array:
        """Spec of the entry."""

    @abc.abstractmethod
    def next_memory(self, memory: Array, action: Array, reward: Array) -> Array:
        """Memory after a step; zeros before the first."""

    def entry(self, memory: Array) -> Array:
        """The entry."""
        return memory

    def spec(self) -> specs.EnvironmentSpec:
        spec = spec_of(self.environment)
        entries = _entries(spec.observations)
        if self.name in entries:
            raise ValueError(f'{type(self).__name__}: observations have an entry {self.name!r} already')
        return spec._replace(observations={**entries, self.name: self.entry_spec()})

    def reset(self, key: Array) -> tuple[MemoryState, dm_env.TimeStep]:
        return self._start(*self.environment.reset(key))

    def restart(self, state: MemoryState, key: Array) -> tuple[MemoryState, dm_env.TimeStep]:
        return self._start(*restart(self.environment, state.environment, key))

    def step(self, state: MemoryState, action: Array, key: Array) -> tuple[MemoryState, dm_env.TimeStep]:
        own, timestep = self.environment.step(state.environment, action, key)
        return self._with_entry(MemoryState(own, self.next_memory(state.memory, action, timestep.reward)), timestep)

    def animator(self) -> Animator:
        animate = animator_of(self.environment)
        return lambda states, path: animate([state.environment for state in states], path)

    def _start(self, own: PyTree, timestep: dm_env.TimeStep) -> tuple[MemoryState, dm_env.TimeStep]:
        spec = self.entry_spec()
        return self._with_entry(MemoryState(own, jnp.zeros(spec.shape, spec.dtype)), timestep)

    def _with_entry(self, state: MemoryState, timestep: dm_env.TimeStep) -> tuple[MemoryState, dm_env.TimeStep]:
        entries = _entries(timestep.observation)
        return state, timestep._replace(observation={**entries, self.name: self.entry(state.memory)})


@component
class PreviousAction(_Memory):
    """Another environment that also shows the action before: entry `previous_action`, one-hot float32 `[A]`.

    An action of several numbers is shown as they are, `[D]`. It is zeros where an episode starts.

    Args:
      environment: the other one, whose action is discrete or an array of numbers.

    Source: Wang et al. (2016), section 2; Duan et al. (2016).
    """

    environment: Environment
    name = 'previous_action'

    def entry_spec(self) -> specs.Array:
        actions = spec_of(self.environment).actions
        if isinstance(actions, specs.DiscreteArray):
            return specs.BoundedArray((actions.num_values,), np.float32, 0.0, 1.0, self.name)
        return specs.Array((int(np.prod(actions.shape)),), np.float32, self.name)

    def next_memory(self, memory: Array, action: Array, reward: Array) -> Array:
        if isinstance(spec_of(self.environment).actions, specs.DiscreteArray):
            return jax.nn.one_hot(action, memory.shape[0], dtype=memory.dtype)
        return jnp.ravel(action).astype(memory.dtype)


@component
class PreviousReward(_Memory):
    """Another environment that also shows the reward before: entry `previous_reward`, float32 `[1]`, or `[N]` one-hot.

    It is zeros where an episode starts. Without it nothing tells an agent with fixed weights what its actions are
    worth.

    Args:
      environment: the other one.
      values: rewards that there are, of which the nearest is shown one-hot; None shows the number itself.

    Raises:
      ValueError: if there is no value.

    Source: Wang et al. (2016), section 2, one-hot in their section 3.1.4.
    """

    environment: Environment
    values: Sequence[float] | None = None
    name = 'previous_reward'

    def __post_init__(self) -> None:
        if self.values is not None and not len(self.values):
            raise ValueError('PreviousReward.values is empty; None shows the reward as a number')

    def entry_spec(self) -> specs.Array:
        return specs.Array((len(self.values or [0]),), np.float32, self.name)

    def next_memory(self, memory: Array, action: Array, reward: Array) -> Array:
        if self.values is None:
            return reward[None].astype(memory.dtype)
        nearest = jnp.argmin(jnp.abs(reward - jnp.asarray(self.values)))
        return jax.nn.one_hot(nearest, len(self.values), dtype=memory.dtype)


@component
class TimeInEpisode(_Memory):
    """Another environment that also shows for how long the episode has lasted: entry `time`, float32 `[1]`.

    Args:
      environment: the other one.
      num_steps: environment steps that count as 1.

    Raises:
      ValueError: if `num_steps` is not positive.

    Source: Wang et al. (2016), section 2; the unit is this project's choice.
    """

    environment: Environment
    num_steps: PositiveInt = 100
    name = 'time'

    def entry_spec(self) -> specs.Array:
        return specs.Array((1,), np.float32, self.name)

    def next_memory(self, memory: Array, action: Array, reward: Array) -> Array:
        return memory + 1

    def entry(self, memory: Array) -> Array:
        return memory / self.num_steps


def layers(environment: Environment) -> Iterator[Environment]:
    """A wrapped environment and those inside of it, from the outside in."""
    yield environment
    if isinstance(environment, DelayedReward | _Memory):
        yield from layers(environment.environment)


def unwrapped(environment: Environment, state: PyTree) -> tuple[Environment, PyTree]:
    """The innermost of wrapped environments, and its part of a state, of one environment or of a batch."""
    *around, innermost = layers(environment)
    for _ in around:
        state = state.environment
    return innermost, state


def with_innermost(environment: Environment, innermost: Environment) -> Environment:
    """The same wrappers around another environment."""
    if isinstance(environment, DelayedReward | _Memory):
        inside: PyTree = with_innermost(environment.environment, innermost)
        return dataclasses.replace(environment, environment=inside)  # type: ignore[type-var]
    return innermost


def _entries(observation: PyTree) -> Mapping[str, PyTree]:
    return observation if isinstance(observation, Mapping) else {'observation': observation}
