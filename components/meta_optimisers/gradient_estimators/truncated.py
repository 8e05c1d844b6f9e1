"""The meta-gradient through the last update only."""

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import PyTree

from components.component import component
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.gradient_estimators.base import Estimate, reverse_mode
from components.meta_optimisers.gradient_estimators.mixed_mode import MixedModeUpdate
from components.meta_optimisers.outer_loss import OuterLoss
from components.metrics import NamedLogs
from components.optimisers import check_differentiable
from components.types import FieldValues, LearningState, MetaParams, Params, Trajectory
from components.update_rule import UpdateRule


@component
class Truncated:
    """Through the last update before each outer loss only: what the agent has learned before it is constant.

    The estimate of Xu et al. (2018), biased for more than one inner step. It does not save the time of a whole one.
    """

    is_exact: ClassVar[bool] = False

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        return reverse_mode(outer_loss, meta_params, agent, inner_loop.over(TruncatedUpdate.of), state)


@dataclasses.dataclass(frozen=True)
class TruncatedUpdate(MixedModeUpdate):
    """The update with weights, and states of optimiser and objective, from before it held constant."""

    def _update(
        self, field_values: FieldValues, learning: LearningState, trajectory: Trajectory
    ) -> tuple[LearningState, NamedLogs]:
        return super()._update(field_values, jax.lax.stop_gradient(learning), trajectory)
