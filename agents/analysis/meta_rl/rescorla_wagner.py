"""Maximum-likelihood fits of Rescorla-Wagner models to bandit choices, compared by BIC.

Models of behaviour are fitted to recorded episodes. In all of them the value of the arm that was pulled goes a fixed
part of the way to what it paid, and arms are drawn from a softmax, or now and then at random:

    Q_a += learning_rate * (reward - Q_a), from 0.5 on in every episode
    P(a) = (1 - lapse) * softmax(inverse_temperature * Q)_a + lapse / A

Source: Wang et al. (2016) for the four models, the values that are held fixed (learning rate 0.5, no lapses) and the
comparison by the Bayesian information criterion. The ranges and how they are searched are this project's choice.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from components.component import UnitInterval, component
from components.types import Array


class Parameters(NamedTuple):
    """Of a model of behaviour; scalars.

    Attributes:
      learning_rate: in [0, 1].
      inverse_temperature: from 0.01 to 100 where it is fitted.
      lapse: probability that an arm is pulled whatever the values say, in [0, 1].
    """

    learning_rate: Array | float
    inverse_temperature: Array | float
    lapse: Array | float


class Fit(NamedTuple):
    """What a model came to when it was fitted to a block of episodes; leaves `[M]` for `M` blocks.

    Attributes:
      parameters: of the highest likelihood.
      log_likelihood: of all choices of the block.
      bic: the Bayesian information criterion, log(choices) * free parameters - 2 * log-likelihood: lower is better.
    """

    parameters: Parameters
    log_likelihood: Array
    bic: Array


@component
class Model:
    """Which parameters are fitted beside the inverse temperature, which always is.

    Args:
      learning_rate: None to fit it; else the value that it is held at, in [0, 1].
      lapse: likewise.

    Raises:
      ValueError: if a value is not in [0, 1].
    """

    learning_rate: UnitInterval | None = 0.5
    lapse: UnitInterval | None = 0.0

    @property
    def num_parameters(self) -> int:
        """How many are fitted."""
        return 1 + (self.learning_rate is None) + (self.lapse is None)


MODELS: Mapping[str, Model] = {
    'b': Model(),
    'ab': Model(learning_rate=None),
    'be': Model(lapse=None),
    'abe': Model(learning_rate=None, lapse=None),
}
"""The four models by their free parameters: a learning rate (alpha), inverse temperature (beta), lapse (epsilon)."""


def log_likelihood(arms: Array, rewards: Array, parameters: Parameters, num_arms: int = 2) -> Array:
    """Logarithm of the probability of all choices, given what they paid.

    Args:
      arms: that were pulled. int `[N, T]`, from 0 to `num_arms - 1`.
      rewards: that they paid. `[N, T]`.
      parameters: of the model.
      num_arms: `A`.

    Returns:
      Scalar.
    """
    log_attentive, log_lapsed = jnp.log1p(-jnp.asarray(parameters.lapse)), jnp.log(parameters.lapse / num_arms)

    def pull(values: Array, arm_and_reward: tuple[Array, Array]) -> tuple[Array, Array]:
        arm, reward = arm_and_reward
        is_arm = jnp.arange(num_arms) == arm[:, None]
        log_softmax = jax.nn.log_softmax(parameters.inverse_temperature * values)
        chosen = jnp.sum(jnp.where(is_arm, log_softmax, 0), axis=1)
        moved = values + parameters.learning_rate * (reward[:, None] - values)
        return jnp.where(is_arm, moved, values), jnp.logaddexp(log_attentive + chosen, log_lapsed)

    values = jnp.full((len(arms), num_arms), 0.5)
    return jnp.sum(jax.lax.scan(pull, values, (arms.T, rewards.T))[1])


def fit(arms: Array, rewards: Array, model: Model, num_arms: int = 2) -> Fit:
    """Finds a model's parameters of the highest likelihood for each of `M` blocks of episodes: on a grid, then nearby.

    Args:
      arms: that were pulled, of `N` episodes in each block. int `[M, N, T]`.
      rewards: that they paid. `[M, N, T]`.
      model: that is fitted.
      num_arms: `A`.

    Returns:
      The fit of each block, leaves `[M]`.

    Raises:
      ValueError: if `arms` and `rewards` are not both `[M, N, T]`.
    """
    if arms.ndim != 3 or arms.shape != rewards.shape:
        raise ValueError(f'fit needs arms and rewards [M, N, T], got {list(arms.shape)} and {list(rewards.shape)}')
    return _fit(jnp.asarray(arms), jnp.asarray(rewards), model, num_arms)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _fit(arms: Array, rewards: Array, model: Model, num_arms: int) -> Fit:
    # A point has a coordinate for each parameter; the inverse temperature's is its logarithm.
    axes = [
        np.linspace(0.025, 1, 40) if model.learning_rate is None else [model.learning_rate],
        np.log(np.geomspace(0.1, 100, 13)),
        np.linspace(0, 0.5, 6) if model.lapse is None else [model.lapse],
    ]
    lowest, highest = np.array([0, math.log(0.01), 0]), np.array([1, math.log(100), 1])
    # The point itself and all that are one step of the grid away from it in any of the free coordinates.
    offsets = [[0.0] if len(axis) == 1 else [0.0, axis[1] - axis[0], axis[0] - axis[1]] for axis in axes]
    neighbours = np.array([*itertools.product(*offsets)])

    def parameters_at(point: Array) -> Parameters:
        return Parameters(point[0], jnp.exp(point[1]), point[2])

    def fit_block(arms: Array, rewards: Array) -> Fit:
        likelihood = jax.vmap(lambda point: log_likelihood(arms, rewards, parameters_at(point), num_arms))

        def search(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            point, size = carry
            points = jnp.clip(point + size * neighbours, lowest, highest)
            best = jnp.argmax(likelihood(points))
            return points[best], jnp.where(best == 0, size / 2, size)

        grid = jnp.array([*itertools.product(*axes)])
        start = grid[jnp.argmax(likelihood(grid))]
        point, _ = jax.lax.fori_loop(0, 30, search, (start, jnp.ones(())))
        best = likelihood(point[None])[0]
        return Fit(parameters_at(point), best, math.log(arms.size) * model.num_parameters - 2 * best)

    return jax.lax.map(lambda block: fit_block(*block), (arms, rewards))
