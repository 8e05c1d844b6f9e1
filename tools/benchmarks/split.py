"""Where a meta-step's time goes: its parts, each compiled alone, against the whole and the machine's peak.

XLA shares work between parts in the whole, so that they may add up to more than it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.learner import Learner
from components.acting.actor import Actor
from components.axes import over_axis
from components.inner_loop import AgentState, InnerLoop, acting_source
from components.meta_optimisers.base import LearnerState
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.outer_update import policy_kl
from components.networks.network import NetworkFunctions
from components.replay import Replay, ReplaySource
from components.types import Outputs
from tools.benchmarks.measure import Row, agent_of, alternate, cpu_and_wall, row
from tools.benchmarks.repeated import SIDE, Part, RepeatedPart, peak

VARIANTS = 'gin/catch/meta_discount.gin', 'gin/snake/meta_discount_outer_critic.gin'


def split(rounds: int, gin_files: Sequence[str]) -> Iterator[Row]:
    """CPU milliseconds of each part of a meta-step, and their share of the whole.

    Beside them: environment steps in a CPU second if the part were all there is, which for the environments alone is a
    limit; operations of matrix products, in millions, and the share of the machine's peak that they are done at; CPU
    seconds of compiling; and mebibytes of temporary memory.
    """
    for gin_file in gin_files or VARIANTS:
        learner = Learner(agent_of(gin_file))
        state = jax.tree.map(lambda x: x[0], learner.state)
        programs = {name: RepeatedPart(part, state) for name, part in _parts(learner, state).items()}
        sides: list[Callable[[], Any]] = [peak(), *programs.values()]
        of_peak, *parts = (cpu for cpu, _ in (x.T for x in alternate(sides, rounds, cpu_and_wall)))
        operations_per_second = 2 * SIDE**3 / np.median(of_peak)
        for (name, program), seconds in zip(programs.items(), parts, strict=True):
            mine, whole = 1e3 * seconds / program.length, 1e3 * parts[0] / programs['whole'].length
            share_of_peak = program.operations / (1e-3 * np.median(mine)) / operations_per_second
            yield {
                **row(f'{gin_file}: {name}', 'whole', 'CPU ms', mine, whole, mine / whole),
                'environment steps/CPU s': f'{1e3 * learner.agent.steps_per_meta_step / np.median(mine):.4g}',
                'million operations': f'{program.operations / 1e6:.4g}',
                'of peak': f'{share_of_peak:.3f}',
                'compiling, CPU s': f'{program.compile_seconds:.1f}',
                'MiB': f'{program.mebibytes:.4g}',
            }
        yield row(f'{gin_file}: peak', 'one product', '1e9 operations/CPU s', operations_per_second / 1e9, 1, 1)


def _parts(learner: Learner, state: LearnerState) -> dict[str, Part]:
    agent, loop = learner.agent, learner.inner_loop
    meta_optimiser: Any = agent.meta_optimiser

    def mapped(part: Callable[..., tuple[AgentState, Any]], *others: Any) -> Part:
        def of_all(state: LearnerState) -> tuple[LearnerState, Any]:
            one = over_axis(lambda *xs: part(state, *xs), agent.num_lifetimes)
            agents, more = one(state.agents, *others)
            return state._replace(agents=agents), more

        return of_all

    def update(state: LearnerState, a: AgentState) -> tuple[AgentState, Any]:
        return jax.lax.scan(lambda a, _: loop.update(state.meta_params, a), a, length=meta_optimiser.num_updates)

    def step_optimisers(state: LearnerState, a: AgentState) -> tuple[AgentState, Any]:
        optimiser = loop.update.rule(state.meta_params, a).optimiser
        params, opt_state, _ = a.learning
        for _ in range(meta_optimiser.num_updates):
            params, opt_state = optimiser.step(params, opt_state, params)
        return a._replace(learning=a.learning._replace(params=params, opt_state=opt_state)), ()

    def diagnose(_: LearnerState, a: AgentState) -> tuple[AgentState, Any]:
        divergence = policy_kl(loop, a.params, a.trajectory)
        moved = jax.tree.map(lambda x: x * (1 - 1e-6 * divergence), a.params)  # No repetition is the one before.
        return a._replace(learning=a.learning._replace(params=moved)), divergence

    def differentiate(
        state: LearnerState, a: AgentState, replay: Replay, lifetime_state: Any
    ) -> tuple[AgentState, Any]:
        replayed = dataclasses.replace(loop, source=ReplaySource(replay, a.num_updates))
        found = meta_optimiser.gradient_estimator(
            meta_optimiser.outer_loss, state.meta_params, a, replayed, lifetime_state
        )
        return found.result.agent._replace(num_updates=a.num_updates), (found.gradient, found.result.metrics)

    bare = _bare_actor(learner)
    nothing_seen = dataclasses.replace(acting_source(loop), actor=bare, on_policy_actor=bare)
    parts = {
        'whole': learner.meta_step,
        'acting': mapped(lambda _, a: (_act(learner, loop, a)[0], ())),
        'environments alone': mapped(
            lambda _, a: (_act(learner, dataclasses.replace(loop, source=nothing_seen), a)[0], ())
        ),
        'inner updates': mapped(update),
        'their optimiser steps': mapped(step_optimisers),
        'diagnostics': mapped(diagnose),
    }
    if isinstance(meta_optimiser, MetaGradient):
        replay = jax.jit(over_axis(lambda a: _act(learner, loop, a)[1], agent.num_lifetimes))(state.agents)
        parts['inner updates and meta-gradient'] = mapped(differentiate, replay, state.meta_opt_state.lifetime_state)
    return parts


def _act(learner: Learner, loop: InnerLoop, agent: AgentState) -> tuple[AgentState, Replay]:
    """What a meta-step acts, without learning, and a recording of it."""

    def act(agent: AgentState, _: None) -> tuple[AgentState, Any]:
        agent = loop.source.next(agent, loop.unroll_length)[0]
        return agent, agent.trajectory

    agent, trajectories = jax.lax.scan(act, agent, length=learner.agent.meta_optimiser.num_updates)
    outer_data = getattr(getattr(learner.agent.meta_optimiser, 'outer_loss', None), 'outer_data', None)
    if outer_data is None or not outer_data.draws_fresh_data:
        return agent, Replay(trajectories)
    agent, fresh, _ = outer_data.trajectory(agent.trajectory, agent, loop)
    return agent, Replay(trajectories, jax.tree.map(lambda x: x[None], fresh))


def _bare_actor(learner: Learner) -> Actor:
    """One whose network puts out zeros: what it costs is the environments."""
    network, agent = learner.network, learner.agent

    def step(*inputs: Any) -> tuple[Outputs, Any]:
        outputs, _ = jax.eval_shape(network.step, *inputs)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outputs), inputs[-1]

    bare = NetworkFunctions(network.init, network.initial_state, step, network.unroll)
    return Actor(agent.environment, bare, agent.policy, reward=agent.reward)
