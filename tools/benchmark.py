"""Measures what composition and the form of the convolution cost, against code written by hand.

    python tools/benchmark.py [--rounds 15] [--out docs/results/benchmark.csv]

Both sides of a comparison alternate in one process, and what is reported is the median of each and their ratio: absolute
times of a shared machine say little. `composition` trains the actor-critic of gin/snake/actor_critic.gin with the learner
and with a loop written for that one agent. `convolution` takes the gradient of the first three inner updates' loss, in a
compiled loop, through `hk.Conv2D` and through the project's torso.
"""

import argparse
import csv
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, cast

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax

from agents import configuration
from agents.experiment import Experiment
from components.learner import Learner
from components.networks.torsos import Convolution2D

VARIANT = 'gin/snake/actor_critic.gin'


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15, help='samples of each side')
    parser.add_argument('--out', type=pathlib.Path, help='CSV file to write the table to')
    args = parser.parse_args(arguments)
    rows = [composition(args.rounds), convolution(args.rounds)]
    for row in rows:
        print(', '.join(f'{name} {value}' for name, value in row.items()))
    if args.out:
        with args.out.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)


def composition(rounds: int, num_updates: int = 20) -> dict[str, Any]:
    """Training of the same Snake agent, in environment steps per second: the learner against a loop of its own."""
    configuration.load([VARIANT])
    agent = configuration.build(Experiment).agent
    learner, batch = Learner(agent), cast(Any, agent.environment)
    hand_written = HandWrittenActorCritic(batch.environment.environment, num_updates)

    def learn():
        learner.advance(num_updates)
        jax.block_until_ready(learner.state)

    ours, theirs = alternate(learn, hand_written.run, rounds)
    steps = num_updates * agent.steps_per_meta_step
    return _row('composition', 'environment steps/s', steps / ours, steps / theirs, theirs / ours)


def convolution(rounds: int) -> dict[str, Any]:
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
    our_time, their_time = alternate(ours, theirs, rounds)
    return _row('convolution', 'ms', 1e3 * our_time, 1e3 * their_time, their_time / our_time)


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of each, taken in turn, after one call of each that compiles."""
    ours(), theirs()
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(2 * rounds):
        start = time.perf_counter()
        (theirs if i % 2 else ours)()
        seconds[i % 2].append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _row(name: str, unit: str, ours: float, theirs: float, ratio: float) -> dict[str, Any]:
    return {
        'benchmark': name,
        'unit': unit,
        'project': f'{ours:.4g}',
        'by hand': f'{theirs:.4g}',
        'ratio': f'{ratio:.3f}',
        'device': jax.devices()[0].device_kind,
    }


class HandWrittenActorCritic:
    """The agent of gin/snake/actor_critic.gin as one function, with nothing that could be exchanged.

    Args:
      environment: jumanji's Snake.
      num_updates: updates in a `run`.
    """

    def __init__(self, environment: Any, num_updates: int):
        reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)
        network: Any = hk.without_apply_rng(hk.transform(_snake_network))
        optimiser = optax.rmsprop(5e-4, decay=0.9)
        num_envs, unroll_length = 512, 5
        lambda_returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None), out_axes=1)

        def act(params, carry, key):
            state, board = carry
            action_key, reset_key = jax.random.split(key)
            action = jax.random.categorical(action_key, network.apply(params, board)[0])
            stepped, timestep = step(state, action)
            fresh, first = reset(jax.random.split(reset_key, num_envs))

            def select(x, y):
                return jnp.where(timestep.last().reshape(-1, *[1] * (x.ndim - 1)), x, y)

            carry = jax.tree.map(select, (fresh, first.observation.grid), (stepped, timestep.observation.grid))
            ended = timestep.last().sum()
            return carry, (board, action, timestep.reward, timestep.discount, ended)

        def loss(params, boards, actions, rewards, discounts):
            logits, values = jax.tree.map(
                lambda x: x.reshape(unroll_length + 1, num_envs, -1),
                network.apply(params, boards.reshape(-1, *boards.shape[2:])),
            )
            values = values[..., 0]
            targets = jax.lax.stop_gradient(lambda_returns(rewards, 0.8 * discounts, values[1:], 0.95))
            log_pi = jax.nn.log_softmax(logits[:-1])
            log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
            policy = -(log_prob * jax.lax.stop_gradient(targets - values[:-1])).mean()
            value = jnp.square(targets - values[:-1]).mean()
            entropy = -(jnp.exp(log_pi) * log_pi).sum(-1).mean()
            return policy + 0.5 * value - 0.01 * entropy

        def update(carry, key):
            params, opt_state, actor = carry
            actor, (boards, actions, rewards, discounts, ended) = jax.lax.scan(
                lambda actor, key: act(params, actor, key), actor, jax.random.split(key, unroll_length)
            )
            boards = jnp.concatenate([boards, actor[1][None]])
            gradient = jax.grad(loss)(params, boards, actions, rewards, discounts)
            updates, opt_state = optimiser.update(gradient, opt_state)
            return (optax.apply_updates(params, updates), opt_state, actor), (rewards.sum(), ended.sum())

        def run(carry, key):
            carry, (rewards, ended) = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
            return carry, rewards.sum() / ended.sum()

        key = jax.random.key(0)
        state, timestep = reset(jax.random.split(key, num_envs))
        params = network.init(key, timestep.observation.grid)
        carry = (params, optimiser.init(params), (state, timestep.observation.grid))
        self._carry = jax.tree.map(jnp.copy, carry)  # Donated: no buffer may be in it twice.
        self._run = jax.jit(run, donate_argnums=0)
        self._key = key

    def run(self) -> float:
        """Trains for `num_updates`; mean reward per episode."""
        self._key, key = jax.random.split(self._key)
        self._carry, episode_return = self._run(self._carry, key)
        return float(jax.block_until_ready((self._carry, episode_return))[1])


def _snake_network(boards):
    """Logits and values of Snake boards `[N, 6, 6, 5]`."""

    def torso(sizes):
        x = jax.nn.relu(Convolution2D(32, 2, 2, 'SAME')(boards))
        x = jax.nn.relu(Convolution2D(32, 2, 1, 'SAME')(x))
        return hk.nets.MLP(sizes, activate_final=True)(hk.Flatten()(x))

    return hk.Linear(4)(torso((64, 64))), hk.Linear(1)(torso((128, 128)))


if __name__ == '__main__':
    main()
