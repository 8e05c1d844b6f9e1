"""Overlapping meta-updates: the window of the latest `K` updates of an agent, and its replay."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.replay import Replay, replay
from components.types import Array, OptState, Params, Trajectory


class Window(NamedTuple):
    """The latest `K` updates of an agent, oldest first.

    Attributes:
      updates: weights and state of the inner optimiser before each, and what it learned from; leaves `[K, ...]`.
      num_missing: how many of the first have not happened, int32 scalar.
    """

    updates: tuple[Params, OptState, Trajectory]
    num_missing: Array


def empty_window(agent: AgentState, size: int) -> Window:
    """A window of `size` updates, none of which has happened."""
    update = agent.params, agent.opt_state, agent.trajectory
    return Window(jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), update), jnp.int32(size))


def push(window: Window, agent: AgentState) -> Window:
    """The window with the update that is about to be taken in place of the oldest."""
    update = agent.params, agent.opt_state, agent.trajectory
    updates = jax.tree.map(lambda xs, x: jnp.concatenate([xs[1:], x[None]]), window.updates, update)
    return Window(updates, jnp.maximum(window.num_missing - 1, 0))


def replay_window(
    window: Window, pending: Trajectory, agent: AgentState, inner_loop: InnerLoop
) -> tuple[InnerLoop, AgentState]:
    """An inner loop and an agent that replay the updates of the window; those that are missing are no-ops."""
    params, opt_state, trajectory = jax.tree.map(lambda x: x[0], window.updates)
    acted = jax.tree.map(lambda xs, x: jnp.concatenate([xs[1:], x[None]]), window.updates[-1], pending)
    num_updates = agent.num_updates + 1 - len(acted.reward)
    start = agent._replace(
        params=params, opt_state=(opt_state, window.num_missing), num_updates=num_updates, trajectory=trajectory
    )
    inner_loop, start = replay(inner_loop, start, Replay(acted))
    return inner_loop._replace(step=_masked_step(inner_loop.step)), start


def _masked_step(step: Callable) -> Callable:
    """Makes the first `num_missing` optimiser steps no-ops; the number is carried beside the optimiser state."""

    def skip(values, gradient, opt_state, params):
        opt_state, num_missing = opt_state
        moved = step(values, gradient, opt_state, params)
        params, opt_state = jax.tree.map(lambda x, y: jnp.where(num_missing > 0, x, y), (params, opt_state), moved)
        return params, (opt_state, num_missing - 1)

    return skip
