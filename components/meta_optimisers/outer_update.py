"""The outer update: applies the mean meta-gradient over lifetimes and logs its statistics."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from components.axes import by_environment, in_groups, num_parts, over_axis, tree_where
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.base import LearnerState, num_lifetimes
from components.meta_optimisers.gradient_estimators.base import Estimate
from components.meta_optimisers.outer_loss import UnrollResult
from components.meta_optimisers.regularisers import Regulariser
from components.metrics import Group, Metrics, NamedLogs, mean_over_axis, with_logs
from components.objectives.base import Unroll, masked_mean
from components.optimisers import CompleteOptimiser
from components.types import Array, MetaParams, Params, Trajectory

T = TypeVar('T')


class MetaOptState(NamedTuple):
    """State of a meta-optimiser.

    Attributes:
      optimiser: of the meta-parameters' optimiser.
      gradient: the previous meta-gradient, zeros before the first.
      lifetime_state: per-lifetime state of the outer loss, leaves `[L, ...]`.
    """

    optimiser: optax.OptState
    gradient: MetaParams
    lifetime_state: PyTree


def init(optimiser: CompleteOptimiser, meta_params: MetaParams, lifetime_state: PyTree = ()) -> MetaOptState:
    """State before the first step."""
    return MetaOptState(optimiser.init(meta_params), jax.tree.map(jnp.zeros_like, meta_params), lifetime_state)


def reset_lifetimes(meta_opt_state: MetaOptState, initial: MetaOptState, is_reset: Array) -> MetaOptState:
    """A `MetaOptimiser`'s `reset_lifetimes`."""
    return meta_opt_state._replace(
        lifetime_state=tree_where(is_reset, initial.lifetime_state, meta_opt_state.lifetime_state)
    )


def outer_update(
    estimate: Callable[[AgentState, PyTree], Estimate],
    optimiser: CompleteOptimiser,
    state: LearnerState,
    inner_loop: InnerLoop,
    regularisers: Mapping[str, Regulariser],
    lifetimes_at_once: int | None = None,
) -> tuple[LearnerState, Metrics]:
    """Advances every lifetime, and applies the mean of their meta-gradients to the meta-parameters.

    Args:
      estimate: from an agent and its per-lifetime state to its meta-gradient.
      optimiser: of the meta-parameters.
      state: with a `MetaOptState`.
      inner_loop: of the agents.
      regularisers: penalties of the meta-parameters, by name.
      lifetimes_at_once: that are computed side by side; None for all.
    """
    meta_opt_state: MetaOptState = state.meta_opt_state

    def advance(agent: AgentState, lifetime_state: PyTree) -> Estimate:
        found = estimate(agent, lifetime_state)
        params = found.result.agent.params
        logs = inner_loop.diagnostics(
            lambda: {Group.INNER_LOOP('policy_kl'): policy_kl(inner_loop, params, agent.trajectory)}
        )
        if regularisers:
            slope, penalties = _slope_of(regularisers, state.meta_params, found.result, inner_loop)
            found, logs = found._replace(gradient=jax.tree.map(jnp.add, found.gradient, slope)), {**logs, **penalties}
        return found._replace(result=found.result._replace(metrics=with_logs(found.result.metrics, logs)))

    num_agents = num_lifetimes(state.agents)
    at_once = lifetimes_at_once or num_agents
    advance_all = in_groups(over_axis(advance, at_once), num_agents // at_once)
    found = advance_all(state.agents, meta_opt_state.lifetime_state)
    gradient = jax.tree.map(lambda x: x.mean(0), found.gradient)
    updates, opt_state = optimiser.update(gradient, meta_opt_state.optimiser, state.meta_params)
    meta_params = optax.apply_updates(state.meta_params, updates)
    logs: NamedLogs = {}
    for path in state.meta_params:
        logs |= _describe(path, found.gradient[path], gradient[path], meta_opt_state.gradient[path])
        if found.per_update is not None:
            logs |= _describe_updates(path, jax.tree.map(lambda x: x.mean(0), found.per_update[path]))
    metrics = with_logs(mean_over_axis(found.result.metrics), logs)
    meta_opt_state = MetaOptState(opt_state, gradient, found.result.lifetime_state)
    return state._replace(agents=found.result.agent, meta_params=meta_params, meta_opt_state=meta_opt_state), metrics


def _slope_of(
    regularisers: Mapping[str, Regulariser], meta_params: MetaParams, result: UnrollResult, inner_loop: InnerLoop
) -> tuple[MetaParams, NamedLogs]:
    """Derivative of the penalties with respect to meta-parameters, with the agent held as it is, and what they are."""
    acted = result.replay.validations
    trajectory = result.agent.trajectory if acted is None else jax.tree.map(lambda x: x[-1], acted)
    agent, network = result.agent, inner_loop.network
    unroll = Unroll(network.outputs(agent.params, trajectory), trajectory, agent.params, network)

    def penalty(meta_params: MetaParams) -> tuple[Array, NamedLogs]:
        rule = inner_loop.update.rule(meta_params, agent)
        penalties = {
            name: regulariser(rule, unroll, agent.learning.objective_state)
            for name, regulariser in regularisers.items()
        }
        logs = {Group.OUTER_LOSS(name): masked_mean(x, trajectory.mask) for name, x in penalties.items()}
        return jnp.sum(jnp.stack(list(logs.values()))), logs

    slope, logs = jax.grad(penalty, has_aux=True)(meta_params)
    slopes = {Group.META_GRADIENT_OF_REGULARISERS(path): _value_or_norm(x) for path, x in slope.items()}
    return slope, {**logs, **slopes}


MAX_KL_ENVS = 32
"""Environments that a policy's change is measured in: enough for a log, and of no weight in the time of a step."""


def policy_kl(inner_loop: InnerLoop, params: Params, trajectory: Trajectory) -> Array:
    """KL divergence, in nats, from the policy that acted a trajectory to the one with other weights, on its states.

    Args:
      inner_loop: of the agent.
      params: the other weights.
      trajectory: of `T` steps; of its `B` environments the first `MAX_KL_ENVS` count, or the first of each device's.
    """
    core_state = _first_environments(trajectory.core_state, 0)
    trajectory = _first_environments(trajectory._replace(core_state=()), 1)._replace(core_state=core_state)
    predictions, _ = inner_loop.network.predictions(params, trajectory)
    divergence = trajectory.behaviour_policy.kl_divergence(inner_loop.policy(predictions, trajectory.reward.shape))
    return jax.lax.stop_gradient(masked_mean(divergence, trajectory.mask))


def _first_environments(tree: T, axis: int) -> T:
    """The first environments on each device, of leaves whose axis they are."""
    size = -(-MAX_KL_ENVS // num_parts())
    return by_environment(
        lambda tree: jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 0, min(size, x.shape[axis]), axis=axis), tree),
        (axis,),
        axis,
    )(tree)


def _describe(path: str, gradients: PyTree, gradient: PyTree, previous: PyTree) -> NamedLogs:
    """Value or norm of a meta-parameter's gradient, and how far it can be relied on; `gradients` are `[L, ...]`."""
    norm = optax.tree.norm(gradient)
    similarity = optax.tree.vdot(gradient, previous) / jnp.maximum(norm * optax.tree.norm(previous), _tiny(norm))
    logs = {Group.META_GRADIENT(path): _value_or_norm(gradient), Group.META_GRADIENT_COSINE(path): similarity}
    if jax.tree.leaves(gradients)[0].shape[0] > 1:
        variance = sum(x.var(0, ddof=1).sum() for x in jax.tree.leaves(gradients))
        logs[Group.SIGNAL_TO_NOISE(path)] = norm / jnp.sqrt(jnp.maximum(variance, _tiny(norm)))
    return logs


def _describe_updates(path: str, per_update: PyTree) -> NamedLogs:
    """What of a meta-parameter's gradient came through each of several updates, leaves `[K, ...]`."""
    num_updates = jax.tree.leaves(per_update)[0].shape[0]
    if num_updates == 1:
        return {}
    parts = jax.vmap(_value_or_norm)(per_update)
    return {Group.META_GRADIENT_BY_UPDATE(f'{path}/{k + 1}'): parts[k] for k in range(num_updates)}


def _value_or_norm(gradient: PyTree) -> Array:
    """A scalar's gradient itself, or the norm of a structure's."""
    leaves = jax.tree.leaves(gradient)
    return leaves[0] if len(leaves) == 1 and leaves[0].ndim == 0 else optax.tree.norm(gradient)


def _tiny(x: Array) -> Array:
    return jnp.asarray(jnp.finfo(x.dtype).tiny)
