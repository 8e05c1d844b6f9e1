"""Tabular grid worlds: an agent moves over cells and collects objects, which may end the episode and may come back.

Source: Oh et al. (2020); the numbers of `WORLDS` are those of Jackson et al. (2023). So are, in the code of the latter:
five actions, start and places drawn once for a lifetime, every object there at first, and a one-hot state. That code
has walls in the last two worlds, 5 objects in place of 7 in `longer`, and 9 x 9 cells; here they are as the paper's
table has them, without walls. What else is left open (which side of a 7 x 9 grid is which) is this project's choice.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import NonNegativeInt, PositiveInt, UnitInterval, component
from components.environments.base import make_timestep
from components.types import Array

_MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)], np.int32)


class GridWorldState(NamedTuple):
    """State of a `GridWorld`. A cell is `row * width + column`.

    Attributes:
      cell: where the agent is. int32 scalar.
      present: which objects are there. Bool `[num_objects]`.
      num_steps: of the episode so far. int32 scalar.
      start: cell that every episode of the lifetime starts in. int32 scalar.
      places: the objects' cells, for the lifetime. int32 `[num_objects]`.
    """

    cell: Array
    present: Array
    num_steps: Array
    start: Array
    places: Array


@component
class GridWorld:
    """A grid world as a pure-JAX `Environment`, `Lifelong`: start and places are drawn once for a lifetime.

    They are cells of their own, uniformly random. Actions move the agent up, down, left, right or not at all (0 to 4);
    off the grid is not at all. Entering, or staying in, the cell of an object that is there collects it: the agent gets
    its reward, the episode terminates with its probability, and the object is gone. An object that is not there comes
    back to its place with its probability in every step, the one that it is collected in left out; it can be collected
    from the next step on. All objects are there when an episode starts.

    Observations are the state as one-hot float32 `[height * width * 2**num_objects]`, so that a linear function of them
    is a table: the entry of a cell and a subset of objects is `cell + height * width * sum(2**i for each object i
    there)`. They tell neither the places nor how long the episode still is.

    Args:
      height: rows, at least 1.
      width: columns, at least 1; the grid has more cells than objects.
      objects: a triple for each: reward, probability that collecting it terminates, probability of coming back in a
        step.
      max_steps: steps after which an episode is truncated (LAST with discount 1) if it has not terminated.
      seed: draws start and places of every lifetime alike: one world, held out say. None: each lifetime draws its own.

    Raises:
      ValueError: if the grid is smaller than that, an object is no such triple, or `max_steps` < 1.
    """

    height: PositiveInt = 11
    width: PositiveInt = 11
    objects: Sequence[tuple[float, UnitInterval, UnitInterval]] = ((1.0, 0.0, 0.05),) * 2 + (
        (-1.0, 0.5, 0.1),
        (-1.0, 0.0, 0.5),
    )
    max_steps: PositiveInt = 500
    seed: NonNegativeInt | None = None

    def __post_init__(self) -> None:
        if self.height * self.width <= len(self.objects):
            raise ValueError(
                f'GridWorld.objects must be fewer than the cells, got {len(self.objects)} for {self.height} x {self.width}'
            )

    def spec(self) -> specs.EnvironmentSpec:
        num_observations = self.height * self.width * 2 ** len(self.objects)
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray((num_observations,), np.float32, 0.0, 1.0, 'state'),
            actions=specs.DiscreteArray(len(_MOVES), name='action'),
            rewards=specs.Array((), np.float32, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[GridWorldState, dm_env.TimeStep]:
        if self.seed is not None:
            key = jax.random.key(self.seed)
        cells = jax.random.permutation(key, jnp.arange(self.height * self.width, dtype=jnp.int32))
        return self._start(cells[0], cells[1 : 1 + len(self.objects)])

    def restart(self, state: GridWorldState, key: Array) -> tuple[GridWorldState, dm_env.TimeStep]:
        del key  # An episode starts as every other one of its lifetime.
        return self._start(state.start, state.places)

    def step(self, state: GridWorldState, action: Array, key: Array) -> tuple[GridWorldState, dm_env.TimeStep]:
        rewards, terminating, returning = np.reshape(np.array(self.objects, np.float32), (-1, 3)).T
        termination_key, return_key = jax.random.split(key)
        row, column = jnp.stack(jnp.divmod(state.cell, self.width)) + jnp.asarray(_MOVES)[action]
        cell = jnp.clip(row, 0, self.height - 1) * self.width + jnp.clip(column, 0, self.width - 1)
        collected = state.present & (state.places == cell)  # One at most: no two have the same place.
        terminated = jax.random.bernoulli(termination_key, jnp.sum(collected * terminating))
        present = (state.present | jax.random.bernoulli(return_key, returning)) & ~collected
        state = state._replace(cell=cell, present=present, num_steps=state.num_steps + 1)
        last = terminated | (state.num_steps >= self.max_steps)
        reward, discount = jnp.sum(collected * rewards), jnp.where(terminated, 0, 1)
        return state, make_timestep(self._observe(state), reward, discount, last=last)

    def _start(self, start: Array, places: Array) -> tuple[GridWorldState, dm_env.TimeStep]:
        state = GridWorldState(start, jnp.ones(len(self.objects), bool), jnp.int32(0), start, places)
        return state, make_timestep(self._observe(state), first=True)

    def _observe(self, state: GridWorldState) -> Array:
        subset = jnp.sum(state.present * 2 ** np.arange(len(self.objects)), dtype=jnp.int32)
        cells = self.height * self.width
        return jax.nn.one_hot(state.cell + cells * subset, cells * 2 ** len(self.objects), dtype=jnp.float32)


WORLDS: Mapping[str, GridWorld] = {
    'dense': GridWorld(11, 11, (2 * ((1.0, 0.0, 0.05),) + ((-1.0, 0.5, 0.1), (-1.0, 0.0, 0.5))), 500),
    'sparse': GridWorld(13, 13, ((1.0, 1.0, 0.0), (-1.0, 1.0, 0.0)), 50),
    'long': GridWorld(11, 11, 2 * ((1.0, 0.0, 0.01),) + 2 * ((-1.0, 0.5, 1.0),), 1000),
    'longer': GridWorld(7, 9, 2 * ((1.0, 0.1, 0.01),) + 5 * ((-1.0, 0.8, 1.0),), 2000),
    'long_dense': GridWorld(11, 11, 4 * ((1.0, 0.0, 0.005),), 2000),
}
"""The five worlds of Jackson et al. (2023), by name; of 1936, 676, 1936, 8064 and 1936 states."""


def published_world(name: str, seed: int | None = None) -> GridWorld:
    """One of `WORLDS`.

    Args:
      name: of the world.
      seed: as of `GridWorld`.

    Raises:
      ValueError: if there is no world of that name.
    """
    if name not in WORLDS:
        raise ValueError(f'published_world.name must be one of {", ".join(WORLDS)}, got {name!r}')
    return dataclasses.replace(WORLDS[name], seed=seed)
