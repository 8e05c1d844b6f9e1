"""Replay: an inner loop that learns again from recorded trajectories instead of acting."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.types import EpisodeTotals, Trajectory


class Replay(NamedTuple):
    """Recorded trajectories of several updates of an agent, to be learned from again.

    Attributes:
      trajectories: after each of the `N` updates, leaves `[N, T, B, ...]`.
      validations: those that were not learned from, in their order, leaves `[M, T', B, ...]`; None for none.
    """

    trajectories: Trajectory
    validations: Trajectory | None = None


def replay(inner_loop: InnerLoop, agent: AgentState, recording: Replay) -> tuple[InnerLoop, AgentState]:
    """An inner loop and an agent that learn again from recorded trajectories, whatever they have learned.

    Args:
      inner_loop: whose acting is replaced.
      agent: as it was before the first of the recorded trajectories.
      recording: what is acted, in its order.
    """

    def replayed(index: int, trajectories: Trajectory | None):
        def act(params, counts, key, unroll_length):
            del params, key, unroll_length
            trajectory = jax.tree.map(lambda x: x[counts[index]], trajectories)
            no_episodes = EpisodeTotals(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.int32(0))
            return tuple(count + (i == index) for i, count in enumerate(counts)), trajectory, no_episodes

        return act

    act, unroll_on_policy = replayed(0, recording.trajectories), replayed(1, recording.validations)
    counts = jnp.int32(0), jnp.int32(0)
    return inner_loop._replace(act=act, unroll_on_policy=unroll_on_policy), agent._replace(actor_state=counts)
