"""What meta-gradients cost, in time and memory, by gradient estimator; and a learned return."""

import dataclasses
import math
from typing import Any, cast

import jax
from gymnax.environments.classic_control.cartpole import CartPole

from agents.agent import Agent
from agents.learner import Learner
from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.batch import Batch
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.gradient_estimators.base import GradientEstimator
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.meta_gradient import MetaGradient
from tools.benchmarks.measure import Row, agent_of, alternate, row, training

MODES: dict[str, tuple[GradientEstimator, int]] = {
    'mixed': (Mixed(), 1),
    'mixed, rematerialised': (Mixed(rematerialise=True), 1),
    'mixed, 4 groups': (Mixed(), 4),
    'mixed, rematerialised, 4 groups': (Mixed(rematerialise=True), 4),
    'mixed, rematerialised, 4 groups, 5 segments': (Mixed(rematerialise=True, num_segments=5), 4),
    'reverse': (Reverse(), 1),
    'reverse, rematerialised': (Reverse(rematerialise=True), 1),
    'forward': (Forward(), 1),
}
"""Ways to take a meta-gradient, and `Network.num_groups`."""


def meta_step(rounds: int, num_inner_steps: int = 10) -> list[Row]:
    """Meta-steps in each mode against as many plain updates, in milliseconds."""
    agent = _multilayer_agent(num_inner_steps)
    plain = dataclasses.replace(agent, meta_optimiser=Fixed(num_inner_steps))
    learners = [Learner(variant) for variant in (plain, *(_in_mode(agent, *mode) for mode in MODES.values()))]
    base, *others = alternate([training(learner, 2) for learner in learners], rounds)
    return [
        row(
            f'meta-step, {name}',
            f'{num_inner_steps} updates without a meta-gradient',
            'ms',
            500 * other,  # Two meta-steps in a call.
            500 * base,
            other / base,
        )
        for name, other in zip(MODES, others, strict=True)
    ]


def memory(rounds: int) -> list[Row]:
    """Temporary memory of a meta-step through 20 updates, and its growth from the 10th on; and through 16 and 64
    updates in as many segments as the root of their number.
    """
    del rounds  # A compiled program's memory is the same each time.
    rows = []
    few, many = (
        _temporary_mebibytes(_in_mode(_multilayer_agent(k), Mixed(rematerialise=True, num_segments=math.isqrt(k)), 4))
        for k in (16, 64)
    )
    rows.append(row('memory on Catch, 64 updates in 8 segments', '16 updates in 4', 'MiB', many, few, many / few))
    cartpole = Batch(GymnaxEnvironment(CartPole()), 64)
    for environment in (None, cartpole):
        agents = {k: _multilayer_agent(k) for k in (10, 20)}
        if environment:
            agents = {k: dataclasses.replace(agent, environment=environment) for k, agent in agents.items()}
        sizes = {
            (name, k): _temporary_mebibytes(_in_mode(agent, *mode))
            for name, mode in MODES.items()
            for k, agent in agents.items()
        }
        unit, where = _mebibytes_of_an_update(agents[10]), 'CartPole' if environment else 'Catch'
        for name in MODES:
            size, reverse = sizes[name, 20], sizes['reverse', 20]
            rows.append(row(f'memory on {where}, {name}', 'reverse', 'MiB', size, reverse, size / reverse))
            growth = (size - sizes[name, 10]) / 10
            rows.append(
                row(f'memory of a further update on {where}, {name}', 'its inputs', 'MiB', growth, unit, growth / unit)
            )
    return rows


def _multilayer_agent(num_inner_steps: int) -> Agent:
    """The agent of gin/catch/meta_discount.gin with a larger network and batch."""
    bindings = [
        'torsos.MLP.hidden_sizes = (256, 256)',
        'NUM_ENVS = 64',
        'UNROLL_LENGTH = 20',
        f'NUM_INNER_STEPS = {num_inner_steps}',
    ]
    return agent_of('gin/catch/meta_discount.gin', *bindings)


def _in_mode(agent: Agent, mode: GradientEstimator, num_groups: int) -> Agent:
    meta_optimiser = dataclasses.replace(cast(MetaGradient, agent.meta_optimiser), gradient_estimator=mode)
    network = dataclasses.replace(agent.network, num_groups=num_groups)
    return dataclasses.replace(agent, network=network, meta_optimiser=meta_optimiser)


def _temporary_mebibytes(agent: Agent) -> float:
    learner = Learner(agent)
    state = jax.eval_shape(learner.init_state, jax.random.key(0))
    compiled = jax.jit(learner.meta_step, donate_argnums=0).lower(state).compile()
    return cast(Any, compiled.memory_analysis()).temp_size_in_bytes / 2**20


def _mebibytes_of_an_update(agent: Agent) -> float:
    """Weights, optimiser state and the trajectory that an update starts from."""
    lifetime = Learner(agent).state.agents
    leaves = jax.tree.leaves((lifetime.learning, lifetime.trajectory))
    return sum(leaf.nbytes for leaf in leaves) / 2**20


def learned_return(rounds: int, num_meta_steps: int = 20) -> list[Row]:
    """Meta-steps of gin/catch/frodo.gin against the plain updates of gin/catch/short_windows.gin."""
    agent = agent_of('gin/catch/frodo.gin')
    num_updates = agent.meta_optimiser.num_updates
    plain = agent_of('gin/catch/short_windows.gin', f'NUM_INNER_STEPS = {num_updates}')
    ours, theirs = alternate([training(Learner(x), num_meta_steps) for x in (agent, plain)], rounds)
    milliseconds = 1e3 / num_meta_steps
    return [
        row(
            'meta-step of FRODO on Catch',
            'the plain updates',
            'ms',
            milliseconds * ours,
            milliseconds * theirs,
            ours / theirs,
        )
    ]
