"""Overlapping meta-updates: after every update of an agent, through the latest of them, which are replayed."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from components.inner_loop import AgentState, InnerLoop, PlainUpdate, Update
from components.meta_optimisers.gradient_estimators.base import Estimate, GradientEstimator
from components.meta_optimisers.outer_loss import OuterLoss
from components.metrics import NamedLogs
from components.replay import Replay, replayed
from components.types import Array, LearningState, MetaParams, Trajectory
from components.update_rule import UpdateRule


class PastUpdate(NamedTuple):
    """An update that an agent has taken: its learning state before it, and the trajectory that it learned from."""

    learning: LearningState
    trajectory: Trajectory


class Window(NamedTuple):
    """The latest `N` updates of an agent, oldest first.

    Attributes:
      updates: leaves `[N, ...]`.
      num_missing: how many of the first have not happened, int32 scalar.
    """

    updates: PastUpdate
    num_missing: Array


class OverlappingState(NamedTuple):
    """State of a lifetime: that of the outer loss, and the window of its latest updates."""

    loss_state: PyTree
    window: Window


@dataclasses.dataclass(frozen=True)
class MaskedUpdate:
    """An `Update` that leaves the learning state alone until an agent has taken `start` updates.

    Args:
      inner: the update from then on.
      start: int32 scalar.
    """

    inner: Update
    start: Array

    @property
    def rematerialise(self) -> bool:
        return self.inner.rematerialise

    def __call__(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, NamedLogs]:
        moved, logs = self.inner(meta_params, agent)
        is_missing = agent.num_updates < self.start
        learning = jax.tree.map(lambda x, y: jnp.where(is_missing, x, y), agent.learning, moved.learning)
        return moved._replace(learning=learning), logs

    def rule(self, meta_params: MetaParams, agent: AgentState) -> UpdateRule:
        return self.inner.rule(meta_params, agent)

    def over(self, form: Callable[[PlainUpdate], PlainUpdate]) -> 'MaskedUpdate':
        return dataclasses.replace(self, inner=self.inner.over(form))


def init(outer_loss: OuterLoss, agents: AgentState) -> OverlappingState:
    """States of lifetimes `[L, ...]` that have taken no updates."""

    def empty_window(agent: AgentState) -> Window:
        update = PastUpdate(agent.learning, agent.trajectory)
        size = outer_loss.num_updates
        return Window(jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), update), jnp.int32(size))

    return OverlappingState(outer_loss.init(agents), jax.vmap(empty_window)(agents))


def through_latest(estimator: GradientEstimator) -> Callable[..., Estimate]:
    """A gradient estimator that advances an agent by one update, and estimates through the latest, this one included.

    Args:
      estimator: of the meta-gradient through the replayed updates.
    """

    def estimate(
        outer_loss: OuterLoss,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: OverlappingState,
    ) -> Estimate:
        now, metrics = inner_loop.advance(meta_params, agent)
        window = _push(state.window, agent)
        start, replay_loop = _replay_window(window, now.trajectory, agent, inner_loop)
        found = estimator(outer_loss, meta_params, start, replay_loop, state.loss_state)
        logs = {
            **found.result.metrics.logs,
            **metrics.logs,
        }  # Of the update itself, what it reported when it was taken.
        result = found.result._replace(
            agent=now,
            metrics=metrics._replace(logs=logs),
            lifetime_state=OverlappingState(found.result.lifetime_state, window),
        )
        return found._replace(result=result)

    return estimate


def _push(window: Window, agent: AgentState) -> Window:
    """The window with the update that is about to be taken in place of the oldest."""
    update = PastUpdate(agent.learning, agent.trajectory)
    updates = jax.tree.map(lambda xs, x: jnp.concatenate([xs[1:], x[None]]), window.updates, update)
    return Window(updates, jnp.maximum(window.num_missing - 1, 0))


def _replay_window(
    window: Window, pending: Trajectory, agent: AgentState, inner_loop: InnerLoop
) -> tuple[AgentState, InnerLoop]:
    """The agent before the window's updates, and an inner loop that replays them; those that are missing are no-ops."""
    oldest = jax.tree.map(lambda x: x[0], window.updates)
    acted = jax.tree.map(lambda xs, x: jnp.concatenate([xs[1:], x[None]]), window.updates.trajectory, pending)
    num_updates = agent.num_updates + 1 - len(acted.reward)
    start = agent._replace(learning=oldest.learning, num_updates=num_updates, trajectory=oldest.trajectory)
    masked = dataclasses.replace(inner_loop, update=MaskedUpdate(inner_loop.update, num_updates + window.num_missing))
    return start, replayed(masked, start, Replay(acted))
