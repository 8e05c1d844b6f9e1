"""Meta-gradients: the derivative of an outer objective through inner updates."""

import dataclasses
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
from components.meta_parameters import MetaParameterSet
from components.objectives.base import Objective, masked_mean
from components.optimisers import check_differentiable
from components.types import Array, Logs, MetaParams, Metrics, Params, Targets, Trajectory
from components.update_rule import UpdateRule


@dataclasses.dataclass(frozen=True)
class MetaGradient:
    """Descends the outer loss after `K` inner updates, differentiated through all of them.

        for k in range(K):
            params     <- update(params, trajectory, meta_params)
            trajectory <- act(params)
        validation     <- trajectory, or act(params) if fresh
        meta_params    <- optimiser(d outer_loss(params, validation) / d meta_params)

    A reused validation trajectory is the one that the next update learns from, so that a meta-gradient costs no
    environment steps. Trajectories are constants: how meta-parameters change later data by changing the policy that
    draws it is left out, as in all of this literature. In the outer loss, too, targets are held fixed.

    Args:
      objective: the outer objective.
      optimiser: of the meta-parameters, learning rate included: `optax.adam(...)`, or a `chain`.
      num_inner_steps: `K`.
      validation_unroll_length: length of a fresh validation trajectory, in steps, which is discarded afterwards and
        whose steps are counted apart. None reuses the next training trajectory.

    Raises:
      ValueError: if `num_inner_steps` or `validation_unroll_length` < 1.

    Source: Xu et al. (2018), with several inner steps as in Xu et al. (2020).
    """

    objective: Objective
    optimiser: optax.GradientTransformation
    num_inner_steps: int = 1
    validation_unroll_length: int | None = None

    def __post_init__(self):
        check_num_inner_steps(self.num_inner_steps)
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
                lambda agent: self.lifetime_loss(meta_params, agent, inner_loop), num_lifetimes(state.agents)
            )
            losses, (agents, metrics) = lifetime(state.agents)
            return losses.mean(), (agents, mean_over_axis(metrics))

        gradient, (agents, metrics) = jax.grad(loss, has_aux=True)(state.meta_params)
        updates, meta_opt_state = self.optimiser.update(gradient, state.meta_opt_state, state.meta_params)
        meta_params = optax.apply_updates(state.meta_params, updates)
        metrics.logs.update({f'meta_gradient/{path}': _value_or_norm(g) for path, g in gradient.items()})
        return LearnerState(agents, meta_params, meta_opt_state), metrics

    def lifetime_loss(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[Array, tuple[AgentState, Metrics]]:
        """The outer loss of one agent after `K` updates, with the agent that it is then and what it reports.

        Gradients: with respect to `meta_params`, through every update.
        """
        agent, validation, metrics = self.unroll(meta_params, agent, inner_loop)
        loss, logs = self.outer_loss(agent.params, validation, inner_loop)
        metrics.logs.update(logs)
        return loss, (agent, metrics)

    def unroll(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Trajectory, Metrics]:
        """The agent after `K` updates, its validation trajectory, and what the updates report."""
        agent, metrics = self._inner_steps(meta_params, agent, inner_loop)
        if self.validation_unroll_length is None:
            return agent, agent.trajectory, metrics
        key, act_key = jax.random.split(agent.key)
        actor_state, validation, episodes = inner_loop.act(
            agent.params, agent.actor_state, act_key, self.validation_unroll_length
        )
        agent = agent._replace(actor_state=actor_state, key=key)
        return agent, validation, metrics._replace(num_validation_steps=episodes.num_steps)

    def outer_loss(
        self, params: Params, validation: Trajectory, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, Logs]:
        """Masked mean of the outer objective on a validation trajectory, and its parts by name (`outer_loss/...`).

        Args:
          params: of the network.
          validation: the trajectory.
          inner_loop: of the agent.
          targets: of the outer objective, held fixed; None for those at `params`.
        """
        outputs = inner_loop.outputs(params, validation)
        if targets is None:
            targets = self.objective.targets(jax.lax.stop_gradient(outputs), validation)
        loss, logs = self.objective.loss(outputs, targets, validation)
        loss = masked_mean(loss, validation.mask)
        parts = {f'outer_loss/{name}': masked_mean(x, validation.mask) for name, x in logs.items()}
        return loss, {'outer_loss/total': loss, **parts}

    def _inner_steps(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop
    ) -> tuple[AgentState, Metrics]:
        """`K` updates, and what they report together.

        The first is not in the loop: nothing before it depends on `meta_params`, so that its reverse pass, unlike a
        loop's that serves every step, needs no second derivatives in the weights.
        """
        agent, first = inner_loop.advance(meta_params, agent)
        if self.num_inner_steps == 1:
            return agent, first
        agent, others = jax.lax.scan(
            lambda agent, _: inner_loop.advance(meta_params, agent), agent, length=self.num_inner_steps - 1
        )
        steps = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)
        return agent, mean_over_axis(steps)


def _value_or_norm(gradient: Any) -> Array:
    """A scalar's gradient itself, or the norm of a structure's."""
    leaves = jax.tree.leaves(gradient)
    return leaves[0] if len(leaves) == 1 and leaves[0].ndim == 0 else optax.tree.norm(gradient)
