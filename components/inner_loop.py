"""The inner loop: an agent learns from its pending trajectory, then the next one is acted."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Int, PyTree

from components.acting.actor import Actor
from components.acting.behaviours import Behaviour
from components.acting.policies import Policy
from components.acting.rewards import Raw, RewardTransform
from components.component_tree import replace_all
from components.environments.base import BatchedEnvironment
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.meta_parameters.schedules import Scheduled, schedules_of
from components.metrics import Group, Metrics, NamedLogs
from components.networks.network import NetworkFunctions
from components.types import (
    Array,
    CompositionError,
    EpisodeTotals,
    FieldValues,
    LearningState,
    MetaParams,
    ObjectiveState,
    OptState,
    Params,
    Trajectory,
)
from components.update_rule import UpdateRule

T = TypeVar('T')


class AgentState(NamedTuple):
    """State of one agent during its lifetime.

    Attributes:
      learning: what an update changes: weights, and states of optimiser and objective.
      num_updates: updates taken in this lifetime, int32 scalar. Where lifetimes end, those of the first agents start at
        an offset, so that their ends are spread evenly.
      behaviour: the weights that are acted with later, if not those; empty on-policy.
      actor_state: where its acting stands; only `act` looks into it.
      trajectory: the latest, not learned from yet; acted with `params` unless the behaviour is off-policy.
      key: of the acting to come.
      source_state: what the source of its trajectories remembers; empty for most.
    """

    learning: LearningState
    num_updates: Int[Array, '']
    behaviour: PyTree
    actor_state: PyTree
    trajectory: Trajectory
    key: Array
    source_state: PyTree = ()

    @property
    def params(self) -> Params:
        """Its weights (theta)."""
        return self.learning.params


class Update(Protocol):
    """How an agent learns from its pending trajectory; a frozen dataclass, whose reverse pass may be another's."""

    def __call__(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, NamedLogs]:
        """Takes one update.

        Args:
          meta_params: to learn with.
          agent: with the pending trajectory.

        Returns:
          The agent with new `learning` and `num_updates`, and logs.

        Gradients: in `meta_params` and `learning`.
        """
        ...

    @property
    def rematerialise(self) -> bool:
        """Whether the reverse pass recomputes the update from its inputs."""
        ...

    def rule(self, meta_params: MetaParams, agent: AgentState) -> UpdateRule:
        """The update rule with the values of its learned and scheduled fields bound."""
        ...

    def over(self, form: Callable[['PlainUpdate'], 'PlainUpdate']) -> 'Update':
        """The same update with another form of the plain update inside it."""
        ...


@dataclasses.dataclass(frozen=True)
class PlainUpdate:
    """The update rule's own update, differentiated as JAX does.

    Args:
      network: the agent's.
      update_rule: as it was configured.
      meta_parameters: its learned fields.
      schedules: its scheduled fields, by path.
      rematerialise: whether the reverse pass recomputes the update from its inputs.
    """

    network: NetworkFunctions
    update_rule: UpdateRule
    meta_parameters: MetaParameterSet
    schedules: Mapping[str, Scheduled]
    rematerialise: bool = False

    def __call__(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, NamedLogs]:
        field_values = self.field_values(meta_params, agent.num_updates)
        update = jax.checkpoint(self._update) if self.rematerialise else self._update
        learning, logs = update(field_values, agent.learning, agent.trajectory)
        logs |= {Group.SCHEDULED(path): field_values[path] for path in self.schedules}
        return agent._replace(learning=learning, num_updates=agent.num_updates + 1), logs

    def rule(self, meta_params: MetaParams, agent: AgentState) -> UpdateRule:
        return self.bind(self.field_values(meta_params, agent.num_updates))

    def over(self, form: Callable[['PlainUpdate'], 'PlainUpdate']) -> 'PlainUpdate':
        return form(self)

    def field_values(self, meta_params: MetaParams, num_updates: Array) -> FieldValues:
        """Values of learned and scheduled fields by path, in their units, after that many updates."""
        scheduled = {path: schedule(num_updates) for path, schedule in self.schedules.items()}
        return {**self.meta_parameters.values(meta_params), **scheduled}

    def bind(self, field_values: FieldValues) -> UpdateRule:
        """The update rule with these values in its fields."""
        return replace_all(self.update_rule, field_values)

    def gradient(
        self, field_values: FieldValues, params: Params, state: ObjectiveState, trajectory: Trajectory
    ) -> tuple[Params, ObjectiveState, NamedLogs]:
        """The update rule's gradient; differentiable in its first three arguments."""
        return self.bind(field_values).gradient(self.network, params, state, trajectory)

    def step(
        self, field_values: FieldValues, gradient: Params, opt_state: OptState, params: Params
    ) -> tuple[Params, OptState]:
        """The step of the update rule's optimiser; differentiable in all arguments."""
        return self.bind(field_values).optimiser.step(gradient, opt_state, params)

    def _update(
        self, field_values: FieldValues, learning: LearningState, trajectory: Trajectory
    ) -> tuple[LearningState, NamedLogs]:
        params, opt_state, objective_state = learning
        gradient, objective_state, logs = self.gradient(field_values, params, objective_state, trajectory)
        moved, opt_state = self.step(field_values, gradient, opt_state, params)
        size = optax.tree.norm(jax.lax.stop_gradient(jax.tree.map(jnp.subtract, moved, params)))
        return LearningState(moved, opt_state, objective_state), {**logs, Group.INNER_UPDATE('norm'): size}


class TrajectorySource(Protocol):
    """Where an agent's trajectories come from, their rewards transformed. No gradient flows through it."""

    def next(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, EpisodeTotals]:
        """The agent, which has just been updated, with its next training trajectory pending."""
        ...

    def on_policy(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, Trajectory, EpisodeTotals]:
        """A trajectory of the agent's own policy that is not trained on, for the outer loss."""
        ...


@dataclasses.dataclass(frozen=True)
class ActingSource:
    """Acts in the environments. Each trajectory is acted once: environments on the host cannot be taken back.

    Args:
      actor: of the behaviour policy.
      on_policy_actor: of the agent's policy.
      behaviour: which weights act.
    """

    actor: Actor
    on_policy_actor: Actor
    behaviour: Behaviour

    def next(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, EpisodeTotals]:
        key, act_key = jax.random.split(agent.key)
        behaviour, acting_params = self.behaviour.update(agent.behaviour, agent.params)
        actor_state, trajectory, episodes = self.actor.unroll(acting_params, agent.actor_state, act_key, unroll_length)
        agent = agent._replace(behaviour=behaviour, actor_state=actor_state, trajectory=trajectory, key=key)
        return agent, episodes

    def on_policy(self, agent: AgentState, unroll_length: int) -> tuple[AgentState, Trajectory, EpisodeTotals]:
        key, act_key = jax.random.split(agent.key)
        actor_state, trajectory, episodes = self.on_policy_actor.unroll(
            agent.params, agent.actor_state, act_key, unroll_length
        )
        return agent._replace(actor_state=actor_state, key=key), trajectory, episodes

    def init(self, network: NetworkFunctions, update_rule: UpdateRule, unroll_length: int, key: Array) -> AgentState:
        """A new agent with its first trajectory pending."""
        params_key, actor_key, act_key, key = jax.random.split(key, 4)
        params = network.init(params_key)
        actor_state, trajectory, _ = self.actor.unroll(params, self.actor.init(actor_key), act_key, unroll_length)
        learning, behaviour = update_rule.init(params), self.behaviour.init(params)
        return AgentState(learning, jnp.int32(0), behaviour, actor_state, trajectory, key)


class SourceFactory(Protocol):
    """Makes a source of trajectories in the place of one that acts each of them; a frozen dataclass."""

    def init(self, agent: AgentState) -> PyTree:
        """What the source of a new agent remembers, which becomes its `source_state`; `()` for nothing."""
        ...

    def __call__(self, acting: ActingSource) -> TrajectorySource:
        """The source. It keeps the one that acts as its attribute `acting`, if it draws from it."""
        ...


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """Updates and acting of one agent; all that a meta-optimiser needs to know of it.

    repeat:
        agent, logs     = update(meta_params, agent)
        agent, episodes = source.next(agent, unroll_length)

    Args:
      network: the agent's.
      policy: that the agent learns to act with.
      unroll_length: `T` of the training trajectories.
      update: how the agent learns from a trajectory.
      source: where trajectories come from.
      num_segments: parts of a scan over updates of each of which a reverse pass keeps what it starts with, and repeats
        the rest, acting included.
      is_measured: whether diagnostics are measured, which are logged and not learned from; a scalar.
    """

    network: NetworkFunctions
    policy: Policy
    unroll_length: int
    update: Update
    source: TrajectorySource
    num_segments: int = 1
    is_measured: Bool[Array, ''] | bool = True

    def advance(self, meta_params: MetaParams, agent: AgentState) -> tuple[AgentState, Metrics]:
        """Learns from the pending trajectory and acts the next one."""
        agent, logs = self.update(meta_params, agent)
        agent, episodes = self.source.next(agent, self.unroll_length)
        return agent, Metrics(logs, episodes, jnp.int32(0))

    def diagnostics(self, measure: Callable[[], NamedLogs]) -> NamedLogs:
        """What `measure` returns, scalars by name; zeros, at no cost, where diagnostics are not measured."""
        if self.is_measured is True:
            return measure()
        shapes = jax.eval_shape(measure)
        return jax.lax.cond(
            self.is_measured, measure, lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        )

    def over(self, form: Callable[[PlainUpdate], PlainUpdate]) -> 'InnerLoop':
        """The same loop with another form of the plain update."""
        return dataclasses.replace(self, update=self.update.over(form))


def acting_loop(
    network: NetworkFunctions,
    environment: BatchedEnvironment,
    policy: Policy,
    behaviour: Behaviour,
    update_rule: UpdateRule,
    meta_parameters: MetaParameterSet,
    unroll_length: int,
    make_source: SourceFactory | None = None,
    reward: RewardTransform = Raw(),
) -> tuple[InnerLoop, Callable[[Array], AgentState]]:
    """The inner loop of an agent composed of these parts, and the function of a key that makes a new agent."""
    actor, on_policy_actor = (
        Actor(environment, network, pi, reward=reward) for pi in (behaviour.policy or policy, policy)
    )
    acting = ActingSource(actor, on_policy_actor, behaviour)
    source = make_source(acting) if make_source else acting
    update = PlainUpdate(network, update_rule, meta_parameters, schedules_of(update_rule))

    def init(key: Array) -> AgentState:
        agent = acting.init(network, update_rule, unroll_length, key)
        return agent._replace(source_state=make_source.init(agent)) if make_source else agent

    return InnerLoop(network, policy, unroll_length, update, source), init


def acting_source(inner_loop: InnerLoop) -> ActingSource:
    """The source of an inner loop that acts.

    Raises:
      CompositionError: if it does not act.
    """
    source = getattr(inner_loop.source, 'acting', inner_loop.source)
    if not isinstance(source, ActingSource):
        raise CompositionError(f'the inner loop does not act, its source is {type(inner_loop.source).__name__}')
    return source


def scan_updates(
    inner_loop: InnerLoop,
    step: Callable[[T, PyTree], tuple[T, PyTree]],
    carry: T,
    xs: PyTree,
    length: int,
) -> tuple[T, PyTree]:
    """`jax.lax.scan` over steps of an inner loop, one update in each.

    The first is taken out of the loop: nothing before it depends on the meta-parameters, so that its reverse pass,
    unlike one that serves every step, needs no second derivatives in the weights. It has buffers of its own then, so it
    stays in where memory is to be saved at the expense of time.
    """
    if inner_loop.num_segments > 1:
        return _scan_segments(step, carry, xs, length, inner_loop.num_segments)
    if inner_loop.update.rematerialise and length > 1:
        return jax.lax.scan(step, carry, xs, length)
    step = jax.jit(step)  # So that Python traces it once.
    carry, first = step(carry, jax.tree.map(lambda x: x[0], xs))
    if length == 1:
        return carry, jax.tree.map(lambda x: x[None], first)
    carry, others = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[1:], xs), length - 1)
    return carry, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)


def _scan_segments(
    step: Callable[[T, PyTree], tuple[T, PyTree]], carry: T, xs: PyTree, length: int, num_segments: int
) -> tuple[T, PyTree]:
    """`jax.lax.scan` in segments, which a reverse pass repeats from what each of them starts with."""

    @functools.partial(jax.checkpoint, prevent_cse=False)  # Nothing is shared out of the body of a loop.
    def segment(carry: T, xs: PyTree) -> tuple[T, PyTree]:
        return jax.lax.scan(step, carry, xs, length // num_segments)

    split = jax.tree.map(lambda x: x.reshape(num_segments, -1, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(segment, carry, split, num_segments)
    return carry, jax.tree.map(lambda y: y.reshape(length, *y.shape[2:]), ys)
