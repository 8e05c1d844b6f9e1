"""Meta-gradients: the derivative of an outer objective through inner updates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from acme import specs

from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.base import (
    LearnerState,
    check_num_inner_steps,
    mean_over_axis,
    num_lifetimes,
    over_axis,
)
from components.meta_optimisers.step_weights import LastStep, StepWeights
from components.meta_parameters import MetaParameterSet
from components.objectives.base import Objective, masked_mean
from components.optimisers import check_differentiable
from components.types import Array, MetaParams, Metrics, Targets
from components.update_rule import UpdateRule


@dataclasses.dataclass(frozen=True)
class MetaGradient:
    """Descends outer losses after up to `K` inner updates, differentiated through all of them.

        for k in 1..K:
            params     <- update(params, trajectory, meta_params)
            trajectory <- act(params)
            validation <- trajectory, or act(params) if fresh
            loss_k      = outer_loss(params, validation)
        meta_params    <- optimiser(d sum_k w_k loss_k / d meta_params)

    Where only w_K is not 0, as by default, only loss_K is computed. A reused validation trajectory is the one that the next update learns from, so that a meta-gradient costs no
    environment steps. Trajectories are constants: how meta-parameters change later data by changing the policy that
    draws it is left out, as in all of this literature. In the outer loss, too, targets are held fixed.

    Args:
      objective: the outer objective.
      optimiser: of the meta-parameters, learning rate included: `optax.adam(...)`, or a `chain`.
      num_inner_steps: `K`.
      step_weights: w_1 to w_K.
      validation_unroll_length: length of a fresh validation trajectory, in steps, which is discarded afterwards and
        whose steps are counted apart: one for each outer loss. None reuses the next training trajectory.

    Raises:
      ValueError: if `num_inner_steps` or `validation_unroll_length` < 1, or `step_weights` has no weights for that `K`.

    Source: Xu et al. (2018), with several inner steps as in Xu et al. (2020). Mixtures of numbers of inner steps are this
      project's definition, after Bonnet et al. (2021), who do not give theirs.
    """

    objective: Objective
    optimiser: optax.GradientTransformation
    num_inner_steps: int = 1
    step_weights: StepWeights = LastStep()
    validation_unroll_length: int | None = None

    def __post_init__(self):
        check_num_inner_steps(self.num_inner_steps)
        self.step_weights(self.num_inner_steps)
        if self.validation_unroll_length is not None and self.validation_unroll_length < 1:
            raise ValueError(
                f'MetaGradient.validation_unroll_length must be at least 1, got {self.validation_unroll_length}'
            )

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.objective.heads(spec)

    def check(self, update_rule: UpdateRule, meta_parameters: MetaParameterSet) -> None:
        if not meta_parameters.parameters:
            raise ValueError('MetaGradient has no meta-parameters to train: MetaParameterSet.parameters is empty')
        check_differentiable(update_rule.optimiser)

    def init(self, meta_params: MetaParams) -> optax.OptState:
        return self.optimiser.init(meta_params)

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        def loss(meta_params):
            lifetime = over_axis(
                lambda agent: self.lifetime_loss(meta_params, agent, inner_loop)[:3], num_lifetimes(state.agents)
            )
            losses, agents, metrics = lifetime(state.agents)
            return losses.mean(), (agents, mean_over_axis(metrics))

        gradient, (agents, metrics) = jax.grad(loss, has_aux=True)(state.meta_params)
        updates, meta_opt_state = self.optimiser.update(gradient, state.meta_opt_state, state.meta_params)
        meta_params = optax.apply_updates(state.meta_params, updates)
        metrics.logs.update({f'meta_gradient/{path}': _value_or_norm(g) for path, g in gradient.items()})
        return LearnerState(agents, meta_params, meta_opt_state), metrics

    def lifetime_loss(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, AgentState, Metrics, Targets]:
        """The weighted outer losses of one agent in the course of `K` updates.

        Args:
          meta_params: to learn with.
          agent: before the first update.
          inner_loop: of the agent.
          targets: of the outer objective, to be held fixed, as returned; None for those at the agent's own weights.

        Returns:
          The loss, the agent after the updates, what it reports, and the outer targets: leaves `[K, T, B, ...]`, or
          `[T, B, ...]` where only the last step counts.

        Gradients: with respect to `meta_params`, through every update.
        """
        weights = self.step_weights(self.num_inner_steps)

        def update(agent: AgentState, _: None):
            return inner_loop.advance(meta_params, agent)

        def update_and_judge(agent: AgentState, targets: Targets):
            agent, metrics = inner_loop.advance(meta_params, agent)
            return self._judge(agent, metrics, inner_loop, targets)

        if not weights[:-1].any():
            agent, steps = _scan(update, agent, None, self.num_inner_steps)
            agent, (loss, metrics, targets) = self._judge(agent, mean_over_axis(steps), inner_loop, targets)
            return weights[-1] * loss, agent, metrics, targets
        agent, (losses, steps, targets) = _scan(update_and_judge, agent, targets, self.num_inner_steps)
        metrics = mean_over_axis(steps)
        for k, weight in enumerate(weights):
            metrics.logs[f'step_weight/{k + 1}'] = jnp.asarray(weight, losses.dtype)
            metrics.logs[f'outer_loss/step_{k + 1}'] = losses[k]
        return jnp.asarray(weights, losses.dtype) @ losses, agent, metrics, targets

    def _judge(self, agent: AgentState, metrics: Metrics, inner_loop: InnerLoop, targets: Targets):
        """The outer loss of an agent as it is, with what it adds to the metrics, and its targets."""
        validation = agent.trajectory
        if self.validation_unroll_length is not None:
            key, act_key = jax.random.split(agent.key)
            actor_state, validation, episodes = inner_loop.act(
                agent.params, agent.actor_state, act_key, self.validation_unroll_length
            )
            agent = agent._replace(actor_state=actor_state, key=key)
            metrics = metrics._replace(num_validation_steps=episodes.num_steps)
        outputs = inner_loop.outputs(agent.params, validation)
        if targets is None:
            targets = self.objective.targets(jax.lax.stop_gradient(outputs), validation)
        losses, parts = self.objective.loss(outputs, targets, validation)
        loss = masked_mean(losses, validation.mask)
        logs = {f'outer_loss/{name}': masked_mean(x, validation.mask) for name, x in parts.items()}
        metrics = metrics._replace(logs={**metrics.logs, 'outer_loss/total': loss, **logs})
        return agent, (loss, metrics, targets)


def _scan(step: Callable, agent: AgentState, xs: Any, length: int) -> tuple[AgentState, Any]:
    """`jax.lax.scan` over inner steps whose first step is outside of the loop.

    Nothing before the first step depends on the meta-parameters, so that its reverse pass, unlike a loop's that serves
    every step, needs no second derivatives in the weights.
    """
    agent, first = step(agent, jax.tree.map(lambda x: x[0], xs))
    if length == 1:
        return agent, jax.tree.map(lambda x: x[None], first)
    agent, others = jax.lax.scan(step, agent, jax.tree.map(lambda x: x[1:], xs), length - 1)
    return agent, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)


def _value_or_norm(gradient: Any) -> Array:
    """A scalar's gradient itself, or the norm of a structure's."""
    leaves = jax.tree.leaves(gradient)
    return leaves[0] if len(leaves) == 1 and leaves[0].ndim == 0 else optax.tree.norm(gradient)
