"""The I-maze as a grid of cells."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import PositiveInt, component
from components.environments.base import make_timestep
from components.environments.i_maze.common import ALCOVES, APPLES, IS_WALL, START, collect, maze_spec, start
from components.types import Array

_MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])


class SymbolicIMazeState(NamedTuple):
    """State of a `SymbolicIMaze`; see the package's docstring for the last four attributes.

    Attributes:
      cell: row and column of where the agent is. int32 `[2]`.
      goal: number of the alcove with the goal: 0 and 1 are the upper ones, left and right, 2 and 3 the lower. int32
        scalar.
      apples: which apples are there, from the top. Bool `[4]`.
      num_steps: int32 scalar.
      num_goals: int32 scalar.
      steps_since_respawn: int32 scalar.
      reached_goal: bool scalar.
    """

    cell: Array
    goal: Array
    apples: Array
    num_steps: Array
    num_goals: Array
    steps_since_respawn: Array
    reached_goal: Array


@component
class SymbolicIMaze:
    """The I-maze as a grid of cells, as a pure-JAX `Environment`; see the package's docstring.

    Actions move up, down, left or right (0 to 3), by one cell; into a wall is not at all. An agent that enters the cell
    of an apple collects it, and one that enters the goal's alcove is at `s` when it sees what it did.

    Observations are float32 `[view_size, view_size, 3]`: the cells around the agent's, with the map's up on top. They
    are 1 where there is a wall, an apple, and the goal; beyond the map is wall. Walls hide nothing but the goal: it is
    seen from the cell in front of its alcove alone. With a `view_size` of 5 or more walls look different from every
    cell, so that where the agent is can be told from one observation.

    Args:
      num_steps: steps of an episode, at least 1. The default takes an agent about as far as 900 steps of `IMaze`.
      view_size: cells from one side of an observation to the other, odd and at least 3.
      apples: whether there are any.

    Raises:
      ValueError: if a size is not as above.
    """

    num_steps: PositiveInt = 180
    view_size: int = 5
    apples: bool = True

    def __post_init__(self) -> None:
        if self.view_size < 3 or self.view_size % 2 == 0:
            raise ValueError(f'SymbolicIMaze.view_size must be odd and at least 3, got {self.view_size}')

    def spec(self) -> specs.EnvironmentSpec:
        shape = (self.view_size, self.view_size, 3)
        return maze_spec(specs.BoundedArray(shape, np.float32, 0.0, 1.0, 'view'), len(_MOVES))

    def reset(self, key: Array) -> tuple[SymbolicIMazeState, dm_env.TimeStep]:
        state = SymbolicIMazeState(jnp.asarray(START, jnp.int32), **start(key, self.apples))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: SymbolicIMazeState, action: Array, key: Array) -> tuple[SymbolicIMazeState, dm_env.TimeStep]:
        del key  # The rules leave nothing to chance after the start.
        moved = state.cell + jnp.asarray(_MOVES, jnp.int32)[action]
        cell = jnp.where(jnp.asarray(IS_WALL)[tuple(moved)], state.cell, moved)
        at_goal = (cell == jnp.asarray(ALCOVES)[state.goal]).all()
        state, reward = collect(state, at_goal, (cell == APPLES).all(-1), self.apples)
        state = state._replace(cell=jnp.where(at_goal, jnp.asarray(START, jnp.int32), cell))
        last = state.num_steps >= self.num_steps
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: SymbolicIMazeState) -> Array:
        margin = self.view_size // 2
        alcove = jnp.asarray(ALCOVES)[state.goal]
        in_sight = jnp.abs(alcove - state.cell).sum() <= 1
        planes = jnp.zeros((*IS_WALL.shape, 3), jnp.float32).at[:, :, 0].set(IS_WALL)
        planes = planes.at[*APPLES.T, 1].set(state.apples).at[*alcove, 2].set(in_sight)
        planes = jnp.pad(planes, ((margin, margin), (margin, margin), (0, 0)))
        planes = planes.at[:, :, 0].set(np.pad(IS_WALL, margin, constant_values=True))
        return jax.lax.dynamic_slice(planes, (*state.cell, jnp.int32(0)), (self.view_size, self.view_size, 3))
