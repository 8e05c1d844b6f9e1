"""Measures what composition, the form of the convolution and meta-gradients cost.

    python tools/benchmark.py [--rounds 15] [--only composition] [--out docs/results/benchmark.csv]

Both sides of a comparison alternate in one process, and what is reported is the median of each and of their ratios:
absolute times of a shared machine say little. `composition` trains the actor-critic of gin/snake/actor_critic.gin with
the learner and with a loop written for that one agent, `recurrent` does so with the LSTM of gin/bandits/independent.gin
and 1,024 environments. `convolution` takes the gradient of the first three inner updates' loss, in a
compiled loop, through `hk.Conv2D` and through the project's torso. `meta_step` is a meta-gradient through 10 updates of
an MLP 256x256 on 64 environments by 20 steps of Catch, in each way of differentiating (some in groups of environments),
against the same 10 updates without one. `memory` is what the compiled program of that agent needs beside its state for
20 updates, against reverse mode, and how much each further update adds, in units of weights, optimiser state and one
trajectory. `extras` is a whole run of gin/catch/meta_discount.gin with its logs, evaluations and checkpoints against
the time in it that was spent training. `start` is the time from the command to the first update, with an empty cache of
compiled programs and again. `learned_return` is a meta-step of gin/catch/frodo.gin against one by hand, and against the
plain updates in it.
"""

import argparse
import csv
import dataclasses
import functools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from acme.utils import loggers as acme_loggers
from gymnax.environments.classic_control.cartpole import CartPole

from agents.agent import Agent
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.launch import notify
from agents.experiments.loggers import CSVLogger, TensorBoardLogger
from agents.learner import Learner
from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.batch import Batch
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.gradient_estimators.base import GradientEstimator
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.meta_gradient import MetaGradient
from components.networks.torsos import Convolution2D
from tools import hand_written
from tools.command_line import Parser, run_command

Row = dict[str, Any]
VARIANT = 'gin/snake/actor_critic.gin'


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _run, arguments)


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--rounds', type=int, default=15, help='samples of each side')
    parser.add_argument('--only', nargs='+', choices=_benchmarks(), default=list(_benchmarks()))
    parser.add_argument('--out', type=pathlib.Path, help='CSV file to write the table to')
    return parser


def _benchmarks() -> dict[str, Callable[[int], list[Row]]]:
    return {
        'composition': composition,
        'recurrent': recurrent,
        'convolution': convolution,
        'meta_step': meta_step,
        'memory': memory,
        'extras': extras,
        'start': start,
        'learned_return': learned_return,
    }


def _run(args: argparse.Namespace) -> int:
    rows = []
    for i, name in enumerate(args.only, 1):
        notify(f'{name}, {i} of {len(args.only)}: compiling, then {args.rounds} rounds')
        for row in _benchmarks()[name](args.rounds):
            rows.append({**row, 'device': jax.devices()[0].device_kind})
            print(', '.join(f'{name} {value}' for name, value in row.items()), flush=True)
    if args.out:
        with args.out.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
    return 0


def composition(rounds: int, num_updates: int = 20) -> list[Row]:
    """Training of the same Snake agent, in environment steps per second: the learner against a loop of its own."""
    gin_config.load([VARIANT])
    agent = gin_config.build(Experiment).agent
    batch = cast(Any, agent.environment)
    by_hand = hand_written.HandWrittenActorCritic(batch.environment.environment, num_updates)
    return [_training_speed('composition', agent, by_hand.run, num_updates, rounds)]


def recurrent(rounds: int, num_envs: int = 1_024, num_updates: int = 5) -> list[Row]:
    """The same of an LSTM that learns from whole episodes of a bandit."""
    gin_config.load(['gin/bandits/independent.gin'], [f'NUM_ENVS = {num_envs}'])
    by_hand = hand_written.HandWrittenRecurrentActorCritic(num_envs, num_updates)
    agent = gin_config.build(Experiment).agent
    return [_training_speed('recurrent', agent, by_hand.run, num_updates, rounds)]


def _training_speed(name: str, agent: Agent, by_hand: Callable[[], Any], num_updates: int, rounds: int) -> Row:
    """Environment steps per second of the learner, and of a loop by hand of as many updates."""
    learner = Learner(agent)

    def learn():
        learner.advance(num_updates)
        jax.block_until_ready(learner.state)

    ours, theirs = alternate([learn, by_hand], rounds)
    steps, ratio = num_updates * agent.steps_per_meta_step, statistics.median(np.divide(theirs, ours))
    speed, other = (steps / statistics.median(seconds) for seconds in (ours, theirs))
    return _row(name, 'a loop by hand', 'environment steps/s', speed, other, ratio)


def convolution(rounds: int) -> list[Row]:
    """Three gradient steps of a torso on Snake boards, in milliseconds: `hk.Conv2D` against the project's."""

    def make(convolve: Callable):
        def torso(x):
            for size, stride in ((2, 2), (2, 1)):
                x = jax.nn.relu(convolve(32, size, stride)(x))
            return hk.Linear(128)(hk.Flatten()(x))

        network: Any = hk.without_apply_rng(hk.transform(torso))
        boards = jax.random.uniform(jax.random.key(0), (3072, 6, 6, 5))
        params = network.init(jax.random.key(1), boards)

        @jax.jit
        def run(params):
            def step(params, _):
                gradient = jax.grad(lambda p: jnp.square(network.apply(p, boards)).mean())(params)
                return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), None

            return jax.lax.scan(step, params, length=3)[0]

        return lambda: jax.block_until_ready(run(params))

    ours = make(lambda channels, size, stride: Convolution2D(channels, size, stride, 'SAME'))
    theirs = make(lambda channels, size, stride: hk.Conv2D(channels, size, stride, padding='SAME'))
    our_times, their_times = alternate([ours, theirs], rounds)
    milliseconds, other = (1e3 * statistics.median(seconds) for seconds in (our_times, their_times))
    ratio = statistics.median(np.divide(their_times, our_times))
    return [_row('convolution', 'hk.Conv2D', 'ms', milliseconds, other, ratio)]


MODES: dict[str, tuple[GradientEstimator, int]] = {
    'mixed': (Mixed(), 1),
    'mixed, rematerialised': (Mixed(rematerialise=True), 1),
    'mixed, 4 groups': (Mixed(), 4),
    'mixed, rematerialised, 4 groups': (Mixed(rematerialise=True), 4),
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

    def learn(learner: Learner):
        learner.advance(2)
        jax.block_until_ready(learner.state)

    base, *others = alternate([functools.partial(learn, learner) for learner in learners], rounds)
    return [
        _row(
            f'meta-step, {name}',
            f'{num_inner_steps} updates without a meta-gradient',
            'ms',
            500 * statistics.median(other),  # Two meta-steps in a call.
            500 * statistics.median(base),
            statistics.median(np.divide(other, base)),
        )
        for name, other in zip(MODES, others, strict=True)
    ]


def memory(rounds: int) -> list[Row]:
    """Temporary memory of a meta-step through 20 updates, and its growth from the 10th on."""
    del rounds  # A compiled program's memory is the same each time.
    rows = []
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
            rows.append(_row(f'memory on {where}, {name}', 'reverse', 'MiB', size, reverse, size / reverse))
            growth = (size - sizes[name, 10]) / 10
            rows.append(
                _row(f'memory of a further update on {where}, {name}', 'its inputs', 'MiB', growth, unit, growth / unit)
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
    gin_config.load(['gin/catch/meta_discount.gin'], bindings)
    return gin_config.build(Experiment).agent


def _in_mode(agent: Agent, mode: GradientEstimator, num_groups: int) -> Agent:
    meta_optimiser = dataclasses.replace(cast(MetaGradient, agent.meta_optimiser), gradient_estimator=mode)
    network = dataclasses.replace(agent.network, num_groups=num_groups)
    return dataclasses.replace(agent, network=network, meta_optimiser=meta_optimiser)


def _temporary_mebibytes(agent: Agent) -> float:
    learner = Learner(agent)
    state = jax.tree.map(lambda x: x[0], learner.state)
    compiled = jax.jit(learner.meta_step, donate_argnums=0).lower(state).compile()
    return cast(Any, compiled.memory_analysis()).temp_size_in_bytes / 2**20


def _mebibytes_of_an_update(agent: Agent) -> float:
    """Weights, optimiser state and the trajectory that an update starts from."""
    lifetime = Learner(agent).state.agents
    leaves = jax.tree.leaves((lifetime.params, lifetime.opt_state, lifetime.trajectory))
    return sum(leaf.nbytes for leaf in leaves) / 2**20


def alternate(sides: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Seconds of each side in each round, taken in turn, after one call of each that compiles."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    return seconds


def _row(name: str, against: str, unit: str, ours: float, theirs: float, ratio: float) -> Row:
    return {
        'benchmark': name,
        'against': against,
        'unit': unit,
        'project': f'{ours:.4g}',
        'other': f'{theirs:.4g}',
        'ratio': f'{ratio:.3f}',
    }


def learned_return(rounds: int, num_meta_steps: int = 20) -> list[Row]:
    """Meta-steps of gin/catch/frodo.gin against a loop by hand, and against the plain updates of
    gin/catch/short_windows.gin.
    """
    gin_config.load(['gin/catch/frodo.gin'])
    learners = [Learner(gin_config.build(Experiment).agent)]
    gin_config.load(
        ['gin/catch/short_windows.gin'], [f'NUM_INNER_STEPS = {learners[0].agent.meta_optimiser.num_updates}']
    )
    learners.append(Learner(gin_config.build(Experiment).agent))
    by_hand = hand_written.HandWrittenFRODO(num_meta_steps)

    def learn(learner: Learner):
        learner.advance(num_meta_steps)
        jax.block_until_ready(learner.state)

    sides = [functools.partial(learn, learner) for learner in learners]
    ours, *others = alternate([*sides, by_hand.run], rounds)
    milliseconds = 1000 / num_meta_steps
    return [
        _row(
            'meta-step of FRODO on Catch',
            against,
            'ms',
            milliseconds * statistics.median(ours),
            milliseconds * statistics.median(other),
            statistics.median(np.divide(ours, other)),
        )
        for against, other in zip(('the plain updates', 'a loop by hand'), others, strict=True)
    ]


def extras(rounds: int) -> list[Row]:
    """Environment steps per second of the clock, with logs and with everything, against those of the time spent
    training.

    Both are of the same run: between two runs the speed of a shared machine differs by more than what is asked for.
    """
    gin_config.load(['gin/catch/meta_discount.gin'])
    experiment = dataclasses.replace(gin_config.build(Experiment), loggers=(CSVLogger, TensorBoardLogger))
    logs = dataclasses.replace(experiment, evaluate_every=0, checkpoint_every=0)
    rows = []
    for name, chosen in (('logs', logs), ('logs, evaluations and checkpoints', experiment)):
        # From the first evaluation on, so that compiling it does not count.
        speeds = np.array([_steps_per_second(chosen, experiment.evaluate_every) for _ in range(rounds)]).T
        of_the_clock, of_training = map(statistics.median, speeds)
        ratio = statistics.median(speeds[0] / speeds[1])
        rows.append(_row(name, 'training alone', 'environment steps/s', of_the_clock, of_training, ratio))
    return rows


def _steps_per_second(experiment: Experiment, after: int) -> tuple[float, float]:
    """By the clock and of training alone, from the first row after so many environment steps to the last one."""
    probe = _Probe()
    loggers = [*experiment.loggers, lambda label, run: probe if label == 'train' else acme_loggers.NoOpLogger()]
    with tempfile.TemporaryDirectory() as workdir:
        dataclasses.replace(experiment, loggers=loggers).run(workdir)
    # The row in which that many were exceeded comes before what was due then.
    env_steps, clock, speeds = np.array([row for row in probe.rows if row[0] > after][1:]).T
    taken = np.diff(env_steps)
    return taken.sum() / (clock[-1] - clock[0]), taken.sum() / (taken / speeds[1:]).sum()


class _Probe(acme_loggers.Logger):
    """Keeps environment steps, the clock, and the speed of training alone."""

    def __init__(self):
        self.rows: list[tuple[float, float, float]] = []

    def write(self, data):
        self.rows.append((float(data['env_steps'].sum()), data['wall_time'], data['steps_per_second']))

    def close(self):
        pass


def start(rounds: int) -> list[Row]:
    """Seconds from the command to the first update, from the cache of compiled programs and with an empty one."""
    rows = []
    for variant in ('gin/catch/meta_discount.gin', 'gin/snake/meta_discount_outer_critic.gin'):
        pairs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                first = _seconds_to_first_update(variant, cache)
                pairs.append((_seconds_to_first_update(variant, cache), first))
        again, first_time = np.array(pairs).T
        ratio = statistics.median(again / first_time)
        values = statistics.median(again), statistics.median(first_time)
        rows.append(_row(f'start of {pathlib.Path(variant).parent.name}', 'an empty cache', 's', *values, ratio))
    return rows


def _seconds_to_first_update(variant: str, cache: str) -> float:
    bindings = ['LOG_EVERY = 1', 'TOTAL_ENV_STEPS = 2_560', 'EVALUATE_EVERY = 0', 'CHECKPOINT_EVERY = 0']
    options = [part for binding in bindings for part in ('--gin_bindings', binding)]
    tool = str(pathlib.Path(__file__).with_name('run.py'))
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, tool, '--gin_file', variant, '--workdir', workdir, *options]
        environment = {**os.environ, 'XDG_CACHE_HOME': cache}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(re.findall(r'first row ([\d.]+) s', done.stdout)[0])


if __name__ == '__main__':
    sys.exit(main())
