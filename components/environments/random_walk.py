"""The random walk: states in a row, both ends terminate, and what the right end pays changes its sign now and then.

Prediction is the usual task: how well does an agent track the values of a fixed policy as they change? `values` has the
exact ones to compare with.

Source: Xu et al. (2020) for the size, the start, the ends and the period, as remembered: this project's choice where
that errs. That the left end pays 0 and that a lifetime begins with +1 are this project's choice.
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


class RandomWalkState(NamedTuple):
    """State of a `RandomWalk`.

    Attributes:
      position: state of the walk, from the left, counted from 0; -1 and `num_states` are the ends. int32 scalar.
      num_env_steps: environment steps of the lifetime so far, over all its episodes. int32 scalar.
    """

    position: Array
    num_env_steps: Array


@component
class RandomWalk:
    """A random walk as a pure-JAX `Environment`, `Lifelong`: its clock runs on over episodes.

    An episode starts in the centre (of an even number of states, right of it). Action 0 moves left, 1 right. Leaving
    the row terminates the episode: on the left with reward 0, on the right with +1 or -1; all other rewards are 0.
    Observations are one-hot float32 `[num_states]`, all zeros at the ends, and do not tell the sign.

    Args:
      num_states: states between the ends, at least 1.
      switch_every: environment steps of a lifetime after which the sign of the right end's reward flips, again and
        again; it is +1 at first. None or 0: never.

    Raises:
      ValueError: if `num_states` < 1 or `switch_every` < 0.
    """

    num_states: PositiveInt = 5
    switch_every: NonNegativeInt | None = 960

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray((self.num_states,), np.float32, 0.0, 1.0, 'state'),
            actions=specs.DiscreteArray(2, name='action'),
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[RandomWalkState, dm_env.TimeStep]:
        del key  # A lifetime, like an episode, starts without chance.
        return self._start(jnp.int32(0))

    def restart(self, state: RandomWalkState, key: Array) -> tuple[RandomWalkState, dm_env.TimeStep]:
        del key
        return self._start(state.num_env_steps)

    def step(self, state: RandomWalkState, action: Array, key: Array) -> tuple[RandomWalkState, dm_env.TimeStep]:
        del key  # All chance is the policy's.
        position = state.position + jnp.where(action == 1, 1, -1)
        right = position == self.num_states
        last = (position < 0) | right
        reward = jnp.where(right, self.sign(state), 0)
        state = RandomWalkState(position, state.num_env_steps + 1)
        return state, make_timestep(self._observe(position), reward, jnp.where(last, 0, 1), last=last)

    def sign(self, state: RandomWalkState) -> Array:
        """What the right end pays to a transition from a state: +1 or -1, in the shape of its leaves."""
        if not self.switch_every:
            return jnp.ones_like(state.num_env_steps, jnp.float32)
        return jnp.where(state.num_env_steps // self.switch_every % 2 == 0, 1.0, -1.0)

    def values(self, state: RandomWalkState, probability_right: Array | float = 0.5, discount: float = 1.0) -> Array:
        """Exact values of a policy, as if the sign of the right end's reward stayed what it is in `state`.

        Args:
          state: whose sign is meant; leaves `[...]`, a batch's say.
          probability_right: the policy's probability of action 1: one for all states, or `[num_states]`.
          discount: of the values, in [0, 1].

        Returns:
          Values of the states from left to right, `[..., num_states]`. With discount 1 and probability 0.5 they are
          those of Sutton & Barto (2018, example 6.2): 1/6, 2/6, ... for five states and a sign of +1.
        """
        right = jnp.broadcast_to(jnp.asarray(probability_right, jnp.result_type(float)), self.num_states)
        transitions = jnp.diag(right[:-1], 1) + jnp.diag(1 - right[1:], -1)
        rewards = right * (jnp.arange(self.num_states) == self.num_states - 1)
        values = jnp.linalg.solve(jnp.eye(self.num_states) - discount * transitions, rewards)
        return self.sign(state)[..., None] * values

    def _start(self, num_env_steps: Array) -> tuple[RandomWalkState, dm_env.TimeStep]:
        position = jnp.int32(self.num_states // 2)
        return RandomWalkState(position, num_env_steps), make_timestep(self._observe(position), first=True)

    def _observe(self, position: Array) -> Array:
        return jax.nn.one_hot(position, self.num_states, dtype=jnp.float32)
