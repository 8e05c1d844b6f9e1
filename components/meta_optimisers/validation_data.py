"""Data of the outer loss: the trajectory that the outer objective is evaluated on, and its importance weights."""

import dataclasses
from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Float, Int

from components.acting.policies import log_rho
from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop
from components.types import Array, Outputs, Trajectory


class OuterData(Protocol):
    """Chooses the outer objective's trajectory and importance weights; a frozen dataclass."""

    def trajectory(
        self, training_trajectory: Trajectory, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Int[Array, '']]:
        """Chooses the trajectory.

        Args:
          training_trajectory: what the agent's latest update was trained on.
          agent: after that update, with the trajectory that it acted next.
          inner_loop: of the agent.

        Returns:
          The agent, its environments moved on if it acted once more; the trajectory; and how many environment steps
          were acted that training does not count.
        """
        ...

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Float[Array, 'T B']:
        """Importance weights of its steps in the outer loss; they are held fixed."""
        ...

    @property
    def draws_fresh_data(self) -> bool:
        """Whether it takes environment steps that are not trained on."""
        ...


@component
class NextTrajectory:
    """The one that the next update learns from: on-policy, at no cost in environment steps (Xu et al. 2018)."""

    draws_fresh_data: bool = dataclasses.field(default=False, init=False, repr=False)

    def trajectory(
        self, training_trajectory: Trajectory, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Array]:
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
    draws_fresh_data: bool = dataclasses.field(default=True, init=False, repr=False)

    def trajectory(
        self, training_trajectory: Trajectory, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Array]:
        agent, trajectory, episodes = inner_loop.source.on_policy(agent, self.unroll_length or inner_loop.unroll_length)
        return agent, trajectory, episodes.num_steps

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        return jnp.ones_like(trajectory.mask)


@component
class TrainingTrajectory:
    """The one that the update has just learned from, its steps weighed by pi_new(a|s) / pi_old(a|s).

    No more data, and none that is independent of the update. Give the outer objective an on-policy return: one that
    corrects for the policy by itself would do so twice.

    Source: Zheng et al. (2018).
    """

    draws_fresh_data: bool = dataclasses.field(default=False, init=False, repr=False)

    def trajectory(
        self, training_trajectory: Trajectory, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Array]:
        return agent, training_trajectory, jnp.int32(0)

    def weights(self, outputs: Outputs, trajectory: Trajectory, inner_loop: InnerLoop) -> Array:
        return jnp.exp(log_rho(inner_loop.policy(outputs, trajectory.first.shape), trajectory))
