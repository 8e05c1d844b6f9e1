"""Replay: recorded trajectories as a source, so that an agent learns again from what it once acted."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.types import Array, EpisodeTotals, Trajectory


class Replay(NamedTuple):
    """Recorded trajectories of several updates of an agent, to be learned from again.

    Attributes:
      trajectories: after each of the `N` updates, leaves `[N, T, B, ...]`.
      validations: those that were not trained on, of the last `M` updates, leaves `[M, T', B, ...]`; None for none.
    """

    trajectories: Trajectory
    validations: Trajectory | None = None


@dataclasses.dataclass(frozen=True)
class ReplaySource:
    """A `TrajectorySource` of recorded trajectories, whatever the agent has learned.

    Args:
      replay: the trajectories.
      start: updates that the agent had taken before the first of them, int32 scalar.
    """

    replay: Replay
    start: Array

    def next(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, EpisodeTotals]:
        del unroll_length
        trajectory = jax.tree.map(lambda x: x[self._index(agent)], self.replay.trajectories)
        return agent._replace(trajectory=trajectory), _no_episodes()

    def on_policy(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, Trajectory, EpisodeTotals]:
        del unroll_length
        trajectories, validations = self.replay
        assert validations is not None, 'none were recorded'
        index = self._index(agent) - (len(trajectories.reward) - len(validations.reward))
        return agent, jax.tree.map(lambda x: x[index], validations), _no_episodes()

    def _index(self, agent: AgentState) -> Array:
        """Which of the recorded updates the agent has just taken."""
        return agent.num_updates - self.start - 1


def replayed(inner_loop: InnerLoop, agent: AgentState, replay: Replay) -> InnerLoop:
    """An inner loop in which an agent learns again from recorded trajectories.

    Args:
      inner_loop: whose source is replaced.
      agent: before the first of the recorded updates.
      replay: their trajectories.
    """
    return dataclasses.replace(inner_loop, source=ReplaySource(replay, agent.num_updates))


def _no_episodes() -> EpisodeTotals:
    return EpisodeTotals(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.int32(0), jnp.zeros(()))
