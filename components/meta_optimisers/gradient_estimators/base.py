"""How the derivative of an outer loss through inner updates is taken: the same estimate at another price, or a coarser one.

`Mixed`, `Reverse` and `Forward` are exact and agree; they differ in time and memory. `Truncated` looks through one update
only. `EvolutionStrategies` needs no derivative at all.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.replay import Recording
from components.types import Array, MetaParams, Metrics, Params, Targets
from components.update_rule import UpdateRule


class Lifetime(NamedTuple):
    """What came of a few updates of one agent, beside the outer loss.

    Attributes:
      agent: after them.
      metrics: of them.
      targets: of the outer loss, which are held fixed.
      recording: what was acted.
      memory: whatever else its meta-optimiser keeps of it.
    """

    agent: AgentState
    metrics: Metrics
    targets: Targets
    recording: Recording
    memory: Any = ()


class LifetimeLoss(Protocol):
    """The outer loss of one agent in the course of a few updates."""

    def __call__(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, Lifetime]:
        """Takes the updates, and judges them.

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
      by_update: what of it came through each of the `K` updates, leaves `[K, ...]`; None where that is not known.
      lifetime: what came of the updates.
    """

    gradient: MetaParams
    by_update: MetaParams | None
    lifetime: Lifetime


class Differentiation(Protocol):
    """A frozen dataclass that estimates the derivative of a `LifetimeLoss` with respect to meta-parameters."""

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        """Raises ValueError if it cannot be had for these."""
        ...

    def __call__(
        self,
        lifetime_loss: LifetimeLoss,
        meta_params: MetaParams,
        num_inner_steps: int,
        agent: AgentState,
        inner_loop: InnerLoop,
    ) -> Estimate:
        """Estimates it at `meta_params`, which every one of the `K` updates shares."""
        ...


def reverse_mode(lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
    """The derivative in reverse mode over the `K` updates, whatever the mode inside of each."""
    by_update, lifetime = jax.grad(lambda m: lifetime_loss(m, agent, inner_loop), has_aux=True)(
        repeat(meta_params, num_inner_steps)
    )
    return Estimate(jax.tree.map(lambda x: x.sum(0), by_update), by_update, lifetime)


def repeat(meta_params: MetaParams, num_inner_steps: int) -> MetaParams:
    """The same meta-parameters for each of `K` updates, leaves `[K, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_inner_steps, *x.shape)), meta_params)
