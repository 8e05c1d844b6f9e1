"""The agent: its components, and the check that they fit together."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.acting.behaviours import Behaviour
from components.acting.policies import Policy, Softmax, check_policy
from components.acting.rewards import Raw, RewardTransform, transform_rewards
from components.component import MAX_INT, PositiveInt, check_divides, component
from components.component_tree import components_of, learnable_paths, replace_all
from components.environments.base import BatchedEnvironment
from components.environments.observations import entries_of
from components.inner_loop import SourceFactory
from components.meta_optimisers.base import Fixed, MetaOptimiser
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.meta_parameters.schedules import schedules_of
from components.monitors import Monitor
from components.networks.network import Network, NetworkFunctions
from components.networks.torsos import MLP, Concatenate, Convolutional, Residual
from components.objectives.base import Objective, Unroll, loss_and_parts, merge_heads, targets_and_state
from components.optimisers import check_descends
from components.types import CompositionError, MetaParams, Params, Trajectory
from components.update_rule import UpdateRule


@component
class Agent:
    """An agent as a tree of components; a variant is another tree.

    Args:
      environment: a batch of `B`.
      network: torso and core; its heads are those that the objectives ask for.
      update_rule: inner objective and inner optimiser.
      unroll_length: steps of each trajectory that is learned from, `T`.
      meta_parameters: which fields of the update rule are learned.
      meta_optimiser: how they are learned.
      num_lifetimes: agents that share one set of meta-parameters, `L`.
      lifetime_length: updates after which an agent ends, and a new one with new episodes takes its place; the ends of
        several are spread evenly. None for no end.
      policy: what the agent acts with when it is evaluated, and while it learns unless its behaviour says otherwise.
      behaviour: what acts while it learns.
      reward: what is learned from, as a function of the environment's rewards; `episode_return` is of the latter.
      source: makes what its trajectories come from; None acts each of them once. Training is as long as its meta-steps,
        so that a source which acts less takes fewer environment steps.
      monitors: what else is logged, by name, as `monitor/<name>`: means over lifetimes and meta-steps.
      diagnostics_every: meta-steps from one to the next in which monitors, and how far updates moved the policy, are
        measured, the first of each row among them; for steps so small that measuring is a part of their time.

    Raises:
      CompositionError: if the parts do not fit the environment or each other; the message names the part.
    """

    environment: BatchedEnvironment
    network: Network
    update_rule: UpdateRule
    unroll_length: PositiveInt
    meta_parameters: MetaParameterSet = MetaParameterSet()
    meta_optimiser: MetaOptimiser = Fixed()
    num_lifetimes: PositiveInt = 1
    lifetime_length: PositiveInt | None = None
    policy: Policy = Softmax()
    behaviour: Behaviour = Behaviour()
    reward: RewardTransform = Raw()
    source: SourceFactory | None = None
    monitors: Mapping[str, Monitor] = dataclasses.field(default_factory=dict)
    diagnostics_every: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.steps_per_meta_step > MAX_INT:
            raise CompositionError(
                f'a meta-step is {self.steps_per_meta_step:,} environment steps (inner steps x unroll length x '
                f'environments x lifetimes), more than the {MAX_INT:,} that can be counted: make one of them smaller'
            )
        if self.lifetime_length is not None and self.lifetime_length < self.meta_optimiser.num_updates:
            raise CompositionError(
                f'Agent.lifetime_length ({self.lifetime_length}) is shorter than one step of the meta-optimiser, '
                f'{self.meta_optimiser.num_updates} updates'
            )
        if self.lifetime_length is not None and not self.environment.is_pure:
            raise CompositionError(
                f'Agent.lifetime_length ({self.lifetime_length}) needs environments that restart inside the program, '
                f'and those of {type(self.environment).__name__} live outside of it: leave it None'
            )
        if getattr(self.meta_optimiser, 'repeats_acting', False) and not self.environment.is_pure:
            raise CompositionError(
                'the meta-optimiser repeats acting (num_segments of its gradient estimator), which takes environments '
                f'inside the program, and those of {type(self.environment).__name__} live outside of it: leave it 1'
            )
        network = self.network_functions()
        params = jax.eval_shape(lambda: network.init(jax.random.key(0)))
        check_divides(self.network.num_groups, self.environment.batch_size, 'Network.num_groups', 'environments')
        for monitor in self.monitors.values():
            monitor.check(self.environment)
        try:
            meta_params = jax.eval_shape(
                lambda: self.meta_parameters.init(jax.random.key(0), self.update_rule, self.environment.spec())
            )
            _check_is_constant(self.meta_optimiser, 'meta_optimiser.')
            self._check_learning(network, params, meta_params)
            check_descends(self.update_rule.optimiser, params)
            self.meta_optimiser.check(self.update_rule, params, meta_params, self.num_lifetimes)
        except ValueError as error:
            raise CompositionError(str(error)) from error

    def _check_learning(self, network: NetworkFunctions, params: Params, meta_params: MetaParams) -> None:
        """Raises CompositionError if a policy or an objective returns arrays of other shapes than it should."""
        jax.eval_shape(
            lambda params, meta_params: self._try_to_learn(network, params, meta_params), params, meta_params
        )

    def _try_to_learn(self, network: NetworkFunctions, params: Params, meta_params: MetaParams) -> None:
        """Calls policies and objectives on the shapes of a trajectory of two steps."""
        rule = self.meta_parameters.bind(self.update_rule, meta_params)
        rule = replace_all(rule, {path: schedule(jnp.int32(0)) for path, schedule in schedules_of(rule).items()})
        outer = getattr(getattr(self.meta_optimiser, 'outer_loss', None), 'objective', None)
        objectives: list[Objective] = [rule.objective, *([outer] if outer else [])]
        parts = [self.policy, self.behaviour.policy, *(x for o in objectives for x in components_of(o).values())]
        policies = [part for part in parts if callable(part) and hasattr(part, 'heads')]
        spec, batch_size = self.environment.spec(), self.network.num_groups
        leading = 3, batch_size
        observation = jax.tree.map(lambda s: jnp.zeros((*leading, *s.shape), s.dtype), spec.observations)
        first, ones, core_state = jnp.ones(leading, bool), jnp.ones((2, batch_size)), network.initial_state(batch_size)
        outputs = network.unroll(params, observation, first, core_state)
        for policy in policies:
            check_policy(policy, outputs, leading, spec)
            check_policy(policy, jax.tree.map(lambda x: x[0], outputs), leading[1:], spec)
        action = jnp.zeros((2, batch_size, *spec.actions.shape), spec.actions.dtype)
        behaviour_policy = (self.behaviour.policy or self.policy)(outputs, leading)[:-1]
        reward = jnp.stack([transform_rewards(self.reward, x) for x in ones])
        trajectory = Trajectory(observation, first, action, reward, ones, ones, behaviour_policy, core_state)
        for objective in objectives:
            unroll = Unroll(outputs, trajectory, params, network)
            targets, _ = targets_and_state(objective, unroll, objective.init(params))
            loss_and_parts(objective, jax.tree.map(lambda x: x[:-1], outputs), targets, trajectory)

    @property
    def steps_per_meta_step(self) -> int:
        """Environment steps that one seed trains on in a meta-step: its updates `* T * B * L`."""
        batch_size = self.environment.batch_size
        return self.meta_optimiser.num_updates * self.unroll_length * batch_size * self.num_lifetimes

    def warnings(self) -> list[str]:
        """Valid compositions that are probably unintended; a line each."""
        return [*self._integers_as_numbers(), *self._off_policy_warnings()]

    def _integers_as_numbers(self) -> list[str]:
        """Observed integers that a torso reads as quantities but may be categories; those of 8 bits are pixels."""
        observations = self.environment.spec().observations
        entries = {path: spec for path, spec in entries_of(observations).items() if isinstance(spec, specs.Array)}
        torsos = {'': self.network.torso, **getattr(self.network.torso, 'torsos', {})}
        warnings = []
        for path, spec in (entries or {'': observations}).items():
            torso = torsos.get(path, self.network.torso)
            if (
                np.issubdtype(spec.dtype, np.integer)
                and spec.dtype != np.uint8
                and isinstance(torso, MLP | Convolutional | Residual | Concatenate)
            ):
                num_values = (
                    int(spec.maximum) + 1 if isinstance(spec, specs.BoundedArray) and spec.shape == () else '...'
                )
                warnings.append(
                    f'the observation{f" {path}" if path else ""} is an integer ({spec.dtype} {list(spec.shape)}), '
                    f'which {type(torso).__name__} reads as a number: if it is a name, bind torsos.OneHot with '
                    f'num_values = {num_values} for it'
                )
        return warnings

    def _off_policy_warnings(self) -> list[str]:
        if self.behaviour.is_on_policy:
            return []
        return [
            f'{path} assumes on-policy data, but the behaviour policy is {self.behaviour}; use an off-policy return '
            'such as returns.LeakyVTrace'
            for path, component in components_of(self.update_rule).items()
            if getattr(component, 'is_on_policy', False)
        ]

    def network_functions(self) -> NetworkFunctions:
        """The network, with the heads that the inner and the outer objective ask for.

        Raises:
          CompositionError: if they cannot be had in this environment.
        """
        spec = self.environment.spec()
        try:
            inner = self.update_rule.objective.heads(spec)
            outer = self.meta_optimiser.heads(spec)
            readers = {'the outer objective': outer, 'Agent.policy': self.policy.heads(spec)}
            if self.behaviour.policy:
                readers['Agent.behaviour'] = self.behaviour.policy.heads(spec)
            readers |= {f'Agent.monitors: {name}': monitor.heads(spec) for name, monitor in self.monitors.items()}
            heads = merge_heads({'the inner objective': inner, **readers})
            for reader, read in readers.items():
                untrained = sorted(set(read) - set(inner))
                if untrained:
                    raise ValueError(
                        f'{reader} reads {", ".join(untrained)}, which no term of the inner objective trains; '
                        f'it trains {", ".join(sorted(inner))}'
                    )
            return self.network.functions(spec, heads)
        except ValueError as error:
            raise CompositionError(f'network and objectives do not fit: {error}') from error


def _check_is_constant(component: object, prefix: str) -> None:
    """Raises ValueError if something below a component waits to be learned or scheduled, as fields of an update rule
    do.
    """
    networks = {path for path, default in learnable_paths(component, prefix).items() if callable(default)}
    waiting = sorted(networks | {f'{prefix}{path}' for path in schedules_of(component)})
    if waiting:
        raise ValueError(
            f'the outer objective must be constant, but {", ".join(waiting)} are learned or scheduled; only fields of '
            'the update rule can be'
        )
