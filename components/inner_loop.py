"""The inner loop: one agent that learns from its pending trajectory, then acts the next one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from components.actors import Actor
from components.meta_parameters import MetaParameterSet
from components.networks.network import NetworkFunctions
from components.types import Array, EpisodeTotals, Logs, MetaParams, Metrics, OptState, Outputs, Params, Trajectory
from components.update_rule import UpdateRule


class AgentState(NamedTuple):
    """One agent in the course of its lifetime.

    Attributes:
      params: its weights (theta).
      opt_state: of its inner optimiser.
      actor_state: where its acting stands; only `act` looks into it.
      trajectory: the latest, acted with `params` and not learned from yet.
      key: of the acting to come.
    """

    params: Params
    opt_state: OptState
    actor_state: Any
    trajectory: Trajectory
    key: Array


class InnerLoop(NamedTuple):
    """What can be done with an agent; everything a meta-optimiser needs to know of it.

    repeat:
        params, opt_state, logs = update(meta_params, params, opt_state, trajectory)
        actor_state, trajectory, episodes = act(params, actor_state, key, unroll_length)

    Attributes:
      act: takes no gradient, and has side effects where environments live on the host: it is never repeated.
      update: differentiable in its first three arguments.
      outputs: `(params, trajectory) -> outputs`, of the network.
      unroll_length: `T` of the trajectories that are learned from.
    """

    act: Callable[[Params, Any, Array, int], tuple[Any, Trajectory, EpisodeTotals]]
    update: Callable[[MetaParams, Params, OptState, Trajectory], tuple[Params, OptState, Logs]]
    outputs: Callable[[Params, Trajectory], Outputs]
    unroll_length: int

    def advance(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, Metrics]:
        """Learns from the pending trajectory and acts the next one."""
        params, opt_state, logs = self.update(meta_params, agent.params, agent.opt_state, agent.trajectory)
        key, act_key = jax.random.split(agent.key)
        actor_state, trajectory, episodes = self.act(params, agent.actor_state, act_key, self.unroll_length)
        return AgentState(params, opt_state, actor_state, trajectory, key), Metrics(logs, episodes, jnp.int32(0))


def make_inner_loop(
    network: NetworkFunctions,
    actor: Actor,
    update_rule: UpdateRule,
    meta_parameters: MetaParameterSet,
    unroll_length: int,
) -> InnerLoop:
    """The inner loop of an agent composed of these parts."""

    def update(meta_params, params, opt_state, trajectory):
        bound: Any = meta_parameters.bind(update_rule, meta_params)
        return bound.update(network, params, opt_state, trajectory)

    return InnerLoop(actor.unroll, update, network.outputs, unroll_length)


def init_agent(
    key: Array, network: NetworkFunctions, actor: Actor, update_rule: UpdateRule, unroll_length: int
) -> AgentState:
    """A new agent with its first trajectory."""
    params_key, actor_key, act_key, key = jax.random.split(key, 4)
    params = network.init(params_key)
    actor_state, trajectory, _ = actor.unroll(params, actor.init(actor_key), act_key, unroll_length)
    return AgentState(params, update_rule.optimiser.init(params), actor_state, trajectory, key)
