"""The delayed chain: the first action of an episode alone decides what its last step pays.

Source: Oh et al. (2020) for the binary first action, the terminal reward of +1 or -1, a length that a lifetime draws
from 5 to 30 (short) or 5 to 50 (long), noisy rewards of +1 or -1, and 20 distracting bits. When the noise comes, that
the bits are redrawn at every step, and that a lifetime also draws which action is the good one, are this project's
choice.
"""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import NonNegativeInt, PositiveInt, component
from components.environments.base import make_timestep
from components.types import Array


class DelayedChainState(NamedTuple):
    """State of a `DelayedChain`.

    Attributes:
      position: steps of the episode so far. int32 scalar.
      first_action: of the episode; 0 before it. int32 scalar.
      length: steps of every episode of the lifetime. int32 scalar.
      good_action: first action that the lifetime's episodes reward with +1. int32 scalar.
    """

    position: Array
    first_action: Array
    length: Array
    good_action: Array


@component
class DelayedChain:
    """The delayed chain as a pure-JAX `Environment`, `Lifelong`: a lifetime draws its length and its good action.

    An episode terminates after `length` steps with reward +1 if its first action was the good one, else -1. No other
    action matters. Observations are float32 `[2 * max_length + num_distractors]`: the entry `first_action * max_length
    + position` is 1 (none where the episode ends), then the bits, 0 or 1.

    Args:
      min_length: shortest length of an episode in steps, at least 1.
      max_length: longest, `min_length` or more. A lifetime's length is uniform over these and all between.
      noisy_rewards: whether every step but an episode's last pays +1 or -1, with equal probability, instead of 0.
      num_distractors: bits of an observation that are redrawn at every step and carry no information.

    Raises:
      ValueError: if a length or `num_distractors` is not as above.
    """

    min_length: PositiveInt = 5
    max_length: PositiveInt = 30
    noisy_rewards: bool = False
    num_distractors: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if self.max_length < self.min_length:
            raise ValueError(
                f'DelayedChain.max_length must be at least min_length = {self.min_length}, got {self.max_length}'
            )

    def spec(self) -> specs.EnvironmentSpec:
        shape = (2 * self.max_length + self.num_distractors,)
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray(shape, np.float32, 0.0, 1.0, 'position'),
            actions=specs.DiscreteArray(2, name='action'),
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[DelayedChainState, dm_env.TimeStep]:
        length_key, action_key, key = jax.random.split(key, 3)
        length = jax.random.randint(length_key, (), self.min_length, self.max_length + 1, jnp.int32)
        return self._start(length, jax.random.randint(action_key, (), 0, 2, jnp.int32), key)

    def restart(self, state: DelayedChainState, key: Array) -> tuple[DelayedChainState, dm_env.TimeStep]:
        return self._start(state.length, state.good_action, key)

    def step(self, state: DelayedChainState, action: Array, key: Array) -> tuple[DelayedChainState, dm_env.TimeStep]:
        reward_key, key = jax.random.split(key)
        first_action = jnp.where(state.position == 0, action, state.first_action).astype(jnp.int32)
        state = state._replace(position=state.position + 1, first_action=first_action)
        last = state.position == state.length
        noise = jnp.where(jax.random.bernoulli(reward_key), 1, -1) if self.noisy_rewards else 0
        reward = jnp.where(last, jnp.where(first_action == state.good_action, 1, -1), noise)
        return state, make_timestep(self._observe(state, key), reward, jnp.where(last, 0, 1), last=last)

    def _start(self, length: Array, good_action: Array, key: Array) -> tuple[DelayedChainState, dm_env.TimeStep]:
        state = DelayedChainState(jnp.int32(0), jnp.int32(0), length, good_action)
        return state, make_timestep(self._observe(state, key), first=True)

    def _observe(self, state: DelayedChainState, key: Array) -> Array:
        index = state.first_action * self.max_length + state.position
        one_hot = jax.nn.one_hot(index, 2 * self.max_length, dtype=jnp.float32) * (state.position < state.length)
        bits = jax.random.bernoulli(key, shape=(self.num_distractors,))
        return jnp.concatenate([one_hot, bits.astype(jnp.float32)])
