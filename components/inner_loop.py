"""The inner loop: one agent that learns from its pending trajectory, then acts the next one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from components.acting.actor import Actor
from components.acting.behaviours import Behaviour
from components.acting.policies import Policy
from components.component_tree import replace_all
from components.environments.base import BatchedEnvironment
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.meta_parameters.schedules import schedules_of
from components.networks.network import NetworkFunctions
from components.types import Array, EpisodeTotals, FieldValues, Logs, MetaParams, Metrics, OptState, Params, Trajectory
from components.update_rule import UpdateRule


class AgentState(NamedTuple):
    """State of one agent during its lifetime.

    Attributes:
      params: its weights (theta).
      opt_state: of its inner optimiser.
      num_updates: updates taken in this lifetime, int32 scalar. Where lifetimes end, those of the first agents start at
        an offset, so that their ends are spread evenly.
      behaviour: the weights that are acted with later, if not those; empty on-policy.
      actor_state: where its acting stands; only `act` looks into it.
      trajectory: the latest, not learned from yet; acted with `params` unless the behaviour is off-policy.
      key: of the acting to come.
    """

    params: Params
    opt_state: OptState
    num_updates: Array
    behaviour: Any
    actor_state: Any
    trajectory: Trajectory
    key: Array


class InnerLoop(NamedTuple):
    """What can be done with an agent; everything a meta-optimiser needs to know of it.

    repeat:
        bound = field_values(meta_params, num_updates)
        direction, logs = gradient(bound, params, trajectory)
        params, opt_state = step(bound, direction, opt_state, params)
        behaviour, acting_params = update_behaviour(behaviour, params)
        actor_state, trajectory, episodes = act(acting_params, actor_state, key, unroll_length)

    Attributes:
      init: a new agent with its first trajectory.
      act: takes no gradient, and has side effects where environments live on the host: it is never repeated.
      unroll_on_policy: the same with the agent's own policy, for trajectories that are not learned from.
      update_behaviour: which weights are acted with after an update.
      field_values: of the update rule's fields that are learned or scheduled, by path, from meta-parameters and an
        agent's number of updates.
      bind: from these to the update rule with them in it.
      gradient: that rule's, from such values; differentiable in its first two arguments.
      step: that of the rule's optimiser; differentiable in all arguments.
      network: the agent's.
      policy: what the agent learns to act with.
      unroll_length: `T` of the trajectories that are learned from.
      rematerialise: whether the reverse pass through an update recomputes it from its inputs
        (rematerialisation).
    """

    init: Callable[[Array], AgentState]
    act: Callable[[Params, Any, Array, int], tuple[Any, Trajectory, EpisodeTotals]]
    unroll_on_policy: Callable[[Params, Any, Array, int], tuple[Any, Trajectory, EpisodeTotals]]
    update_behaviour: Callable[[Any, Params], tuple[Any, Params]]
    field_values: Callable[[MetaParams, Array], FieldValues]
    bind: Callable[[FieldValues], UpdateRule]
    gradient: Callable[[FieldValues, Params, Trajectory], tuple[Params, Logs]]
    step: Callable[[FieldValues, Params, OptState, Params], tuple[Params, OptState]]
    network: NetworkFunctions
    policy: Policy
    unroll_length: int
    rematerialise: bool = False

    def rule(self, meta_params: MetaParams, agent: AgentState) -> UpdateRule:
        """The update rule by which an agent learns next."""
        return self.bind(self.field_values(meta_params, agent.num_updates))

    def update(
        self, field_values: FieldValues, params: Params, opt_state: OptState, trajectory: Trajectory
    ) -> tuple[Params, OptState, Logs]:
        """Learns from a trajectory; differentiable in its first three arguments."""

        def update(field_values, params, opt_state, trajectory):
            direction, logs = self.gradient(field_values, params, trajectory)
            moved, opt_state = self.step(field_values, direction, opt_state, params)
            size = optax.tree.norm(jax.lax.stop_gradient(jax.tree.map(jnp.subtract, moved, params)))
            return moved, opt_state, {**logs, 'inner_update/norm': size}

        return (jax.checkpoint(update) if self.rematerialise else update)(field_values, params, opt_state, trajectory)

    def advance(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, Metrics]:
        """Learns from the pending trajectory and acts the next one."""
        field_values = self.field_values(meta_params, agent.num_updates)
        params, opt_state, logs = self.update(field_values, agent.params, agent.opt_state, agent.trajectory)
        logs |= {f'scheduled/{path}': value for path, value in field_values.items() if path not in meta_params}
        key, act_key = jax.random.split(agent.key)
        behaviour, acting_params = self.update_behaviour(agent.behaviour, params)
        actor_state, trajectory, episodes = self.act(acting_params, agent.actor_state, act_key, self.unroll_length)
        agent = AgentState(params, opt_state, agent.num_updates + 1, behaviour, actor_state, trajectory, key)
        return agent, Metrics(logs, episodes, jnp.int32(0))


def make_inner_loop(
    network: NetworkFunctions,
    environment: BatchedEnvironment,
    policy: Policy,
    behaviour: Behaviour,
    update_rule: UpdateRule,
    meta_parameters: MetaParameterSet,
    unroll_length: int,
) -> InnerLoop:
    """The inner loop of an agent composed of these parts."""
    actor = Actor(environment, network, behaviour.policy or policy)

    def init(key: Array) -> AgentState:
        params_key, actor_key, act_key, key = jax.random.split(key, 4)
        params = network.init(params_key)
        actor_state, trajectory, _ = actor.unroll(params, actor.init(actor_key), act_key, unroll_length)
        opt_state = update_rule.optimiser.init(params)
        return AgentState(params, opt_state, jnp.int32(0), behaviour.init(params), actor_state, trajectory, key)

    schedules = schedules_of(update_rule)

    def field_values(meta_params: MetaParams, num_updates: Array) -> FieldValues:
        scheduled = {path: schedule(num_updates) for path, schedule in schedules.items()}
        return {**meta_parameters.values(meta_params), **scheduled}

    def bind(field_values: FieldValues) -> UpdateRule:
        return replace_all(update_rule, field_values)

    def gradient(field_values: FieldValues, params: Params, trajectory: Trajectory) -> tuple[Params, Logs]:
        return bind(field_values).gradient(network, params, trajectory)

    def step(
        field_values: FieldValues, gradient: Params, opt_state: OptState, params: Params
    ) -> tuple[Params, OptState]:
        return bind(field_values).optimiser.step(gradient, opt_state, params)

    return InnerLoop(
        init=init,
        act=actor.unroll,
        unroll_on_policy=Actor(environment, network, policy).unroll,
        update_behaviour=behaviour.update,
        field_values=field_values,
        bind=bind,
        gradient=gradient,
        step=step,
        network=network,
        policy=policy,
        unroll_length=unroll_length,
    )


def scan_updates(
    inner_loop: InnerLoop, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, length: int
) -> tuple[Any, Any]:
    """`jax.lax.scan` over steps of an inner loop, one update in each.

    The first is taken out of the loop: nothing before it depends on the meta-parameters, so that its reverse pass,
    unlike one that serves every step, needs no second derivatives in the weights. It has buffers of its own then, so it
    stays in where memory is to be saved at the expense of time.
    """
    if inner_loop.rematerialise and length > 1:
        return jax.lax.scan(step, carry, xs, length)
    carry, first = step(carry, jax.tree.map(lambda x: x[0], xs))
    if length == 1:
        return carry, jax.tree.map(lambda x: x[None], first)
    carry, others = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[1:], xs), length - 1)
    return carry, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)
