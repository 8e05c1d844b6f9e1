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
from components.environments.base import Environment
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.meta_parameters.schedules import schedules_of
from components.networks.network import NetworkFunctions
from components.types import Array, EpisodeTotals, Logs, MetaParams, Metrics, OptState, Params, Trajectory, Values
from components.update_rule import UpdateRule


class AgentState(NamedTuple):
    """One agent in the course of its lifetime.

    Attributes:
      params: its weights (theta).
      opt_state: of its inner optimiser.
      age: updates that it has taken, int32 scalar; of the first agents, where lifetimes end, some are counted as older.
      behaviour: the weights that are acted with later, if not those; empty on-policy.
      actor_state: where its acting stands; only `act` looks into it.
      trajectory: the latest, not learned from yet; acted with `params` unless the behaviour is off-policy.
      key: of the acting to come.
    """

    params: Params
    opt_state: OptState
    age: Array
    behaviour: Any
    actor_state: Any
    trajectory: Trajectory
    key: Array


class InnerLoop(NamedTuple):
    """What can be done with an agent; everything a meta-optimiser needs to know of it.

    repeat:
        bound = values(meta_params, age)
        direction, logs = gradient(bound, params, trajectory)
        params, opt_state = step(bound, direction, opt_state, params)
        behaviour, acting_params = follow(behaviour, params)
        actor_state, trajectory, episodes = act(acting_params, actor_state, key, unroll_length)

    Attributes:
      init: a new agent with its first trajectory.
      act: takes no gradient, and has side effects where environments live on the host: it is never repeated.
      validate: the same with the agent's own policy, for trajectories that are not learned from.
      follow: which weights are acted with after an update.
      values: of the update rule's fields that are learned or scheduled, by path, from meta-parameters and an agent's age.
      bind: from these to the update rule with them in it.
      gradient: that rule's, from such values; differentiable in its first two arguments.
      step: that of the rule's optimiser; differentiable in all arguments.
      network: the agent's.
      policy: what the agent learns to act with.
      unroll_length: `T` of the trajectories that are learned from.
      rematerialise: whether the reverse pass through an update computes it anew rather than keep anything but its inputs.
    """

    init: Callable[[Array], AgentState]
    act: Callable[[Params, Any, Array, int], tuple[Any, Trajectory, EpisodeTotals]]
    validate: Callable[[Params, Any, Array, int], tuple[Any, Trajectory, EpisodeTotals]]
    follow: Callable[[Any, Params], tuple[Any, Params]]
    values: Callable[[MetaParams, Array], Values]
    bind: Callable[[Values], UpdateRule]
    gradient: Callable[[Values, Params, Trajectory], tuple[Params, Logs]]
    step: Callable[[Values, Params, OptState, Params], tuple[Params, OptState]]
    network: NetworkFunctions
    policy: Policy
    unroll_length: int
    rematerialise: bool = False

    def rule(self, meta_params: MetaParams, agent: AgentState) -> UpdateRule:
        """The update rule by which an agent learns next."""
        return self.bind(self.values(meta_params, agent.age))

    def update(
        self, values: Values, params: Params, opt_state: OptState, trajectory: Trajectory
    ) -> tuple[Params, OptState, Logs]:
        """Learns from a trajectory; differentiable in its first three arguments."""

        def update(values, params, opt_state, trajectory):
            direction, logs = self.gradient(values, params, trajectory)
            moved, opt_state = self.step(values, direction, opt_state, params)
            size = optax.tree.norm(jax.lax.stop_gradient(jax.tree.map(jnp.subtract, moved, params)))
            return moved, opt_state, {**logs, 'inner_update/norm': size}

        return (jax.checkpoint(update) if self.rematerialise else update)(values, params, opt_state, trajectory)

    def advance(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, Metrics]:
        """Learns from the pending trajectory and acts the next one."""
        values = self.values(meta_params, agent.age)
        params, opt_state, logs = self.update(values, agent.params, agent.opt_state, agent.trajectory)
        logs |= {f'scheduled/{path}': value for path, value in values.items() if path not in meta_params}
        key, act_key = jax.random.split(agent.key)
        behaviour, acting_params = self.follow(agent.behaviour, params)
        actor_state, trajectory, episodes = self.act(acting_params, agent.actor_state, act_key, self.unroll_length)
        agent = AgentState(params, opt_state, agent.age + 1, behaviour, actor_state, trajectory, key)
        return agent, Metrics(logs, episodes, jnp.int32(0))


def make_inner_loop(
    network: NetworkFunctions,
    environment: Environment,
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

    def values(meta_params: MetaParams, age: Array) -> Values:
        scheduled = {path: schedule(age) for path, schedule in schedules.items()}
        return {**meta_parameters.values(meta_params), **scheduled}

    def bind(values: Values) -> UpdateRule:
        return replace_all(update_rule, values)

    def gradient(values: Values, params: Params, trajectory: Trajectory) -> tuple[Params, Logs]:
        return bind(values).gradient(network, params, trajectory)

    def step(values: Values, gradient: Params, opt_state: OptState, params: Params) -> tuple[Params, OptState]:
        return bind(values).optimiser.step(gradient, opt_state, params)

    return InnerLoop(
        init=init,
        act=actor.unroll,
        validate=Actor(environment, network, policy).unroll,
        follow=behaviour.follow,
        values=values,
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

    The first is taken out of the loop: nothing before it depends on the meta-parameters, so that its reverse pass, unlike
    one that serves every step, needs no second derivatives in the weights. It has buffers of its own then, so it stays in
    where memory is to be saved at the expense of time.
    """
    if inner_loop.rematerialise and length > 1:
        return jax.lax.scan(step, carry, xs, length)
    carry, first = step(carry, jax.tree.map(lambda x: x[0], xs))
    if length == 1:
        return carry, jax.tree.map(lambda x: x[None], first)
    carry, others = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[1:], xs), length - 1)
    return carry, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)
