"""A distribution over environments: every lifetime draws one of several, and its episodes stay in it."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import PyTree

from components.component import component
from components.environments.base import Environment, restart, spec_of
from components.types import Array


class TaskDistributionState(NamedTuple):
    """State of a `TaskDistribution`.

    Attributes:
      member: number of the lifetime's environment. int32 scalar.
      states: of all environments, in their order; only that of the lifetime's environment is ever moved on.
    """

    member: Array
    states: tuple[PyTree, ...]


@component
class TaskDistribution:
    """Several environments as one pure-JAX `Environment`, `Lifelong`: a lifetime draws one, uniformly.

    Agents of one program can so live in different worlds. What the drawn environment itself draws for a lifetime
    outlasts episodes too, and is common to a batch.

    Observations are padded with zeros at the end of each axis to the largest, `[max of the environments' sizes, ...]`.
    There are as many actions as any environment has; in one with `n` of them, action `a` is its action `a % n`. Under
    `vmap` every environment is computed in every step, whichever is drawn.

    Args:
      environments: at least one, the observations of each one array, with as many axes and of the same dtype in all.
        One that is listed twice is drawn twice as often.

    Raises:
      ValueError: if there is none, an observation is not one array, or axes or dtypes differ.
    """

    environments: Sequence[Environment]

    def __post_init__(self) -> None:
        if not self.environments:
            raise ValueError('TaskDistribution.environments must be at least one, got none')
        observations = [spec_of(environment).observations for environment in self.environments]
        if not all(isinstance(spec, specs.Array) for spec in observations):
            raise ValueError(f'TaskDistribution.environments must each observe one array, got {observations}')
        if len({(len(spec.shape), spec.dtype) for spec in observations}) > 1:
            found = ', '.join(f'{spec.dtype} {list(spec.shape)}' for spec in observations)
            raise ValueError(
                f'TaskDistribution.environments must have observations of as many axes and the same dtype, got {found}'
            )

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=specs.Array(self._shape, spec_of(self.environments[0]).observations.dtype, 'padded'),
            actions=specs.DiscreteArray(max(self._num_actions), name='action'),
            rewards=specs.Array((), np.float32, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[TaskDistributionState, dm_env.TimeStep]:
        member_key, restart_key, *keys = jax.random.split(key, len(self.environments) + 2)
        member = jax.random.randint(member_key, (), 0, len(self.environments), jnp.int32)
        states = tuple(environment.reset(key)[0] for environment, key in zip(self.environments, keys, strict=True))
        return self.restart(TaskDistributionState(member, states), restart_key)

    def restart(self, state: TaskDistributionState, key: Array) -> tuple[TaskDistributionState, dm_env.TimeStep]:
        return self._apply(state, lambda i, own: restart(self.environments[i], own, key))

    def step(
        self, state: TaskDistributionState, action: Array, key: Array
    ) -> tuple[TaskDistributionState, dm_env.TimeStep]:
        num_actions = self._num_actions
        return self._apply(state, lambda i, own: self.environments[i].step(own, action % num_actions[i], key))

    def _apply(
        self, state: TaskDistributionState, function: Callable[[int, PyTree], tuple[PyTree, dm_env.TimeStep]]
    ) -> tuple[TaskDistributionState, dm_env.TimeStep]:
        """What a function of an environment's number and state returns for the lifetime's one, the others left
        alone.
        """

        def branch(i: int, states: tuple[PyTree, ...]) -> tuple[tuple[PyTree, ...], dm_env.TimeStep]:
            own, timestep = function(i, states[i])
            padding = [
                (0, size - own_size) for size, own_size in zip(self._shape, timestep.observation.shape, strict=True)
            ]
            padded = jnp.pad(timestep.observation, padding)
            return (*states[:i], own, *states[i + 1 :]), timestep._replace(observation=padded)

        branches = [functools.partial(branch, i) for i in range(len(self.environments))]
        states, timestep = jax.lax.switch(state.member, branches, state.states)
        return TaskDistributionState(state.member, states), timestep

    @property
    def _shape(self) -> tuple[int, ...]:
        shapes = [spec_of(environment).observations.shape for environment in self.environments]
        return tuple(max(sizes) for sizes in zip(*shapes, strict=True))

    @property
    def _num_actions(self) -> list[int]:
        return [spec_of(environment).actions.num_values for environment in self.environments]
