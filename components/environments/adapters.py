"""Environments of other libraries as `SingleEnvironment`s, and ours as `dm_env.Environment`s.

The adapters take environment objects, so a gin file imports only the library it uses.
"""

import dataclasses
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.environments.base import SingleEnvironment, make_timestep
from components.types import Array


def _spec(reset, num_actions: int) -> specs.EnvironmentSpec:
    """Spec of an environment whose observations are best known by looking at what its reset returns."""
    _, timestep = jax.eval_shape(reset, jax.random.key(0))
    return specs.EnvironmentSpec(
        observations=jax.tree.map(lambda leaf: specs.Array(leaf.shape, leaf.dtype), timestep.observation),
        actions=specs.DiscreteArray(num_actions, name='action'),
        rewards=specs.Array((), np.float32, 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )


@dataclasses.dataclass(frozen=True)
class JumanjiEnvironment:
    """Any jumanji environment with a scalar reward and one discrete action.

    Args:
      environment: a `jumanji.Environment`.
      observation: name of the observation's field that the agent sees, for example `grid` of Snake, which leaves the
        action mask out. None hands over the observation whole.

    Raises:
      ValueError: if the actions are not discrete, or the observation has no such field.
    """

    environment: Any
    observation: str | None = None

    def __post_init__(self):
        if not hasattr(self.environment.action_spec, 'num_values') or self.environment.action_spec.shape != ():
            raise ValueError(f'JumanjiEnvironment: {self.environment.action_spec} is not one discrete action')
        if self.observation is not None:
            fields = jax.eval_shape(self.environment.reset, jax.random.key(0))[1].observation._fields
            if self.observation not in fields:
                raise ValueError(
                    f'JumanjiEnvironment.observation: no field {self.observation!r}, there are {", ".join(fields)}'
                )

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.reset, int(self.environment.action_spec.num_values))

    def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
        state, timestep = self.environment.reset(key)
        return state, self._timestep(timestep)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, dm_env.TimeStep]:
        del key  # A jumanji state carries its own.
        state, timestep = self.environment.step(state, action)
        return state, self._timestep(timestep)

    def _timestep(self, timestep) -> dm_env.TimeStep:
        observation = timestep.observation
        if self.observation is not None:
            observation = getattr(observation, self.observation)
        return make_timestep(
            observation, timestep.reward, timestep.discount, first=timestep.first(), last=timestep.last()
        )


@dataclasses.dataclass(frozen=True)
class GymnaxEnvironment:
    """Any gymnax environment (1.0 or newer) with discrete actions; its time limit is a truncation.

    Args:
      environment: a `gymnax.environments.environment.Environment`.
      params: its parameters; None takes `environment.default_params`.

    Raises:
      ValueError: if the actions are not discrete.
    """

    environment: Any
    params: Any = None

    def __post_init__(self):
        if not hasattr(self.environment.action_space(self._params), 'n'):
            raise ValueError(f'GymnaxEnvironment: {self.environment.name} has no discrete actions')

    @property
    def _params(self):
        return self.environment.default_params if self.params is None else self.params

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.reset, int(self.environment.action_space(self._params).n))

    def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
        # `reset_env` and `step_env`, not `reset` and `step`: the latter restart episodes by themselves.
        observation, state = self.environment.reset_env(key, self._params)
        return state, make_timestep(observation, first=True)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, dm_env.TimeStep]:
        observation, state, reward, terminated, _ = self.environment.step_env(key, state, action, self._params)
        last = terminated | self.environment.is_truncated(state, self._params)
        return state, make_timestep(observation, reward, jnp.where(terminated, 0, 1), last=last)


class DmEnvironment(dm_env.Environment):
    """A pure-JAX environment as a `dm_env.Environment`, for acme's loops and for tools outside this project.

    Args:
      environment: the pure-JAX environment.
      seed: of its randomness.
    """

    def __init__(self, environment: SingleEnvironment, seed: int = 0):
        self._spec = environment.spec()
        self._reset, self._step = jax.jit(environment.reset), jax.jit(environment.step)
        self._key = jax.random.key(seed)
        self._state: Any = None  # None while no episode is under way.

    def reset(self) -> dm_env.TimeStep:
        self._state, timestep = self._reset(self._next_key())
        return dm_env.restart(jax.device_get(timestep.observation))

    def step(self, action) -> dm_env.TimeStep:
        if self._state is None:
            return self.reset()
        self._state, timestep = self._step(self._state, jnp.int32(action), self._next_key())
        timestep = jax.device_get(timestep)
        if timestep.last():
            self._state = None
        return timestep._replace(step_type=dm_env.StepType(int(timestep.step_type)))

    def observation_spec(self):
        return self._spec.observations

    def action_spec(self):
        return self._spec.actions

    def reward_spec(self):
        return self._spec.rewards

    def discount_spec(self):
        return self._spec.discounts

    def _next_key(self) -> Array:
        self._key, key = jax.random.split(self._key)
        return key
