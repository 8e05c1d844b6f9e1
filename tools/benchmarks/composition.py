"""What composition costs: the learner against loops written by hand, the torso's convolution against haiku's."""

import statistics
from collections.abc import Callable
from typing import Any, cast

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from agents.agent import Agent
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from components.networks.convolutions import Convolution2D
from tools.benchmarks.hand_written.actor_critic import HandWrittenActorCritic
from tools.benchmarks.hand_written.recurrent import HandWrittenRecurrentActorCritic
from tools.benchmarks.measure import Row, alternate, row

VARIANT = 'gin/snake/actor_critic.gin'


def composition(rounds: int, num_updates: int = 20) -> list[Row]:
    """Training of the same Snake agent, in environment steps per second: the learner against a loop of its own."""
    gin_config.load([VARIANT])
    agent = gin_config.build(Experiment).agent
    batch = cast(Any, agent.environment)
    by_hand = HandWrittenActorCritic(batch.environment.environment, num_updates)
    return [_training_speed('composition', agent, by_hand.run, num_updates, rounds)]


def recurrent(rounds: int, num_envs: int = 1_024, num_updates: int = 5) -> list[Row]:
    """The same of an LSTM that learns from whole episodes of a bandit."""
    gin_config.load(['gin/bandits/independent.gin'], [f'NUM_ENVS = {num_envs}'])
    by_hand = HandWrittenRecurrentActorCritic(num_envs, num_updates)
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
    return row(name, 'a loop by hand', 'environment steps/s', speed, other, ratio)


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
    return [row('convolution', 'hk.Conv2D', 'ms', milliseconds, other, ratio)]
