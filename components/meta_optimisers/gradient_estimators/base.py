"""The interface of gradient estimators: the derivative of an outer loss through inner updates.

`Mixed`, `Reverse` and `Forward` are exact and agree; they differ in time and memory. `Truncated` looks through one
update only. `EvolutionStrategies` needs no derivative at all.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.outer_loss import OuterLoss, UnrollResult
from components.types import CompositionError, MetaParams, Params
from components.update_rule import UpdateRule


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
    """A frozen dataclass that estimates the derivative of an `OuterLoss` with respect to meta-parameters.

    One that leaves something out on purpose has an attribute `is_exact`, which is False. One that divides the updates
    into segments, whose updates and acting it repeats, has an attribute `num_segments`.
    """

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        """Raises ValueError if it cannot estimate these meta-gradients."""
        ...

    def __call__(
        self,
        outer_loss: OuterLoss,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: PyTree,
    ) -> Estimate:
        """Estimates it.

        Args:
          outer_loss: to differentiate; it is called, and calls nothing back.
          meta_params: where; every one of the `K` updates shares them.
          agent: before the updates.
          inner_loop: of the agent.
          state: of the outer loss in this lifetime.
        """
        ...


def check_estimate(estimator: GradientEstimator, found: Estimate, meta_params: MetaParams) -> None:
    """Raises CompositionError if what an estimator returns is no estimate for these meta-parameters."""
    if not isinstance(found, Estimate):
        raise CompositionError(f'{type(estimator).__name__} returns a {type(found).__name__} instead of an Estimate')
    shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (found.gradient, meta_params))
    if shapes != expected:
        raise CompositionError(
            f'the gradient of {type(estimator).__name__} has shapes {shapes}, the meta-parameters {expected}'
        )


def reverse_mode(
    outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
) -> Estimate:
    """The derivative in reverse mode over the `K` updates, whatever the mode inside of each."""
    per_update, result = jax.grad(lambda m: outer_loss(m, agent, inner_loop, state), has_aux=True)(
        repeat(meta_params, outer_loss.num_inner_steps)
    )
    return Estimate(jax.tree.map(lambda x: x.sum(0), per_update), per_update, result)


def repeat(meta_params: MetaParams, num_inner_steps: int) -> MetaParams:
    """The same meta-parameters for each of `K` updates, leaves `[K, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_inner_steps, *x.shape)), meta_params)
