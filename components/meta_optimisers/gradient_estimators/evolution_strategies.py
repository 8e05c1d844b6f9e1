"""Evolution strategies: a meta-gradient estimated without derivatives."""

from typing import ClassVar

import jax
from jaxtyping import PyTree

from components.component import Positive, component
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.gradient_estimators.base import Estimate, repeat
from components.meta_optimisers.outer_loss import OuterLoss
from components.replay import replayed
from components.types import Array, MetaParams, Params
from components.update_rule import UpdateRule


@component
class EvolutionStrategies:
    """The gradient-free arm: how the same outer loss differs between meta-parameters moved one way and the other.

        direction ~ N(0, 1), one for each lifetime
        gradient  = direction (loss(eta + standard_deviation direction) - loss(eta - standard_deviation direction))
                    / (2 standard_deviation)

    Acting happens once, at eta; the moved lifetimes learn from the same trajectories, and the outer targets are those
    at eta. So what is estimated is the meta-gradient of the other modes, but for the smoothing, whatever the inner
    optimiser; the effect of eta on data is left out here as there. A lifetime knows one direction, hence several
    lifetimes.

    Args:
      standard_deviation: of the unconstrained meta-parameters' perturbations.

    Raises:
      ValueError: if it is not positive.

    Source: Salimans et al. (2017), antithetic sampling, section 2; with data held fixed, this project.
    """

    standard_deviation: Positive = 0.1
    is_exact: ClassVar[bool] = False

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        if num_lifetimes < 2:
            raise ValueError(
                'EvolutionStrategies draws one direction for each lifetime, so that one lifetime says nothing of the '
                'others: set num_lifetimes (NUM_LIFETIMES) to at least 2'
            )

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        num_inner_steps = outer_loss.num_inner_steps
        _, result = outer_loss(repeat(meta_params, num_inner_steps), agent, inner_loop, state)
        replay_loop = replayed(inner_loop, agent, result.replay)
        key, direction_key = jax.random.split(result.agent.key)
        direction = normal_like(direction_key, meta_params)

        def loss(sign: int) -> Array:
            moved = jax.tree.map(lambda x, d: x + sign * self.standard_deviation * d, meta_params, direction)
            return outer_loss(repeat(moved, num_inner_steps), agent, replay_loop, state, result.targets)[0]

        slope = (loss(1) - loss(-1)) / (2 * self.standard_deviation)
        gradient = jax.tree.map(lambda d: slope * d, direction)
        return Estimate(gradient, None, result._replace(agent=result.agent._replace(key=key)))


def normal_like(key: Array, tree: PyTree) -> PyTree:
    """Standard normal numbers in the structure of a tree of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)
