"""Reward transforms: from the rewards of an environment to those that are learned from.

A trajectory holds transformed rewards, so that the inner and the outer objective, learned returns and recorded
trajectories see the same ones. `episode_return` stays the sum of the environment's own, in training and in evaluation,
and so does what an environment shows of the past (`wrappers.PreviousReward`), as that is part of its observation.
"""

from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Float

from components.component import component
from components.shapes import checked
from components.types import Array


class RewardTransform(Protocol):
    """A frozen dataclass: a function of one reward at a time, which is not learned."""

    def __call__(self, reward: Float[Array, ' B']) -> Float[Array, ' B']:
        """Transforms the rewards of one step; 0 where an environment restarts."""
        ...


@component
class Raw:
    """Rewards as the environment pays them."""

    def __call__(self, reward: Array) -> Array:
        return reward


@component
class Clipped:
    """Rewards clipped to an interval: in games, whatever the size of their scores, good and bad events count the same.

    Args:
      low: least reward.
      high: greatest reward.

    Raises:
      ValueError: unless `low` < `high`.

    Source: Mnih et al. (2015), to [-1, 1].
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f'Clipped.low must be below Clipped.high, got {self.low} and {self.high}')

    def __call__(self, reward: Array) -> Array:
        return jnp.clip(reward, self.low, self.high)


@component
class SignedLog:
    """sign(r) log(1 + |r|): small rewards stay about what they are, large ones keep their order.

    Source: Hafner et al. (2023), symlog.
    """

    def __call__(self, reward: Array) -> Array:
        return jnp.sign(reward) * jnp.log1p(jnp.abs(reward))


transform_rewards = checked(RewardTransform.__call__)
"""Calls a transform; one that returns another shape, or integers, is a CompositionError."""
