"""The exact meta-gradient in reverse mode, and in forward mode."""

import dataclasses
import math

import jax
from jaxtyping import PyTree

from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.gradient_estimators.base import Estimate, repeat, reverse_mode
from components.meta_optimisers.outer_loss import OuterLoss, UnrollResult
from components.optimisers import check_differentiable
from components.types import Array, MetaParams, Params
from components.update_rule import UpdateRule


@component
class Reverse:
    """Exact; reverse mode throughout, which keeps what every update computes.

    Args:
      rematerialise: keeps of each update only the weights, the optimiser's state and the trajectory before it, and
        recomputes it in the reverse pass. It repeats no acting.
      num_segments: as for `Mixed`.
    """

    rematerialise: bool = False
    num_segments: PositiveInt = 1

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        inner_loop = inner_loop.over(lambda plain: dataclasses.replace(plain, rematerialise=self.rematerialise))
        inner_loop = dataclasses.replace(inner_loop, num_segments=self.num_segments)
        return reverse_mode(outer_loss, meta_params, agent, inner_loop, state)


MAX_FORWARD_SCALARS = 64
"""Each costs `Forward` one more pass."""


@component
class Forward:
    """Exact; one forward-mode pass for each scalar meta-parameter, all at once. Its memory does not grow with `K`."""

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)
        for path, value in meta_params.items():
            if not jax.tree_util.all_leaves([value]):
                raise ValueError(
                    f'Forward takes a pass for each number, but meta-parameter {path!r} is a whole network; use Mixed'
                )
        num_scalars = sum(math.prod(value.shape) for value in meta_params.values())
        if num_scalars > MAX_FORWARD_SCALARS:
            raise ValueError(
                f'Forward takes a pass for each number, at most {MAX_FORWARD_SCALARS}, but the meta-parameters are '
                f'{num_scalars} numbers; use Mixed'
            )

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        def loss(meta_params: MetaParams) -> tuple[Array, UnrollResult]:
            return outer_loss(repeat(meta_params, outer_loss.num_inner_steps), agent, inner_loop, state)

        gradient, result = jax.jacfwd(loss, has_aux=True)(meta_params)
        return Estimate(gradient, None, result)
