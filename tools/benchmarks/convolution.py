"""What the form of a torso's convolution costs: patches times a matrix against haiku's."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from components.networks.convolutions import Convolution2D
from tools.benchmarks.measure import Row, alternate, row


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
    mine, its = (1e3 * seconds for seconds in alternate([ours, theirs], rounds))
    return [row('convolution', 'hk.Conv2D', 'ms', mine, its, its / mine)]
