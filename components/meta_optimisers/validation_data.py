"""Validation: the trajectory that an outer objective judges an agent's new weights on."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from components.acting.policies import log_rho
from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop
from components.types import Array, Outputs, Trajectory


class Validation(Protocol):
    """A frozen dataclass that finds a trajectory, and weighs it."""

    def trajectory(
        self, learned_from: Trajectory, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Array]:
        """Finds it.

        Args:
          learned_from: what the agent's latest update learned from.
          agent: after that update, with the trajectory that it acted next.
          inner_loop: of the agent.

        Returns:
          The agent, its environments moved on if it acted once more; the trajectory; and how many environment steps were
          acted that training does not count, int32.
        """
        ...

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        """Weights of its steps in the outer loss, `[T, B]`; they are held fixed."""
        ...

    @property
    def acts(self) -> bool:
        """Whether it acts environment steps of its own."""
        ...


@component
class NextTrajectory:
    """The one that the next update learns from: on-policy, at no cost in environment steps (Xu et al. 2018)."""

    acts: bool = dataclasses.field(default=False, init=False, repr=False)

    def trajectory(self, learned_from, agent: AgentState, inner_loop: InnerLoop):
        return agent, agent.trajectory, jnp.int32(0)

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        return jnp.ones_like(trajectory.mask)


@component
class FreshTrajectory:
    """One that is acted for this purpose and not learned from; its steps are counted apart.

    Args:
      unroll_length: its steps; None for those of a training trajectory.

    Raises:
      ValueError: if `unroll_length` < 1.
    """

    unroll_length: PositiveInt | None = None
    acts: bool = dataclasses.field(default=True, init=False, repr=False)

    def trajectory(self, learned_from, agent: AgentState, inner_loop: InnerLoop):
        key, act_key = jax.random.split(agent.key)
        actor_state, trajectory, episodes = inner_loop.validate(
            agent.params, agent.actor_state, act_key, self.unroll_length or inner_loop.unroll_length
        )
        return agent._replace(actor_state=actor_state, key=key), trajectory, episodes.num_steps

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        return jnp.ones_like(trajectory.mask)


@component
class TrainingTrajectory:
    """The one that the update has just learned from, its steps weighed by pi_new(a|s) / pi_old(a|s).

    No more data, and none that is independent of the update. Give the outer objective an on-policy return: one that
    corrects for the policy by itself would do so twice.

    Source: Zheng et al. (2018).
    """

    acts: bool = dataclasses.field(default=False, init=False, repr=False)

    def trajectory(self, learned_from, agent: AgentState, inner_loop: InnerLoop):
        return agent, learned_from, jnp.int32(0)

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        return jnp.exp(log_rho(inner_loop.policy(outputs, trajectory.first.shape), trajectory))
