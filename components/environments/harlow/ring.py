"""Harlow's task on a ring of cells, where objects are selected by looking at them."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import AtLeastTwo, NonNegativeInt, PositiveInt, component
from components.environments.base import make_timestep
from components.environments.harlow.common import FIXATION_REWARD, draw_pair, left_and_right, object_vectors
from components.types import Array

# Of the task on a ring, in cells.
_RING_SIZE, _OBJECT_CELL = 17, 3
_IN_SIGHT = np.arange(-4, 5, dtype=np.int32)


class RingHarlowState(NamedTuple):
    """State of a `RingHarlow`; see the package's docstring for the last three attributes.

    Attributes:
      gaze: cell that one looks at, counted to the right from where the target is: -8 to 8. int32 scalar.
      objects: number of the episode's rewarded object, and of the other one. int32 `[2]`.
      rewarded_right: whether the trial has the rewarded one on the right. Bool scalar.
      choosing: whether the objects are there, and not the target. Bool scalar.
      num_steps: of the episode so far. int32 scalar.
      trial: int32 scalar.
      selected: bool scalar.
      correct: bool scalar.
    """

    gaze: Array
    objects: Array
    rewarded_right: Array
    choosing: Array
    num_steps: Array
    trial: Array
    selected: Array
    correct: Array


@component
class RingHarlow:
    """Harlow's task on a ring of 17 cells, of which those around one's gaze are seen, as a pure-JAX `Environment`.

    A trial begins with a target in one cell. Looking at it pays +.2, and two objects take its place, three cells to its
    left and to its right. Looking at one selects it, and the next trial begins. Actions move the gaze left, right or
    not at all (0 to 2), by one cell. An episode starts one to three cells beside the target, and terminates with its
    last trial or after `max_steps`.

    Observations are float32 `[9 * (1 + object_size)]`: from the fourth cell on the left of the gaze to the fourth on
    its right, 1 for the target, and then the object's vector, zeros where there is none.

    Args:
      num_trials: trials of an episode, at least 1.
      num_objects: as of `SymbolicHarlow`, whose objects these are; so are the next two and the last two.
      first_object: likewise.
      object_size: likewise.
      max_steps: of an episode, at least 1.
      shuffle_rewards: whether a coin decides which object pays (see the package's docstring).
      seed: of the vectors.

    Raises:
      ValueError: if a number is not as above.

    Source: the public repository BKHMSI/Meta-RL-Harlow, its one-dimensional variant, for cells, rewards, 6 trials and
    250 steps. There an object is one number.
    """

    num_trials: PositiveInt = 6
    num_objects: AtLeastTwo = 1000
    first_object: NonNegativeInt = 0
    object_size: PositiveInt = 16
    max_steps: PositiveInt = 250
    shuffle_rewards: bool = False
    seed: NonNegativeInt = 0

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=specs.Array((len(_IN_SIGHT) * (1 + self.object_size),), np.float32, 'cells'),
            actions=specs.DiscreteArray(3, name='action'),
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[RingHarlowState, dm_env.TimeStep]:
        pair_key, side_key, gaze_key = jax.random.split(key, 3)
        none, no = jnp.int32(0), jnp.zeros((), bool)
        state = RingHarlowState(
            gaze=jax.random.choice(gaze_key, jnp.array([-3, -2, -1, 1, 2, 3], jnp.int32)),
            objects=draw_pair(pair_key, self.first_object, self.num_objects),
            rewarded_right=jax.random.bernoulli(side_key),
            **dict(choosing=no, num_steps=none, trial=none, selected=no, correct=no),
        )
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: RingHarlowState, action: Array, key: Array) -> tuple[RingHarlowState, dm_env.TimeStep]:
        side_key, coin_key = jax.random.split(key)
        gaze = _on_ring(state.gaze + jnp.asarray([-1, 1, 0], jnp.int32)[action])
        fixated = ~state.choosing & (gaze == 0)
        selected = state.choosing & (abs(gaze) == _OBJECT_CELL)
        correct = selected & ((gaze > 0) == state.rewarded_right)
        state = state._replace(
            gaze=gaze,
            rewarded_right=jnp.where(selected, jax.random.bernoulli(side_key), state.rewarded_right),
            choosing=(state.choosing | fixated) & ~selected,
            num_steps=state.num_steps + 1,
            trial=state.trial + selected,
            selected=selected,
            correct=correct,
        )
        pays = jax.random.bernoulli(coin_key) if self.shuffle_rewards else correct
        reward = FIXATION_REWARD * fixated + jnp.where(selected, jnp.where(pays, 1, -1), 0)
        last = (state.trial >= self.num_trials) | (state.num_steps >= self.max_steps)
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: RingHarlowState) -> Array:
        cells = _on_ring(state.gaze + _IN_SIGHT)
        is_target = (cells == 0) & ~state.choosing
        is_object = (cells[:, None] == np.array([-_OBJECT_CELL, _OBJECT_CELL])) & state.choosing
        shown_objects = left_and_right(state.objects, state.rewarded_right)
        vectors = object_vectors(shown_objects, self.object_size, self.seed)
        shown = jnp.where(is_object[..., None], vectors, 0).sum(1)
        return jnp.concatenate([is_target.astype(jnp.float32)[:, None], shown], axis=1).reshape(-1)


def _on_ring(cell: Array) -> Array:
    """Cells in [-8, 8]."""
    return (cell + _RING_SIZE // 2) % _RING_SIZE - _RING_SIZE // 2
