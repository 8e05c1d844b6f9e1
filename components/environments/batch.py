"""A batch of pure-JAX environments with auto-reset."""

import functools
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.axes import by_environment, tree_where
from components.component import PositiveInt, component
from components.environments.as_dm_env import DmEnvironment
from components.environments.base import Environment, ReferenceScores, restart, spec_of
from components.types import Array


class BatchState(NamedTuple):
    """State of a `Batch`: the environments' own, and whether each one's last timestep was LAST, `[B]`."""

    environment: PyTree
    truncated: Array


@component
class Batch:
    """`batch_size` copies of a pure-JAX environment, each restarting when its episode ends.

    Args:
      environment: the single environment; the copies of one that is `Lifelong` share what a lifetime draws at its
        start.
      batch_size: number of copies, `B`.

    Raises:
      ValueError: if `batch_size` < 1.
    """

    environment: Environment
    batch_size: PositiveInt

    def __post_init__(self) -> None:
        self.spec()  # Outside of any trace, and once: an environment may look at concrete values for it.

    @property
    def is_pure(self) -> bool:
        return True

    @property
    def reference_scores(self) -> ReferenceScores | None:
        return getattr(self.environment, 'reference_scores', None)

    def spec(self) -> specs.EnvironmentSpec:
        return self._spec

    @functools.cached_property
    def _spec(self) -> specs.EnvironmentSpec:
        return spec_of(self.environment)

    def reset(self, key: Array) -> tuple[BatchState, dm_env.TimeStep]:
        keys = jax.random.split(key, self.batch_size + 1)
        lifetime, _ = self.environment.reset(keys[-1])
        state, timestep = jax.vmap(functools.partial(restart, self.environment, lifetime))(keys[:-1])
        return BatchState(state, jnp.zeros(self.batch_size, bool)), timestep

    def step(self, state: BatchState, actions: Array, key: Array) -> tuple[BatchState, dm_env.TimeStep]:
        # Keys are those of `split(key, B + 1)`, which a device can make for its own environments alone.
        return by_environment(self._step, (0, 0, None, 0), (0, 0))(state, actions, key, jnp.arange(self.batch_size))

    def _step(
        self, state: BatchState, actions: Array, key: Array, indices: Array
    ) -> tuple[BatchState, dm_env.TimeStep]:
        """`step` of the environments with these indices in the batch."""
        stepped, timestep = jax.vmap(self.environment.step)(state.environment, actions, _keys(key, indices))
        restarts = state.truncated | (timestep.last() & (timestep.discount == 0))

        def restart_some() -> tuple[PyTree, dm_env.TimeStep]:
            # After a truncation the step that was just taken is none: the lifetime continues from before it.
            ended = tree_where(state.truncated, state.environment, stepped)
            restart_keys = _keys(jax.random.fold_in(key, self.batch_size), indices)
            fresh, first = jax.vmap(functools.partial(restart, self.environment))(ended, restart_keys)
            shown = timestep._replace(
                step_type=jnp.where(restarts, first.step_type, timestep.step_type),
                reward=jnp.where(state.truncated, 0, timestep.reward),
                discount=jnp.where(state.truncated, 0, timestep.discount),
                observation=tree_where(restarts, first.observation, timestep.observation),
            )
            return tree_where(restarts, fresh, stepped), shown

        # Where all episodes are of one length, hardly any step restarts one, and no step draws one for nothing.
        environment, shown = jax.lax.cond(restarts.any(), restart_some, lambda: (stepped, timestep))
        return BatchState(environment, shown.last()), shown

    def close(self, state: BatchState) -> None:
        del state  # All of it is arrays.

    def as_dm_env(self, seed: int) -> dm_env.Environment:
        return DmEnvironment(self.environment, seed)


def _keys(key: Array, indices: Array) -> Array:
    """Entries of `jax.random.split(key, n)`, whatever `n` is."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
