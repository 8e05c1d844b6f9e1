"""The two-step task: what a choice leads to is uncertain, and of two places it leads to, one pays more.

Who knows how choices lead to places, and learns which place pays, chooses otherwise after a rare transition than who
repeats what was rewarded: the probabilities of repeating a choice tell one from the other.

Source: Wang et al. (2016) for the two stages and their probabilities, with a paying place that an episode keeps; Wang
et al. (2018) for one that switches (probability 0.025, 100 trials, common transitions with 0.8). That the paying place
may switch before every trial but the first is this project's choice.
"""

from typing import Annotated, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import Interval, PositiveInt, UnitInterval, component
from components.environments.base import make_timestep
from components.types import Array


class TwoStepState(NamedTuple):
    """State of a `TwoStep`.

    Attributes:
      time: steps of the episode so far; even at the first stage of a trial, odd at the second. int32 scalar.
      place: 0 at the first stage, 1 or 2 at the second. int32 scalar.
      paying: the place, 1 or 2, that pays with the higher probability in this trial. int32 scalar.
      common: whether the latest transition to a second stage was the common one; False before the first. Bool scalar.
    """

    time: Array
    place: Array
    paying: Array
    common: Array


@component
class TwoStep:
    """The two-step task as a pure-JAX `Environment`: every episode draws which place pays.

    A trial is two steps. The first action, 0 or 1, leads to place 1 or 2: commonly to `action + 1`, else to the other
    one, with reward 0. The second action means nothing: it pays 1 with a probability that depends on the place, else 0,
    and leads back. The episode terminates after `num_trials` trials. Observations are one-hot float32 `[3]`: which
    place it is, 0 being the first stage.

    Args:
      num_trials: of an episode, at least 1.
      common_probability: of the common transition, in [0.5, 1].
      reward_probability: that the paying place pays, in [0.5, 1]; the other one pays with what is left to 1.
      switch_probability: that the other place becomes the paying one before a trial that is not the first, in [0, 1].

    Raises:
      ValueError: if an argument is not as above.
    """

    num_trials: PositiveInt = 10
    common_probability: Annotated[float, Interval(0.5, 1)] = 0.75
    reward_probability: Annotated[float, Interval(0.5, 1)] = 0.9
    switch_probability: UnitInterval = 0.0

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray((3,), np.float32, 0.0, 1.0, 'place'),
            actions=specs.DiscreteArray(2, name='action'),
            rewards=specs.BoundedArray((), np.float32, 0.0, 1.0, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[TwoStepState, dm_env.TimeStep]:
        paying = jax.random.randint(key, (), 1, 3, jnp.int32)
        state = TwoStepState(jnp.int32(0), jnp.int32(0), paying, jnp.array(False))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: TwoStepState, action: Array, key: Array) -> tuple[TwoStepState, dm_env.TimeStep]:
        first_stage = state.time % 2 == 0
        transition_key, reward_key, switch_key = jax.random.split(key, 3)
        drawn = jax.random.bernoulli(transition_key, self.common_probability)
        probability = jnp.where(state.place == state.paying, self.reward_probability, 1 - self.reward_probability)
        reward = ~first_stage & jax.random.bernoulli(reward_key, probability)
        switches = ~first_stage & jax.random.bernoulli(switch_key, self.switch_probability)
        state = TwoStepState(
            time=state.time + 1,
            place=jnp.where(first_stage, jnp.where(drawn, action + 1, 2 - action), 0).astype(jnp.int32),
            paying=jnp.where(switches, 3 - state.paying, state.paying),
            common=jnp.where(first_stage, drawn, state.common),
        )
        last = state.time == 2 * self.num_trials
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: TwoStepState) -> Array:
        return jax.nn.one_hot(state.place, 3, dtype=jnp.float32)
