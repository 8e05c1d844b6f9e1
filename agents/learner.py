"""The one learner: every variant is this compiled step with other components in it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from acme import core as acme_core
from acme.utils import counting, loggers
from jaxtyping import PyTree

from agents import processes, replicas
from agents.agent import Agent
from agents.placement import ONE_DEVICE, Placement
from agents.replicas import Replicas
from components.acting.actor import Actor
from components.acting.rewards import Raw
from components.axes import in_groups, over_axis, tree_where
from components.component_tree import describe_paths, learnable_paths
from components.environments.base import human_normalised, named_failures
from components.inner_loop import AgentState, InnerLoop, acting_loop
from components.meta_optimisers.base import LearnerState
from components.metrics import DIAGNOSTICS, LOSSES, Group, Metrics, NamedLogs, columns, with_logs
from components.run_once import jit_to_run_once
from components.types import Array, CompositionError, DivergedError, FieldValues


class Learner(acme_core.Learner):
    """Trains `S` replicas of an agent, which do not know of each other, all inside one compiled program.

    One `step` is `num_meta_steps` meta-steps; metrics are reduced inside and leave the device once, for the logger.

    repeat `num_meta_steps` times, for each seed:
        for k in range(K): update each lifetime on its pending trajectory, act the next one
        meta-optimiser: meta_params <- ...

    Args:
      agent: what to train.
      num_seeds: replicas of each variant; `S` of them in all.
      seed: the randomness of a variant's replica `i` is drawn from `seed + i`, and depends on no other.
      num_meta_steps: meta-steps in a `step`.
      counter: counts `env_steps` (per seed, an array `[S]`; masked transitions and validation left out),
        `validation_env_steps` (likewise), `learner_updates` and `meta_updates`.
      logger: is given one row per step: counts, and metrics as arrays `[S]`.
      check_finite: whether to stop when a loss or a weight is infinite or not a number.
      varied: numbers, by path, that differ between variants, as `replicas.check` takes them.
      replicas_at_once: how many of them at most are computed side by side on a device; the next ones take their
        meta-steps of a call after them. It divides `S`; None for all.
      placement: among which devices seeds, lifetimes and environments are divided.

    Raises:
      ValueError: if `num_seeds` or `num_meta_steps` < 1, or a seed is not a number of 32 bits.
      CompositionError: if they cannot be divided so.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        num_seeds: int = 1,
        seed: int = 0,
        num_meta_steps: int = 1,
        counter: counting.Counter | None = None,
        logger: loggers.Logger | None = None,
        check_finite: bool = True,
        varied: Replicas | None = None,
        replicas_at_once: int | None = None,
        placement: Placement = ONE_DEVICE,
    ):
        if num_seeds < 1 or num_meta_steps < 1:
            raise ValueError(f'num_seeds and num_meta_steps must be at least 1, got {num_seeds} and {num_meta_steps}')
        if not 0 <= seed <= 2**32 - num_seeds:
            raise ValueError(f'seed must be in [0, {2**32 - num_seeds:,}] for {num_seeds} seeds, got {seed}')
        self.agent, self.num_seeds = agent, num_seeds
        self.replica_values = replicas.values_of(varied or {}, num_seeds)
        self.num_replicas = num_seeds * replicas.num_variants(varied or {})
        self._mesh = mesh = placement.mesh(agent, self.num_replicas)
        self._num_on_device = self.num_replicas // mesh.num_seeds
        self._at_once = math.gcd(replicas_at_once or self.num_replicas, self._num_on_device)
        self.network = agent.network_functions()
        self.actor = Actor(agent.environment, self.network, agent.policy, reward=agent.reward)
        self.inner_loop, self.init_agent = self._loop_of(agent)
        self._num_meta_steps = num_meta_steps
        self._counter = counter or counting.Counter()
        steps = np.zeros(self.num_replicas, np.int64)  # So that what is saved has the same structure from the start.
        self._counter.increment(env_steps=steps, validation_env_steps=steps, learner_updates=0, meta_updates=0)
        self._logger = logger or loggers.NoOpLogger()
        self._seeds = (seed + np.arange(self.num_replicas, dtype=np.uint32) % num_seeds).astype(np.uint32)
        init = over_axis(lambda seed, values: self.init_state(jax.random.key(seed), values), self._at_once)
        init = mesh.over_seeds(in_groups(init, self._num_groups), (0, 0))
        self._shardings = mesh.shardings(lambda: init(self._seeds, self.replica_values))
        self._initial_state = jit_to_run_once(init, self._shardings)
        self._compiled_steps = jax.jit(
            mesh.over_seeds(self._steps, (0, None, 0)),
            donate_argnums=0,
            out_shardings=(self._shardings, *[mesh.by_seed] * 3),
        )
        self._make_initial, self._advance = map(processes.together, (self._initial_state, self._compiled_steps))
        self._start_episodes = jax.jit(mesh.over_seeds(self._new_actor_states, (0,)))
        self._check_finite = check_finite
        self._zero_so_far = set(agent.meta_parameters.parameters)

    @functools.cached_property
    def state(self) -> LearnerState:
        """State of all replicas, `[S, ...]`; the initial one is made where it is first asked for.

        Raises:
          EnvironmentFailedError: if an environment on the host fails to reset or to step.
        """
        with named_failures(self.agent.environment):
            return jax.block_until_ready(self._make_initial(self._seeds, self.replica_values))

    @property
    def _state_shapes(self) -> LearnerState:
        """Shapes of the state, which needs not be made for them, and where it lies."""
        shapes = jax.eval_shape(self._initial_state, self._seeds, self.replica_values)
        if self._shardings is None:
            return shapes
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self._shardings)

    @property
    def _num_groups(self) -> int:
        return self._num_on_device // self._at_once

    @property
    def whole(self) -> jax.sharding.NamedSharding | None:
        """Sharding of what every device of the learner has all of; None on one device."""
        return self._mesh.whole

    @property
    def replica_columns(self) -> dict[str, np.ndarray]:
        """What differs between replicas, `[S]`, by the names of columns."""
        return columns({Group.REPLICA(path): np.asarray(x) for path, x in self.replica_values.items()})

    def step(self) -> None:
        self.advance(self._num_meta_steps)

    def compile(self) -> None:
        """Compiles the program of the initial state and that of `advance` side by side, and runs neither."""
        with futures.ThreadPoolExecutor(1) as pool:
            # Traced here, as what JAX traces under (double precision, say) is a thread's own.
            initial = pool.submit(self._initial_state.lower(self._seeds, self.replica_values).compile)
            self._compiled_steps.lower(self._state_shapes, 0, self.replica_values).compile()
            initial.result()

    def advance(self, num_meta_steps: int) -> None:
        """Takes `num_meta_steps` meta-steps with the same compiled program, whatever their number.

        Raises:
          CompositionError: the first time, if a meta-gradient is not finite; or after some meta-steps, if one was zero
            in all of them, so that nothing leads from that field to the outer loss.
          DivergedError: if a loss or a weight is not finite; the row that shows it was logged.
          EnvironmentFailedError: if an environment on the host has failed; the state is lost then.
        """
        with named_failures(self.agent.environment):
            self.state, metrics, meta_values, finite = self._advance(self.state, num_meta_steps, self.replica_values)
            metrics, meta_values, finite = self._mesh.to_host((metrics, meta_values, finite))
        row = self._row(metrics, meta_values, num_meta_steps)
        self._check_meta_gradients(metrics.logs, row['meta_updates'])
        self._logger.write(row)
        if self._check_finite:
            losses = {str(name): x for name, x in metrics.logs.items() if name.group in LOSSES}
            _check_finite({**losses, 'weights': np.where(finite, 0, np.nan)}, row['learner_updates'])

    def load_learned_meta_params(self) -> None:
        """Takes the meta-parameters that were learned before in place of initial ones, where `Agent` names some.

        Raises:
          CompositionError: if they are of other shapes.
        """
        read = self.agent.meta_parameters.learned
        if read is None:
            return
        learned = jax.tree.map(lambda x: jnp.stack([x] * self.num_replicas), read())
        shapes, expected = (jax.tree.map(jnp.shape, x) for x in (learned, self.state.meta_params))
        if shapes != expected:
            raise CompositionError(f'the learned meta-parameters are of shapes {shapes}, where {expected} are needed')
        self.state = self._mesh.place(self.state._replace(meta_params=learned), self._shardings)

    def trace(self) -> jax.stages.Traced:
        """The program behind `advance`, `(state, num_meta_steps, replica_values) -> state, ...`; for its cost."""
        return self._compiled_steps.trace(self._state_shapes, 1, self.replica_values)

    def get_variables(self, names: list[str]) -> list[PyTree]:
        """Of the first seed: its first lifetime's `params`, or the values of its `meta_parameters`; NumPy arrays."""
        first_seed = jax.tree.map(lambda x: x[0], self.state)
        variables = {
            'params': jax.tree.map(lambda x: x[0], first_seed.agents.params),
            'meta_parameters': self.agent.meta_parameters.values(first_seed.meta_params),
        }
        return jax.device_get([variables[name] for name in names])

    def save(self) -> dict[str, PyTree]:
        """Everything that a resumed run needs to go on; a copy, as the next step writes over the state.

        What stands for environments that live outside of the state is zero in it: it means nothing to another process.
        """
        state = _copy(self.state) if processes.count() == 1 else self._mesh.to_host(self.state)
        if not self.agent.environment.is_pure:
            actor_state = state.agents.actor_state
            actor_state = actor_state._replace(environment=jax.tree.map(jnp.zeros_like, actor_state.environment))
            state = state._replace(agents=state.agents._replace(actor_state=actor_state))
        return {'state': state, 'counts': self._counter.get_counts()}

    def restore(self, state: dict[str, PyTree]) -> None:
        """Goes on from what `save` returned, on whatever devices; where environments live outside of it, with new
        episodes.
        """
        before, self.state = self.state, self._mesh.place(_copy(state['state']), self._shardings)
        if not self.agent.environment.is_pure:
            with named_failures(self.agent.environment):
                self.agent.environment.close(jax.device_get(before.agents.actor_state.environment))
                agents = self.state.agents
                agents = agents._replace(actor_state=jax.block_until_ready(self._start_episodes(agents.key)))
                self.state = self.state._replace(agents=agents)
        self._counter.restore({'counts': dict(state['counts']), 'cache': {}})

    def init_state(self, key: Array, values: FieldValues | None = None) -> LearnerState:
        """State of the replica whose seed `key` stands for, before the first step.

        Args:
          key: of its randomness.
          values: by path, where they are not the agent's.
        """
        agent = replicas.bound(self.agent, values or {})
        meta_key, agents_key = jax.random.split(key)
        meta_params = agent.meta_parameters.init(meta_key, agent.update_rule, agent.environment.spec())
        agents = self._new_agents(agent, jax.random.split(agents_key, agent.num_lifetimes))
        if agent.lifetime_length is not None:
            ages = jnp.arange(agent.num_lifetimes) * agent.lifetime_length // agent.num_lifetimes
            agents = agents._replace(num_updates=ages)
        return LearnerState(agents, meta_params, agent.meta_optimiser.init(meta_params, agents))

    def meta_step(
        self, state: LearnerState, values: FieldValues | None = None, is_measured: Array | bool = True
    ) -> tuple[LearnerState, Metrics]:
        """One meta-step of one replica, with these values at their paths; pure.

        Args:
          state: before it.
          values: by path, where they are not the agent's.
          is_measured: whether diagnostics are; where not, they are zero.
        """
        agent = replicas.bound(self.agent, values or {})
        inner_loop = dataclasses.replace(self._loop_of(agent)[0], is_measured=is_measured)
        state, metrics = agent.meta_optimiser.step(state, inner_loop)
        metrics = with_logs(metrics, inner_loop.diagnostics(lambda: self._monitored(state.agents)))
        if self.agent.lifetime_length is not None:
            state = self._end_lifetimes(agent, state, self.agent.lifetime_length)
        return state, metrics

    def _monitored(self, agents: AgentState) -> NamedLogs:
        """What the monitors measure, means over lifetimes."""
        logs = {}
        for name, monitor in self.agent.monitors.items():
            measure = over_axis(
                lambda agent, m=monitor: m(agent, self.network, self.agent.environment), self.agent.num_lifetimes
            )
            logs[Group.MONITOR(name)] = measure(agents).mean()
        return logs

    def _loop_of(self, agent: Agent) -> tuple[InnerLoop, Callable[[Array], AgentState]]:
        """The inner loop of the agent, or of one with other numbers, and the function of a key that makes a new one."""
        return acting_loop(
            self.network,
            agent.environment,
            agent.policy,
            agent.behaviour,
            agent.update_rule,
            agent.meta_parameters,
            agent.unroll_length,
            agent.source,
            agent.reward,
        )

    def _new_agents(self, agent: Agent, keys: Array) -> AgentState:
        """Agents that have learned nothing, from keys `[L]`."""
        return over_axis(self._loop_of(agent)[1], agent.num_lifetimes)(keys)

    def _end_lifetimes(self, agent: Agent, state: LearnerState, lifetime_length: int) -> LearnerState:
        """Puts new agents in place of those that have had their updates."""
        is_reset = state.agents.num_updates >= lifetime_length

        def renew(state: LearnerState) -> LearnerState:
            agents = self._new_agents(agent, jax.vmap(lambda key: jax.random.fold_in(key, 0x11FE))(state.agents.key))
            optimiser = agent.meta_optimiser
            initial = optimiser.init(state.meta_params, agents)
            return state._replace(
                agents=tree_where(is_reset, agents, state.agents),
                meta_opt_state=optimiser.reset_lifetimes(state.meta_opt_state, initial, is_reset),
            )

        return jax.lax.cond(is_reset.any(), renew, lambda state: state, state)

    def _new_actor_states(self, keys: Array) -> PyTree:
        """Where the agents with these keys `[S, L]` start new episodes, which differ from run to run."""
        init = over_axis(over_axis(self.actor.init, self.agent.num_lifetimes), self._num_on_device)
        return init(jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, 0x9E0)))(keys))

    def _steps(
        self, state: LearnerState, num_meta_steps: Array, replica_values: FieldValues
    ) -> tuple[LearnerState, Metrics, dict[str, PyTree], Array]:
        """Meta-steps of all replicas: the state after them, their metrics, the meta-parameters' values then, and
        whether all weights are finite; the last three `[S]`.
        """
        group = functools.partial(self._steps_of_group, num_meta_steps)
        return in_groups(group, self._num_groups)(state, replica_values)

    def _steps_of_group(
        self, num_meta_steps: Array, state: LearnerState, replica_values: FieldValues
    ) -> tuple[LearnerState, Metrics, dict[str, PyTree], Array]:
        """`_steps` of replicas that are computed side by side."""
        every = self.agent.diagnostics_every

        @jax.jit  # So that it is traced once, not twice.
        def step(state: LearnerState, i: Array) -> tuple[LearnerState, Metrics]:
            # Not an argument of what is mapped over replicas: measuring is then chosen for all, and no work is done.
            meta_step = functools.partial(self.meta_step, is_measured=every == 1 or i % every == 0)
            state, metrics = over_axis(meta_step, self._at_once)(state, replica_values)
            return state, _with_float_logs(metrics)

        zeros = jax.tree.map(_no_total, jax.eval_shape(step, state, num_meta_steps)[1])

        def body(i: Array, carry: tuple[LearnerState, Metrics]) -> tuple[LearnerState, Metrics]:
            state, metrics = step(carry[0], i)
            return state, jax.tree.map(_add_to_total, carry[1], metrics)

        state, totals = jax.lax.fori_loop(0, num_meta_steps, body, (state, zeros))
        num_measured = -(-num_meta_steps // every)
        logs = {
            name: x / jnp.maximum(num_measured if name.group in DIAGNOSTICS else num_meta_steps, 1)
            for name, x in totals.logs.items()
        }
        metrics = totals._replace(logs=logs)
        values = over_axis(self.agent.meta_parameters.values, self._at_once)(state.meta_params)
        return state, metrics, values, jax.vmap(_is_finite)((state.agents.params, state.meta_params))

    def _row(self, metrics: Metrics, meta_values: dict[str, PyTree], num_meta_steps: int) -> loggers.LoggingData:
        episodes = metrics.episodes
        num_episodes, length_sum = _count(episodes.num_episodes), _count(episodes.length_sum)
        counts = self._counter.increment(
            env_steps=_count(episodes.num_steps),
            validation_env_steps=_count(metrics.num_validation_steps),
            learner_updates=num_meta_steps * self.agent.meta_optimiser.num_updates,
            meta_updates=num_meta_steps,
        )
        num_episodes = np.where(num_episodes > 0, num_episodes, np.nan)
        is_raw = isinstance(self.agent.reward, Raw)
        transformed = {} if is_raw else {'transformed_episode_return': episodes.transformed_return_sum / num_episodes}
        episode_return = episodes.return_sum / num_episodes
        return {
            **counts,
            'episode_return': episode_return,
            'episode_length': length_sum / num_episodes,
            **human_normalised(self.agent.environment, episode_return),
            **transformed,
            **columns(metrics.logs),
            **self._signal_to_noise_over_seeds(metrics.logs),
            **self.replica_columns,
            **columns({Group.META_PARAMETER(path): x for path, x in meta_values.items() if np.ndim(x) == 1}),
        }

    def _signal_to_noise_over_seeds(self, logs: NamedLogs) -> dict[str, np.ndarray]:
        """Mean over standard deviation, over the seeds of a variant, of each scalar meta-parameter's mean gradient in
        this row; `[S]`, or a number if there is one variant.

        A plug-in ratio of few numbers, biased upwards: pure noise gives about 1 / sqrt(num_seeds).
        """
        ratios = {}
        for path, value in self.state.meta_params.items():
            gradient = logs.get(Group.META_GRADIENT(path))
            if self.num_seeds > 1 and gradient is not None and isinstance(value, jax.Array) and value.ndim == 1:
                of_variants = np.reshape(gradient, (-1, self.num_seeds))
                spread = of_variants.std(1, ddof=1)
                ratio = np.abs(of_variants.mean(1)) / np.where(spread > 0, spread, np.nan)
                is_one = self.num_replicas == self.num_seeds
                ratios[Group.SIGNAL_TO_NOISE_OVER_SEEDS(path)] = (
                    ratio[0] if is_one else np.repeat(ratio, self.num_seeds)
                )
        return columns(ratios)

    def _check_meta_gradients(self, logs: NamedLogs, num_meta_updates: int) -> None:
        """Raises CompositionError if a meta-gradient that has been zero so far is not finite, or stays zero.

        Not before the outer loss can depend on everything: an objective may have nothing to remember in the first
        update, and overlapping meta-updates look through fewer updates at first.
        """
        gradients = {path: logs.get(Group.META_GRADIENT(path), 1) for path in sorted(self._zero_so_far)}
        undefined = [repr(path) for path, gradient in gradients.items() if not np.all(np.isfinite(gradient))]
        if undefined:
            raise CompositionError(
                f'meta-parameter {", ".join(undefined)}: its meta-gradient is not a finite number; look for a logarithm, '
                'a root or a ratio of something that can be zero in the objectives, or for updates that diverge'
            )
        self._zero_so_far = {path for path, gradient in gradients.items() if not np.any(gradient)}
        dead = [repr(path) for path in sorted(self._zero_so_far)]
        if dead and num_meta_updates > self.agent.meta_optimiser.num_updates:
            raise CompositionError(
                f'meta-parameter {", ".join(dead)}: its meta-gradient is exactly zero, as nothing leads from it to the '
                f'outer loss; {describe_paths(learnable_paths(self.agent.update_rule))}'
            )


def _with_float_logs(metrics: Metrics) -> Metrics:
    """Metrics whose logs can be averaged; counts stay integers."""
    logs = {name: x.astype(jnp.result_type(float, x.dtype)) for name, x in metrics.logs.items()}
    return metrics._replace(logs=logs)


def _no_total(x: jax.ShapeDtypeStruct) -> Array:
    """What `_add_to_total` starts from: zero, for an integer in two words."""
    return jnp.zeros((*x.shape, 2), jnp.uint32) if jnp.issubdtype(x.dtype, jnp.integer) else jnp.zeros(x.shape, x.dtype)


def _add_to_total(total: Array, x: Array) -> Array:
    """Adds a number; integers, which are not negative, exactly, as words of 32 bits `[..., 2]`, the low one first."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return total + x
    low = total[..., 0] + x.astype(jnp.uint32)
    return jnp.stack([low, total[..., 1] + (low < total[..., 0])], -1)


def _count(words: Any) -> np.ndarray:
    """The integers that words stand for, int64."""
    return words[..., 0].astype(np.int64) + (words[..., 1].astype(np.int64) << 32)


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _is_finite(tree: PyTree) -> Array:
    """Whether every number in a tree is finite; a scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _check_finite(values: Mapping[str, np.ndarray], num_updates: int) -> None:
    """Raises DivergedError if a loss, or what the name `weights` stands for, is not finite in some seed `[S]`."""
    for name, value in values.items():
        seeds = np.flatnonzero(~np.isfinite(value))
        if seeds.size:
            raise DivergedError(
                f'{name} of seed {", ".join(map(str, seeds))} was not a finite number within the {num_updates:,} updates '
                'so far: try a smaller learning rate, or clip; to train on all the same, bind '
                'experiment.Experiment.stop_when_not_finite = False'
            )
