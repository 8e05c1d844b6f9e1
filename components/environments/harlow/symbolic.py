"""Harlow's task with vectors as objects, selected by an action."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import AtLeastTwo, NonNegativeInt, PositiveInt, component
from components.environments.base import make_timestep
from components.environments.harlow.common import draw_pair, left_and_right, object_vectors
from components.types import Array


class SymbolicHarlowState(NamedTuple):
    """State of a `SymbolicHarlow`; see the package's docstring for the last three attributes.

    Attributes:
      objects: number of the episode's rewarded object, and of the other one. int32 `[2]`.
      rewarded_right: whether the trial shows the rewarded one on the right. Bool scalar.
      shown: whether this timestep shows the objects. Bool scalar.
      trial: int32 scalar.
      selected: bool scalar.
      correct: bool scalar.
    """

    objects: Array
    rewarded_right: Array
    shown: Array
    trial: Array
    selected: Array
    correct: Array


@component
class SymbolicHarlow:
    """Harlow's task with random vectors as objects, as a pure-JAX `Environment`: one decision a trial.

    Action 0 selects the object on the left, 1 the one on the right. Observations are float32 `[2 * object_size]`: the
    vector of the object on the left, then that of the one on the right; zeros where an episode ends. An episode
    terminates with its last trial.

    Args:
      num_trials: trials of an episode, at least 1.
      num_objects: objects that pairs are drawn from, at least 2.
      first_object: number of the first of them, at least 0. An object has the same vector in every episode, told by its
        number: with 0 for training and 1,000 for held-out objects, pools of 1,000 have none in common.
      object_size: length of a vector, whose entries are drawn from a standard normal distribution; at least 1.
      fixation: whether each trial begins with a step that shows zeros and in which any action does nothing.
      shuffle_rewards: whether a coin decides what pays (see the package's docstring).
      seed: of the vectors.

    Raises:
      ValueError: if a number is not as above.
    """

    num_trials: PositiveInt = 10
    num_objects: AtLeastTwo = 1000
    first_object: NonNegativeInt = 0
    object_size: PositiveInt = 16
    fixation: bool = False
    shuffle_rewards: bool = False
    seed: NonNegativeInt = 0

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=specs.Array((2 * self.object_size,), np.float32, 'objects'),
            actions=specs.DiscreteArray(2, name='action'),
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[SymbolicHarlowState, dm_env.TimeStep]:
        pair_key, side_key = jax.random.split(key)
        objects = draw_pair(pair_key, self.first_object, self.num_objects)
        no, shown = jnp.zeros((), bool), jnp.asarray(not self.fixation)
        state = SymbolicHarlowState(objects, jax.random.bernoulli(side_key), shown, jnp.int32(0), no, no)
        return state, make_timestep(self._observe(state), first=True)

    def step(
        self, state: SymbolicHarlowState, action: Array, key: Array
    ) -> tuple[SymbolicHarlowState, dm_env.TimeStep]:
        side_key, coin_key = jax.random.split(key)
        selected = state.shown
        correct = selected & ((action == 1) == state.rewarded_right)
        trial = state.trial + selected
        last = trial == self.num_trials
        state = state._replace(
            rewarded_right=jnp.where(selected, jax.random.bernoulli(side_key), state.rewarded_right),
            shown=(~selected if self.fixation else jnp.ones_like(selected)) & ~last,
            trial=trial,
            selected=selected,
            correct=correct,
        )
        pays = jax.random.bernoulli(coin_key) if self.shuffle_rewards else correct
        reward = jnp.where(selected, jnp.where(pays, 1, -1), 0)
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: SymbolicHarlowState) -> Array:
        shown_objects = left_and_right(state.objects, state.rewarded_right)
        vectors = object_vectors(shown_objects, self.object_size, self.seed)
        return jnp.where(state.shown, vectors.reshape(-1), 0)
