"""The meta-gradient: moves meta-parameters along the derivative of an outer loss through inner updates."""

import dataclasses
from collections.abc import Mapping

from acme import specs
from jaxtyping import PyTree

from components.component import PositiveInt, check_divides, component
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers import outer_update, overlapping
from components.meta_optimisers.base import LearnerState, check_meta_params
from components.meta_optimisers.gradient_estimators.base import Estimate, GradientEstimator, check_estimate
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.outer_loss import OuterLoss
from components.meta_optimisers.regularisers import Regulariser, check_regularisers
from components.metrics import Metrics
from components.optimisers import CompleteOptimiser, check_complete
from components.types import Array, MetaParams, Params
from components.update_rule import UpdateRule


@component
class MetaGradient:
    """Descends an outer loss with respect to the meta-parameters, through the inner updates that it runs.

        meta_params <- optimiser(mean over lifetimes of d outer_loss / d meta_params)

    Args:
      outer_loss: what agents are evaluated by, after how many updates.
      optimiser: of the meta-parameters, learning rate included: an `Optimiser`, `optax.adam(...)`, or a `chain`.
      gradient_estimator: how the derivative is computed.
      regularisers: penalties of the meta-parameters beside the outer loss, by the name that they are logged under.
      overlapping: moves the meta-parameters after every update, along the meta-gradient through the latest updates that
        the outer loss takes, replayed with the present meta-parameters from the start of the first of them, on the same
        trajectories. It costs as many times the updates. Until there have been as many, through those that there are.
      lifetimes_at_once: how many lifetimes are computed side by side, the next ones after them, so that a reverse pass
        needs the memory of so many. It divides `L`; None for all.

    Raises:
      ValueError: if overlapping updates are to be evaluated on fresh trajectories, or the estimator's segments do not
        divide the updates.

    Source: Xu et al. (2018); the overlapping schedule is this project's definition.
    """

    outer_loss: OuterLoss
    optimiser: CompleteOptimiser
    gradient_estimator: GradientEstimator = Mixed()
    regularisers: Mapping[str, Regulariser] = dataclasses.field(default_factory=dict)
    overlapping: bool = False
    lifetimes_at_once: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.overlapping and self.outer_loss.draws_fresh_data:
            raise ValueError(
                'MetaGradient.overlapping evaluates the outer loss on training trajectories: choose the outer_data '
                'NextTrajectory or TrainingTrajectory'
            )

        num_inner_steps, num_segments = self.outer_loss.num_inner_steps, self._num_segments
        check_divides(
            num_segments, num_inner_steps, f'{type(self.gradient_estimator).__name__}.num_segments', 'inner steps'
        )

    @property
    def _num_segments(self) -> int:
        return getattr(self.gradient_estimator, 'num_segments', 1)

    @property
    def repeats_acting(self) -> bool:
        return self._num_segments > 1 and not self.overlapping

    @property
    def num_updates(self) -> int:
        return 1 if self.overlapping else self.outer_loss.num_updates

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.outer_loss.heads(spec)

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_meta_params(self, meta_params)
        check_divides(self.lifetimes_at_once or 1, num_lifetimes, 'MetaGradient.lifetimes_at_once', 'lifetimes')
        self.gradient_estimator.check(update_rule, params, meta_params, num_lifetimes)
        check_complete(self.optimiser, meta_params, 'MetaGradient.optimiser')
        self.outer_loss.check(params)
        check_regularisers(self.regularisers, update_rule)

    def init(self, meta_params: MetaParams, agents: AgentState) -> outer_update.MetaOptState:
        state = overlapping.init(self.outer_loss, agents) if self.overlapping else self.outer_loss.init(agents)
        return outer_update.init(self.optimiser, meta_params, state)

    def reset_lifetimes(
        self, meta_opt_state: outer_update.MetaOptState, initial: outer_update.MetaOptState, is_reset: Array
    ) -> outer_update.MetaOptState:
        return outer_update.reset_lifetimes(meta_opt_state, initial, is_reset)

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        estimator = overlapping.through_latest(self.gradient_estimator) if self.overlapping else self.gradient_estimator

        def estimate(agent: AgentState, lifetime_state: PyTree) -> Estimate:
            found = estimator(self.outer_loss, state.meta_params, agent, inner_loop, lifetime_state)
            check_estimate(self.gradient_estimator, found, state.meta_params)
            return found

        return outer_update.outer_update(
            estimate, self.optimiser, state, inner_loop, self.regularisers, self.lifetimes_at_once
        )
