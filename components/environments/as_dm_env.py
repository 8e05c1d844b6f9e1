"""Pure-JAX environments as `dm_env.Environment`."""

import functools

import dm_env
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import ArrayLike, PyTree

from components.environments.base import Animator, Environment, animator_of, restart
from components.types import Array


class DmEnvironment(dm_env.Environment):
    """A pure-JAX environment as a `dm_env.Environment`, for acme's loops and for tools outside this project.

    Args:
      environment: the pure-JAX environment; all episodes of one that is `Lifelong` belong to one lifetime.
      seed: of its randomness.

    Attributes:
      state: that of the pure-JAX environment at the latest timestep; None before the first.
    """

    def __init__(self, environment: Environment, seed: int = 0):
        self._environment, self._spec = environment, environment.spec()
        self._reset, self._step = jax.jit(environment.reset), jax.jit(environment.step)
        self._restart = jax.jit(functools.partial(restart, environment))
        self._key = jax.random.key(seed)
        self._over = True
        self.state: PyTree = None

    def reset(self) -> dm_env.TimeStep:
        key = self._next_key()
        self.state, timestep = self._reset(key) if self.state is None else self._restart(self.state, key)
        self._over = False
        return dm_env.restart(jax.device_get(timestep.observation))

    def step(self, action: ArrayLike) -> dm_env.TimeStep:
        if self._over:
            return self.reset()
        self.state, timestep = self._step(self.state, jnp.asarray(action, self._spec.actions.dtype), self._next_key())
        timestep = jax.device_get(timestep)
        self._over = bool(timestep.last())
        return timestep._replace(step_type=dm_env.StepType(int(timestep.step_type)))

    def observation_spec(self) -> PyTree:
        return self._spec.observations

    def action_spec(self) -> specs.Array:
        return self._spec.actions

    def reward_spec(self) -> specs.Array:
        return self._spec.rewards

    def discount_spec(self) -> specs.BoundedArray:
        return self._spec.discounts

    def animator(self) -> Animator:
        return animator_of(self._environment)

    def _next_key(self) -> Array:
        self._key, key = jax.random.split(self._key)
        return key
