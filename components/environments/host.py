"""Any `dm_env.Environment`, stepped on the host from inside the compiled learner."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jax.experimental import io_callback

from components.environments.base import check_batch_size
from components.types import Array


class HostState(NamedTuple):
    """Which batch on the host this is, int32 scalar. Each step returns it, which keeps a batch's steps in order."""

    batch_id: Array


class HostEnvironment:
    """A batch of `dm_env.Environment`s behind the interface of the compiled ones (`base.Environment`).

    The environments live in Python; a step is one callback for the whole batch. Episodes restart by the rule of
    `base`: at once after a termination, with one masked step after a truncation. Under `vmap` (seeds, lifetimes) every
    row has a batch of its own, stepped by a callback of its own. What happens on the host cannot be copied or taken
    back: a checkpoint holds the learner but not the episodes under way.

    Args:
      environment: makes one environment; called on the host, once for each member of a batch.
      batch_size: environments in a batch, `B`.
      seed_argument: name of the argument of `environment` that takes an integer seed. None if it takes none: then
        the environments' randomness is their own, and runs do not repeat.

    Raises:
      ValueError: if `batch_size` < 1, or the specs are not those of scalar rewards.
    """

    def __init__(
        self, environment: Callable[..., dm_env.Environment], batch_size: int, seed_argument: str | None = None
    ):
        check_batch_size(batch_size)
        self.batch_size = batch_size
        self._make, self._seed_argument = environment, seed_argument
        self._batches: dict[int, _HostBatch] = {}
        self._ids = itertools.count()
        example = self._make_one(seed=0)
        self._spec = specs.make_environment_spec(example)
        example.close()
        if self._spec.rewards.shape != ():
            raise ValueError(f'HostEnvironment takes scalar rewards, got rewards of shape {self._spec.rewards.shape}')
        self._result = (
            jax.ShapeDtypeStruct((), jnp.int32),
            dm_env.TimeStep(
                self._struct((), np.int32),
                self._struct((), np.float32),
                self._struct((), np.float32),
                jax.tree.map(lambda spec: self._struct(spec.shape, spec.dtype), self._spec.observations),
            ),
        )

    @property
    def is_pure(self) -> bool:
        return False

    def spec(self) -> specs.EnvironmentSpec:
        return self._spec

    def reset(self, key: Array) -> tuple[HostState, dm_env.TimeStep]:
        seed = jax.random.randint(key, (), 0, np.iinfo(np.int32).max)
        batch_id, timestep = io_callback(self._host_reset, self._result, seed)
        return HostState(batch_id), timestep

    def step(self, state: HostState, actions: Array, key: Array) -> tuple[HostState, dm_env.TimeStep]:
        del key  # The environments draw their own randomness.
        batch_id, timestep = io_callback(self._host_step, self._result, state.batch_id, actions)
        return HostState(batch_id), timestep

    def close(self, state: HostState) -> None:
        for batch_id in np.ravel(state.batch_id):
            self._batches.pop(int(batch_id)).close()

    def as_dm_env(self, seed: int) -> dm_env.Environment:
        return self._make_one(seed)

    def _struct(self, shape, dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.batch_size, *shape), jax.dtypes.canonicalize_dtype(dtype))

    def _make_one(self, seed: int) -> dm_env.Environment:
        return self._make() if self._seed_argument is None else self._make(**{self._seed_argument: seed})

    def _host_reset(self, seed):
        batch_id = next(self._ids)
        seeds = np.random.SeedSequence(int(seed)).generate_state(self.batch_size)
        batch = _HostBatch([self._make_one(int(seed)) for seed in seeds])
        self._batches[batch_id] = batch
        return self._as_result(batch_id, batch.reset())

    def _host_step(self, batch_id, actions):
        return self._as_result(batch_id, self._batches[int(batch_id)].step(np.asarray(actions)))

    def _as_result(self, batch_id, timestep: dm_env.TimeStep):
        return jax.tree.map(lambda struct, x: np.asarray(x, struct.dtype), self._result, (batch_id, timestep))


class _HostBatch:
    """Environments stepped one after the other, with the last timestep of each."""

    def __init__(self, environments: list[dm_env.Environment]):
        self._environments = environments
        self._last = [False] * len(environments)

    def reset(self) -> dm_env.TimeStep:
        return _stack([_restart(environment, 0.0, 1.0) for environment in self._environments])

    def step(self, actions: np.ndarray) -> dm_env.TimeStep:
        timesteps = [self._step(i, action) for i, action in enumerate(actions)]
        self._last = [timestep.last() for timestep in timesteps]
        return _stack(timesteps)

    def close(self) -> None:
        for environment in self._environments:
            environment.close()

    def _step(self, i: int, action) -> dm_env.TimeStep:
        if self._last[i]:
            return _restart(self._environments[i], 0.0, 0.0)
        timestep = self._environments[i].step(action)
        if timestep.last() and timestep.discount == 0:
            return _restart(self._environments[i], timestep.reward, timestep.discount)
        return timestep


def _restart(environment: dm_env.Environment, reward: Any, discount: Any) -> dm_env.TimeStep:
    """Starts an episode with the reward and discount of what came before it."""
    return environment.reset()._replace(reward=reward, discount=discount)


def _stack(timesteps: list[dm_env.TimeStep]) -> dm_env.TimeStep:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *timesteps)
