"""Catch: a ball falls through a grid and a paddle in the bottom row has to be under it.

The rules are those of bsuite's Catch (Osband et al. 2020): the ball starts in a random column of the top row, the
paddle in the middle of the bottom row; actions move the paddle left, not at all, or right; the ball falls one row a
step; when it reaches the bottom row the episode terminates with reward +1 if the paddle is there and -1 if not. An
episode of `rows` rows has `rows - 1` steps.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import AtLeastTwo, PositiveInt, component
from components.environments.base import Animator, make_timestep
from components.types import Array


def _spec(rows: int, columns: int) -> specs.EnvironmentSpec:
    return specs.EnvironmentSpec(
        observations=specs.BoundedArray((rows, columns), np.float32, 0.0, 1.0, 'board'),
        actions=specs.DiscreteArray(3, name='action'),
        rewards=specs.Array((), np.float32, 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )


class CatchState(NamedTuple):
    """Where the ball and the paddle are; int32 scalars."""

    ball_row: Array
    ball_column: Array
    paddle_column: Array


@component
class Catch:
    """Catch as a pure-JAX `Environment`; observations are float32 `[rows, columns]`, 1 at ball and paddle.

    Args:
      rows: height of the grid, at least 2.
      columns: width of the grid, at least 1.

    Raises:
      ValueError: if the grid is smaller than that.
    """

    rows: AtLeastTwo = 10
    columns: PositiveInt = 5

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.rows, self.columns)

    def reset(self, key: Array) -> tuple[CatchState, dm_env.TimeStep]:
        ball_column = jax.random.randint(key, (), 0, self.columns)
        state = CatchState(jnp.int32(0), ball_column, jnp.int32(self.columns // 2))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: CatchState, action: Array, key: Array) -> tuple[CatchState, dm_env.TimeStep]:
        del key  # The rules leave nothing to chance after the start.
        paddle_column = jnp.clip(state.paddle_column + action - 1, 0, self.columns - 1)
        state = CatchState(state.ball_row + 1, state.ball_column, paddle_column)
        last = state.ball_row == self.rows - 1
        reward = jnp.where(last, jnp.where(paddle_column == state.ball_column, 1, -1), 0)
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def animator(self) -> Animator:
        from PIL import Image  # Imported here: only drawing needs it.

        def draw(state: CatchState) -> Image.Image:
            board = np.zeros((self.rows, self.columns, 3), np.uint8)
            board[-1, state.paddle_column] = 70, 130, 180
            board[state.ball_row, state.ball_column] = 255, 215, 0
            return Image.fromarray(board).resize((24 * self.columns, 24 * self.rows), Image.Resampling.NEAREST)

        def animate(states: Sequence[CatchState], path: str | os.PathLike) -> None:
            first, *others = map(draw, states)
            first.save(path, save_all=True, append_images=others, duration=200, loop=0)

        return animate

    def _observe(self, state: CatchState) -> Array:
        board = jnp.zeros((self.rows, self.columns), jnp.float32)
        board = board.at[state.ball_row, state.ball_column].set(1.0)
        return board.at[self.rows - 1, state.paddle_column].set(1.0)


def look_ahead_return(rows: int, columns: int, num_steps: int) -> float:
    """Mean return of Catch for who moves at random until `num_steps` moves remain, and as well as can be from then on.

    Who learns from trajectories of `num_steps` steps without bootstrapping can do no better, but for what random moves
    leave.

    Args:
      rows: of the grid.
      columns: likewise.
      num_steps: moves that are played well.
    """
    paddle = np.zeros(columns)
    paddle[columns // 2] = 1
    for _ in range(rows - 1 - min(num_steps, rows - 1)):
        left, right = np.roll(paddle, -1), np.roll(paddle, 1)
        left[-1], right[0] = 0, 0
        left[0] += paddle[0]
        right[-1] += paddle[-1]
        paddle = (left + paddle + right) / 3
    distance = np.abs(np.arange(columns)[:, None] - np.arange(columns))
    caught = paddle @ (distance <= num_steps).mean(1)
    return float(2 * caught - 1)


class HostCatch(dm_env.Environment):
    """The same game as an ordinary `dm_env.Environment` in NumPy, stepped on the host.

    Args:
      rows: height of the grid, at least 2.
      columns: width of the grid, at least 1.
      seed: of the ball's starting columns.

    Raises:
      ValueError: if the grid is smaller than that.
    """

    def __init__(self, rows: AtLeastTwo = 10, columns: PositiveInt = 5, seed: int | None = None):
        Catch(rows, columns)  # Checks both.
        self._spec = _spec(rows, columns)
        self._rows, self._columns = rows, columns
        self._random = np.random.default_rng(seed)
        self._over = True

    def reset(self) -> dm_env.TimeStep:
        self._over = False
        self._ball_row, self._ball_column = 0, int(self._random.integers(self._columns))
        self._paddle_column = self._columns // 2
        return dm_env.restart(self._observe())

    def step(self, action: int) -> dm_env.TimeStep:
        if self._over:
            return self.reset()
        self._paddle_column = min(max(self._paddle_column + int(action) - 1, 0), self._columns - 1)
        self._ball_row += 1
        if self._ball_row < self._rows - 1:
            return dm_env.transition(0.0, self._observe())
        self._over = True
        return dm_env.termination(1.0 if self._paddle_column == self._ball_column else -1.0, self._observe())

    def observation_spec(self) -> specs.Array:
        return self._spec.observations

    def action_spec(self) -> specs.DiscreteArray:
        return self._spec.actions

    def _observe(self) -> np.ndarray:
        board = np.zeros((self._rows, self._columns), np.float32)
        board[self._ball_row, self._ball_column] = 1.0
        board[self._rows - 1, self._paddle_column] = 1.0
        return board
