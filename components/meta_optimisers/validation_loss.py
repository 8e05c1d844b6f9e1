"""The validation loss: an outer objective evaluated on outer data after `K` inner updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import Float, PyTree

from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop, scan_updates
from components.meta_optimisers.outer_loss import UnrollResult
from components.meta_optimisers.step_weights import LastStep, StepWeights
from components.meta_optimisers.validation_data import NextTrajectory, OuterData
from components.metrics import Group, Metrics, mean_over_axis, with_logs
from components.networks.network import with_bootstrap
from components.objectives.base import Objective, Unroll, loss_and_parts, masked_mean, targets_and_state
from components.replay import Replay
from components.types import Array, MetaParams, ObjectiveState, Params, Targets, Trajectory


@component
class ValidationLoss:
    """Outer losses after up to `K` inner updates, evaluated on outer data; an `OuterLoss`.

        for k in 1..K:
            params     <- update(params, trajectory, meta_params)
            trajectory <- act(params)
            loss_k      = objective(params, outer_data)
        loss            = sum_k w_k loss_k

    Where only w_K is not 0, as by default, only loss_K is computed. Trajectories are constants: how meta-parameters
    change later data by changing the policy that draws it is left out, as in all of this literature. Targets are held
    fixed, too. The state of a lifetime is that of the outer objective.

    Args:
      objective: the outer objective.
      num_inner_steps: `K`.
      step_weights: w_1 to w_K.
      outer_data: which trajectory the objective is evaluated on; by default the one that the next update learns from,
        so that a meta-gradient costs no environment steps.

    Raises:
      ValueError: if `num_inner_steps` < 1, or `step_weights` has no weights for that `K`.

    Source: Xu et al. (2018), with several inner steps as in Xu et al. (2020). Mixtures of numbers of inner steps are
      this project's definition, after Bonnet et al. (2021), who do not give theirs.
    """

    objective: Objective
    num_inner_steps: PositiveInt = 1
    step_weights: StepWeights = LastStep()
    outer_data: OuterData = NextTrajectory()

    def __post_init__(self) -> None:
        self.step_weights(self.num_inner_steps)

    @property
    def num_updates(self) -> int:
        return self.num_inner_steps

    @property
    def draws_fresh_data(self) -> bool:
        return self.outer_data.draws_fresh_data

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.objective.heads(spec)

    def check(self, params: Params) -> None:
        del params

    def init(self, agents: AgentState) -> ObjectiveState:
        return jax.vmap(self.objective.init)(agents.params)

    def __call__(
        self,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: ObjectiveState,
        targets: Targets = None,
    ) -> tuple[Array, UnrollResult]:
        losses, result = self.losses(meta_params, agent, inner_loop, state, targets)
        weights = jnp.asarray(self.step_weights(self.num_inner_steps), losses.dtype)
        return weights[-losses.shape[0] :] @ losses, result

    def losses(
        self,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: ObjectiveState,
        targets: Targets = None,
    ) -> tuple[Float[Array, '...'], UnrollResult]:
        """The outer losses of one agent after each of `K` updates, `[K]`, or after the last, `[1]`, if no other counts.

        Args:
          meta_params: to learn with, one for each update, leaves `[K, ...]`.
          agent: before the first update.
          inner_loop: of the agent.
          state: of the outer objective.
          targets: of the outer objective, to be held fixed, as returned; None for those at the agent's own weights.

        Gradients: with respect to `meta_params`, through every update.
        """
        weights = self.step_weights(self.num_inner_steps)
        every_step = bool(weights[:-1].any())

        def evaluate(
            agent: AgentState, learned: Trajectory, metrics: Metrics, state: ObjectiveState, targets: Targets
        ) -> tuple[AgentState, Metrics, ObjectiveState, _OuterLossResult]:
            return self._evaluate(agent, learned, metrics, inner_loop, state, targets)

        def update(
            carry: tuple[AgentState, Trajectory, ObjectiveState], xs: tuple[MetaParams, Targets]
        ) -> tuple[tuple[AgentState, Trajectory, ObjectiveState], PyTree]:
            (before, _, state), (meta_params, targets) = carry, xs
            agent, metrics = inner_loop.advance(meta_params, before)
            acted, evaluated = agent.trajectory, None
            if every_step:
                agent, metrics, state, evaluated = evaluate(agent, before.trajectory, metrics, state, targets)
            return (agent, before.trajectory, state), (metrics, acted, evaluated)

        xs = meta_params, targets if every_step else None
        (agent, learned, state), (metrics, acted, evaluated) = scan_updates(
            inner_loop, update, (agent, agent.trajectory, state), xs, self.num_inner_steps
        )
        metrics = mean_over_axis(metrics)
        if not every_step:
            agent, metrics, state, evaluated = evaluate(agent, learned, metrics, state, targets)
            evaluated = jax.tree.map(lambda x: x[None], evaluated._replace(targets=None))._replace(
                targets=evaluated.targets
            )
        else:
            dtype = evaluated.loss.dtype
            step_weights = {
                Group.STEP_WEIGHT(str(k + 1)): jnp.asarray(weight, dtype) for k, weight in enumerate(weights)
            }
            losses = {Group.OUTER_LOSS(f'step_{k + 1}'): evaluated.loss[k] for k in range(len(weights))}
            metrics = with_logs(metrics, {**step_weights, **losses})
        return evaluated.loss, UnrollResult(agent, metrics, evaluated.targets, Replay(acted, evaluated.acted), state)

    def _evaluate(
        self,
        agent: AgentState,
        training_trajectory: Trajectory,
        metrics: Metrics,
        inner_loop: InnerLoop,
        state: ObjectiveState,
        fixed: Targets,
    ) -> tuple[AgentState, Metrics, ObjectiveState, '_OuterLossResult']:
        """Outer loss of an agent at its present weights; adds its logs to the metrics."""
        agent, trajectory, num_steps = self.outer_data.trajectory(training_trajectory, agent, inner_loop)
        predictions, bootstrap = inner_loop.network.predictions(agent.params, trajectory)
        if fixed is None:
            outputs = with_bootstrap(predictions, bootstrap)
            now = Unroll(outputs, trajectory, agent.params, inner_loop.network).stopped()
            targets, state = targets_and_state(self.objective, now, state)
            fixed = targets, self.outer_data.weights(now.outputs, trajectory, inner_loop)
        targets, weights = fixed
        losses, parts = loss_and_parts(self.objective, predictions, targets, trajectory)
        loss = masked_mean(weights * losses, trajectory.mask)
        logs = {Group.OUTER_LOSS(name): masked_mean(x, trajectory.mask) for name, x in parts.items()}
        metrics = with_logs(metrics, {Group.OUTER_LOSS('total'): loss, **logs})
        metrics = metrics._replace(num_validation_steps=metrics.num_validation_steps + num_steps)
        acted = trajectory if self.outer_data.draws_fresh_data else None
        return agent, metrics, state, _OuterLossResult(loss, fixed, acted)


class _OuterLossResult(NamedTuple):
    """An outer loss, the targets and weights held fixed in it, and the trajectory if it was drawn for it alone."""

    loss: Array
    targets: Targets
    acted: Trajectory | None
