"""Meta-gradients: the derivative of an outer objective through inner updates."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from acme import specs

from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop, scan_updates
from components.meta_optimisers import outer_update
from components.meta_optimisers.base import LearnerState, check_meta_params
from components.meta_optimisers.gradient_estimators.base import Estimate, GradientEstimator, UnrollResult
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.overlapping import Window, empty_window, push, replay_window
from components.meta_optimisers.regularisers import Regulariser, check_regularisers
from components.meta_optimisers.step_weights import LastStep, StepWeights
from components.meta_optimisers.validation_data import NextTrajectory, OuterData
from components.metrics import mean_over_axis
from components.objectives.base import Objective, masked_mean
from components.optimisers import check_complete
from components.replay import Replay
from components.types import Array, MetaParams, Metrics, Params, Targets, Trajectory
from components.update_rule import UpdateRule


@component
class MetaGradient:
    """Descends outer losses after up to `K` inner updates, differentiated through all of them.

        for k in 1..K:
            params     <- update(params, trajectory, meta_params)
            trajectory <- act(params)
            loss_k      = outer_loss(params, validation)
        meta_params    <- optimiser(d sum_k w_k loss_k / d meta_params)

    Where only w_K is not 0, as by default, only loss_K is computed. Trajectories are constants: how meta-parameters
    change later data by changing the policy that draws it is left out, as in all of this literature. In the outer loss,
    too, targets are held fixed.

    Args:
      objective: the outer objective.
      optimiser: of the meta-parameters, learning rate included: `optax.adam(...)`, or a `chain`.
      num_inner_steps: `K`.
      step_weights: w_1 to w_K.
      outer_data: which trajectory the outer objective is evaluated on; by default the one that the next update learns
        from, so that a meta-gradient costs no environment steps.
      gradient_estimator: how the derivative is taken.
      regularisers: penalties of the meta-parameters beside the outer loss, by the name that they are logged under.
      overlapping: moves the meta-parameters after every update, along the meta-gradient through the latest `K` of them,
        replayed with the present meta-parameters from the start of the first of them, on the same
        trajectories. It costs `K` times the updates. Until there have been `K`, through as many as there are.

    Raises:
      ValueError: if `num_inner_steps` < 1, if `step_weights` has no weights for that `K`, or if overlapping updates are
        to be judged on trajectories of their own.

    Source: Xu et al. (2018), with several inner steps as in Xu et al. (2020). Mixtures of numbers of inner steps are
      this project's definition, after Bonnet et al. (2021), who do not give theirs; so is the overlapping schedule.
    """

    objective: Objective
    optimiser: optax.GradientTransformation
    num_inner_steps: PositiveInt = 1
    step_weights: StepWeights = LastStep()
    outer_data: OuterData = NextTrajectory()
    gradient_estimator: GradientEstimator = Mixed()
    overlapping: bool = False
    regularisers: Mapping[str, Regulariser] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.step_weights(self.num_inner_steps)
        if self.overlapping and self.outer_data.draws_fresh_data:
            raise ValueError(
                'MetaGradient.overlapping evaluates the outer loss on training trajectories: choose the outer_data '
                f'NextTrajectory or TrainingTrajectory, not {type(self.outer_data).__name__}'
            )

    @property
    def num_updates(self) -> int:
        return 1 if self.overlapping else self.num_inner_steps

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.objective.heads(spec)

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_meta_params(self, meta_params)
        self.gradient_estimator.check(update_rule, params, meta_params, num_lifetimes)
        check_complete(self.optimiser, meta_params, 'MetaGradient.optimiser')
        check_regularisers(self.regularisers, update_rule)

    def init(self, meta_params: MetaParams, agents: AgentState) -> outer_update.MetaOptState:
        window = jax.vmap(lambda agent: empty_window(agent, self.num_inner_steps))(agents) if self.overlapping else ()
        return outer_update.init(self.optimiser, meta_params, window)

    def reset_lifetimes(
        self, meta_opt_state: outer_update.MetaOptState, initial: outer_update.MetaOptState, is_reset: Array
    ):
        return outer_update.reset_lifetimes(meta_opt_state, initial, is_reset)

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        def estimate(agent: AgentState, window: Any) -> Estimate:
            if self.overlapping:
                return self._estimate_from(window, state.meta_params, agent, inner_loop)
            return self.gradient_estimator(self.outer_loss, state.meta_params, self.num_inner_steps, agent, inner_loop)

        return outer_update.outer_update(estimate, self.optimiser, state, inner_loop, self.regularisers)

    def outer_loss(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, UnrollResult]:
        """The weighted outer losses of one agent in the course of `K` updates; an `OuterLoss`."""
        losses, result = self.outer_losses(meta_params, agent, inner_loop, targets)
        weights = jnp.asarray(self.step_weights(self.num_inner_steps), losses.dtype)
        return weights[-losses.shape[0] :] @ losses, result

    def outer_losses(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, UnrollResult]:
        """The outer losses of one agent after each of `K` updates, `[K]`, or after the last, `[1]`, if no other counts.

        Args:
          meta_params: to learn with, one for each update, leaves `[K, ...]`.
          agent: before the first update.
          inner_loop: of the agent.
          targets: of the outer objective, to be held fixed, as returned; None for those at the agent's own weights.

        Gradients: with respect to `meta_params`, through every update.
        """
        weights = self.step_weights(self.num_inner_steps)
        every_step = bool(weights[:-1].any())

        def update(carry: tuple[AgentState, Trajectory], xs: tuple[MetaParams, Targets]):
            (before, _), (meta_params, targets) = carry, xs
            agent, metrics = inner_loop.advance(meta_params, before)
            acted, evaluated = agent.trajectory, None
            if every_step:
                agent, metrics, evaluated = self._evaluate(agent, before.trajectory, metrics, inner_loop, targets)
            return (agent, before.trajectory), (metrics, acted, evaluated)

        xs = meta_params, targets if every_step else None
        (agent, training_trajectory), (metrics, acted, evaluated) = scan_updates(
            inner_loop, update, (agent, agent.trajectory), xs, self.num_inner_steps
        )
        metrics = mean_over_axis(metrics)
        if not every_step:
            agent, metrics, evaluated = self._evaluate(agent, training_trajectory, metrics, inner_loop, targets)
            evaluated = jax.tree.map(lambda x: x[None], evaluated._replace(targets=None))._replace(
                targets=evaluated.targets
            )
        else:
            for k, weight in enumerate(weights):
                metrics.logs[f'step_weight/{k + 1}'] = jnp.asarray(weight, evaluated.loss.dtype)
                metrics.logs[f'outer_loss/step_{k + 1}'] = evaluated.loss[k]
        return evaluated.loss, UnrollResult(agent, metrics, evaluated.targets, Replay(acted, evaluated.acted))

    def _evaluate(
        self,
        agent: AgentState,
        training_trajectory: Trajectory,
        metrics: Metrics,
        inner_loop: InnerLoop,
        fixed: Targets,
    ) -> tuple[AgentState, Metrics, '_OuterLossResult']:
        """Outer loss of an agent at its present weights; adds its logs to the metrics."""
        agent, trajectory, num_steps = self.outer_data.trajectory(training_trajectory, agent, inner_loop)
        outputs = inner_loop.network.outputs(agent.params, trajectory)
        if fixed is None:
            now = jax.lax.stop_gradient(outputs)
            fixed = self.objective.targets(now, trajectory), self.outer_data.weights(now, trajectory, inner_loop)
        targets, weights = fixed
        losses, parts = self.objective.loss(outputs, targets, trajectory)
        loss = masked_mean(weights * losses, trajectory.mask)
        logs = {f'outer_loss/{name}': masked_mean(x, trajectory.mask) for name, x in parts.items()}
        metrics = metrics._replace(
            logs={**metrics.logs, 'outer_loss/total': loss, **logs},
            num_validation_steps=metrics.num_validation_steps + num_steps,
        )
        return agent, metrics, _OuterLossResult(loss, fixed, trajectory if self.outer_data.draws_fresh_data else None)

    def _estimate_from(
        self, window: 'Window', meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop
    ) -> Estimate:
        """Advances an agent by one update, and differentiates through the updates of the window, this one included."""
        now, metrics = inner_loop.advance(meta_params, agent)
        window = push(window, agent)
        again, start = replay_window(window, now.trajectory, agent, inner_loop)
        estimate = self.gradient_estimator(self.outer_loss, meta_params, self.num_inner_steps, start, again)
        result = estimate.result
        logs = {**result.metrics.logs, **metrics.logs}  # Of the update itself, what it reported when it was taken.
        return estimate._replace(
            result=result._replace(agent=now, metrics=metrics._replace(logs=logs), lifetime_state=window)
        )


class _OuterLossResult(NamedTuple):
    """An outer loss, the targets and weights held fixed in it, and the trajectory if it was drawn for it alone."""

    loss: Array
    targets: Targets
    acted: Trajectory | None
