"""The interface of gradient estimators: the derivative of an outer loss through inner updates.

`Mixed`, `Reverse` and `Forward` are exact and agree; they differ in time and memory. `Truncated` looks through one
update only. `EvolutionStrategies` needs no derivative at all.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.replay import Replay
from components.types import Array, MetaParams, Metrics, Params, Targets
from components.update_rule import UpdateRule


class UnrollResult(NamedTuple):
    """Result of `K` inner updates of one agent, beside the outer loss.

    Attributes:
      agent: the final agent.
      metrics: of the updates.
      targets: of the outer loss, which are held fixed.
      recording: trajectories that the agent acted.
      lifetime_state: meta-optimiser state kept per lifetime.
    """

    agent: AgentState
    metrics: Metrics
    targets: Targets
    recording: Replay
    lifetime_state: Any = ()


class OuterLoss(Protocol):
    """The outer loss of one agent after `K` inner updates."""

    def __call__(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, UnrollResult]:
        """Takes the updates, and evaluates the outer loss.

        Args:
          meta_params: to learn with, one for each of the `K` updates, leaves `[K, ...]`.
          agent: before the first.
          inner_loop: of the agent.
          targets: of the outer loss, to be held fixed; None for those at the agent's own weights, which are returned.
        """
        ...


class Estimate(NamedTuple):
    """An estimate of a meta-gradient from one lifetime.

    Attributes:
      gradient: as the meta-parameters.
      per_update: contribution of each of the `K` inner updates, leaves `[K, ...]`; None where it is not known.
      result: of the updates.
    """

    gradient: MetaParams
    per_update: MetaParams | None
    result: UnrollResult


class GradientEstimator(Protocol):
    """A frozen dataclass that estimates the derivative of an `OuterLoss` with respect to meta-parameters."""

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        """Raises ValueError if it cannot be had for these."""
        ...

    def __call__(
        self,
        outer_loss: OuterLoss,
        meta_params: MetaParams,
        num_inner_steps: int,
        agent: AgentState,
        inner_loop: InnerLoop,
    ) -> Estimate:
        """Estimates it at `meta_params`, which every one of the `K` updates shares."""
        ...


def reverse_mode(outer_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
    """The derivative in reverse mode over the `K` updates, whatever the mode inside of each."""
    per_update, result = jax.grad(lambda m: outer_loss(m, agent, inner_loop), has_aux=True)(
        repeat(meta_params, num_inner_steps)
    )
    return Estimate(jax.tree.map(lambda x: x.sum(0), per_update), per_update, result)


def repeat(meta_params: MetaParams, num_inner_steps: int) -> MetaParams:
    """The same meta-parameters for each of `K` updates, leaves `[K, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_inner_steps, *x.shape)), meta_params)
