"""Step weights: a mixture of the outer losses after each of `K` inner steps.

With g_k the derivative of the outer loss after k updates, the meta-gradient is sum_k w_k g_k, from one unroll and one
backward pass. A longer horizon has less bias and more variance; a mixture trades one for the other. The definitions are
this project's: Bonnet et al. (2021) report such a mixture on Snake but not its formula.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from components.component import UnitInterval, component


class StepWeights(Protocol):
    """A frozen dataclass whose weights are constants."""

    def __call__(self, num_inner_steps: int) -> Float[np.ndarray, ' K']:
        """Weights w_1 to w_K.

        Raises:
          ValueError: if there are none for that `K`.
        """
        ...


@component
class LastStep:
    """w_K = 1: the plain K-step meta-gradient."""

    def __call__(self, num_inner_steps: int) -> np.ndarray:
        return np.eye(num_inner_steps)[-1]


@component
class Uniform:
    """w_k = 1/K."""

    def __call__(self, num_inner_steps: int) -> np.ndarray:
        return np.full(num_inner_steps, 1 / num_inner_steps)


@component
class Geometric:
    """w_k proportional to decay^(k-1), with sum 1. 0 is the one-step meta-gradient, 1 the uniform mixture.

    Args:
      decay: in [0, 1].

    Raises:
      ValueError: if it is not.
    """

    decay: UnitInterval = 0.9

    def __call__(self, num_inner_steps: int) -> np.ndarray:
        weights = float(self.decay) ** np.arange(num_inner_steps)
        return weights / weights.sum()


@component
class Lambda:
    """w_k = (1 - lambda) lambda^(k-1) for k < K and lambda^(K-1) for K, as in a lambda-return.

    0 is the one-step meta-gradient, 1 the plain K-step one.

    Args:
      lambda_: in [0, 1].

    Raises:
      ValueError: if it is not.
    """

    lambda_: UnitInterval = 0.9

    def __call__(self, num_inner_steps: int) -> np.ndarray:
        powers = float(self.lambda_) ** np.arange(num_inner_steps)
        return np.append((1 - self.lambda_) * powers[:-1], powers[-1])


@component
class Explicit:
    """The weights as they are given; they need not add up to 1.

    Args:
      weights: w_1 to w_K.

    Raises:
      ValueError: if all are zero; when used, if there are not `K` of them.
    """

    weights: Sequence[float]

    def __post_init__(self) -> None:
        if not np.any(self.weights):
            raise ValueError(f'Explicit.weights are all zero: {self.weights}')

    def __call__(self, num_inner_steps: int) -> np.ndarray:
        if len(self.weights) != num_inner_steps:
            raise ValueError(f'Explicit.weights has {len(self.weights)} entries for {num_inner_steps} inner steps')
        return np.asarray(self.weights, float)
