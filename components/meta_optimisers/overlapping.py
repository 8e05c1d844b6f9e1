"""The latest `K` updates of an agent, and taking them again, for meta-updates after every inner update."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.replay import Recording, replay
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


def relive(
    window: Window, pending: Trajectory, agent: AgentState, inner_loop: InnerLoop
) -> tuple[InnerLoop, AgentState]:
    """An inner loop and an agent that take the updates of the window once more, and leave out those that are missing."""
    params, opt_state, trajectory = jax.tree.map(lambda x: x[0], window.updates)
    acted = jax.tree.map(lambda xs, x: jnp.concatenate([xs[1:], x[None]]), window.updates[-1], pending)
    age = agent.age + 1 - len(acted.reward)
    start = agent._replace(params=params, opt_state=(opt_state, window.num_missing), age=age, trajectory=trajectory)
    inner_loop, start = replay(inner_loop, start, Recording(acted))
    return inner_loop._replace(step=_skipping(inner_loop.step)), start


def _skipping(step: Callable) -> Callable:
    """An optimiser's step that is not taken as many times as a number beside the optimiser's state says."""

    def skip(values, gradient, opt_state, params):
        opt_state, num_missing = opt_state
        moved = step(values, gradient, opt_state, params)
        params, opt_state = jax.tree.map(lambda x, y: jnp.where(num_missing > 0, x, y), (params, opt_state), moved)
        return params, (opt_state, num_missing - 1)

    return skip
