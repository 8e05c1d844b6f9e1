"""Harlow's task: of two objects never seen before, one is rewarded whenever it is chosen, and the other never.

An episode draws a pair of objects, and which of them is rewarded. In every trial they are shown side by side, on sides that
the trial draws, and one is selected: the rewarded one pays +1, the other -1. Nothing tells which is which before the first
selection, and the first selection tells all: who has learned what the episodes have in common is right half of the time in
the first trial and always from the second on.

The forms of the task, `SymbolicHarlow`, `RingHarlow` and `Harlow`, differ in what an object is and in how it is selected. Their
states have three attributes in common, of which `performance_by_trial` makes the curve that the task is known for:

    trial      trials finished so far, which is the number, from 0, of the one that is going on. int32.
    selected   whether the step that led here selected an object, and so finished trial number `trial - 1`. Bool.
    correct    whether it was the rewarded one; False where none was selected. Bool.

A `Batch` has the state that the next episode starts with in the place of an episode's last one, where the last selection would
be told: who measures performance steps the environment itself.

As a control, `shuffle_rewards` has a coin of each trial choose what pays, whatever was selected; `correct` is still about the
object that the episode drew. No performance but one half is possible then.

Source: Harlow (1949); Wang et al. (2016) for the task on a screen, its angles, times and rewards, and the two
pools of 1,000 objects. Objects that are computed, where they took pictures, and the simpler forms are this project's.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import AtLeastTwo, NonNegativeInt, Positive, PositiveInt, component
from components.environments.base import Animator, make_timestep
from components.environments.views import SIZE, view_animator, view_spec
from components.types import Array

_FIXATION_REWARD = 0.2  # On the ring and on the screen.

# Of the task on a ring, in cells.
_RING_SIZE, _OBJECT_CELL = 17, 3
_IN_SIGHT = np.arange(-4, 5, dtype=np.int32)

# Of the task on a screen. Degrees and environment steps are those of the source.
_FIELD_OF_VIEW = 65.0  # Degrees; the screen is as wide.
_PIXEL = _FIELD_OF_VIEW / SIZE  # Degrees.
_IMAGE_SIZE = 34  # Pixels.
_IMAGE_YAW = 20.0  # Degrees from the centre of the screen to the centre of an image, on either side.
_SELECTING = 7.0  # Degrees, at most, from an image's centre to where one looks.
_FIXATING = 3.5  # Degrees, likewise, of the cross.
_FIXATION_STEPS, _INTERVAL_STEPS = 4, 10
_FIXATION, _CHOICE, _INTERVAL = range(3)
_NUM_WAVES = 6


class SymbolicHarlowState(NamedTuple):
    """State of a `SymbolicHarlow`; see the module's docstring for the last three attributes.

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
    """Harlow's task with random vectors as objects, as a pure-JAX `SingleEnvironment`: one decision a trial.

    Action 0 selects the object on the left, 1 the one on the right. Observations are float32 `[2 * object_size]`: the vector of
    the object on the left, then that of the one on the right; zeros where an episode ends. An episode terminates with its last
    trial.

    Args:
      num_trials: trials of an episode, at least 1.
      num_objects: objects that pairs are drawn from, at least 2.
      first_object: number of the first of them, at least 0. An object has the same vector in every episode, told by its
        number: with 0 for training and 1,000 for held-out objects, pools of 1,000 have none in common.
      object_size: length of a vector, whose entries are drawn from a standard normal distribution; at least 1.
      fixation: whether each trial begins with a step that shows zeros and in which any action does nothing.
      shuffle_rewards: whether a coin decides what pays (see the module's docstring).
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
        objects = _draw_pair(pair_key, self.first_object, self.num_objects)
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
        left_and_right = _left_and_right(state.objects, state.rewarded_right)
        vectors = object_vectors(left_and_right, self.object_size, self.seed)
        return jnp.where(state.shown, vectors.reshape(-1), 0)


class RingHarlowState(NamedTuple):
    """State of a `RingHarlow`; see the module's docstring for the last three attributes.

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
    """Harlow's task on a ring of 17 cells, of which those around one's gaze are seen, as a pure-JAX `SingleEnvironment`.

    A trial begins with a target in one cell. Looking at it pays +.2, and two objects take its place, three cells to its left and
    to its right. Looking at one selects it, and the next trial begins. Actions move the gaze left, right or not at all (0 to 2),
    by one cell. An episode starts one to three cells beside the target, and terminates with its last trial or after `max_steps`.

    Observations are float32 `[9 * (1 + object_size)]`: from the fourth cell on the left of the gaze to the fourth on its right,
    1 for the target, and then the object's vector, zeros where there is none.

    Args:
      num_trials: trials of an episode, at least 1.
      num_objects: as of `SymbolicHarlow`, whose objects these are; so are the next two and the last two.
      first_object: likewise.
      object_size: likewise.
      max_steps: of an episode, at least 1.
      shuffle_rewards: whether a coin decides which object pays (see the module's docstring).
      seed: of the vectors.

    Raises:
      ValueError: if a number is not as above.

    Source: the public repository BKHMSI/Meta-RL-Harlow, its one-dimensional variant, for cells, rewards, 6 trials and 250 steps.
    There an object is one number.
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
            objects=_draw_pair(pair_key, self.first_object, self.num_objects),
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
        reward = _FIXATION_REWARD * fixated + jnp.where(selected, jnp.where(pays, 1, -1), 0)
        last = (state.trial >= self.num_trials) | (state.num_steps >= self.max_steps)
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: RingHarlowState) -> Array:
        cells = _on_ring(state.gaze + _IN_SIGHT)
        is_target = (cells == 0) & ~state.choosing
        is_object = (cells[:, None] == np.array([-_OBJECT_CELL, _OBJECT_CELL])) & state.choosing
        left_and_right = _left_and_right(state.objects, state.rewarded_right)
        vectors = object_vectors(left_and_right, self.object_size, self.seed)
        shown = jnp.where(is_object[..., None], vectors, 0).sum(1)
        return jnp.concatenate([is_target.astype(jnp.float32)[:, None], shown], axis=1).reshape(-1)


class HarlowState(NamedTuple):
    """State of a `Harlow`; see the module's docstring for the last three attributes.

    Attributes:
      yaw: where one looks, in degrees right of the screen's centre, in [-180, 180). Scalar.
      velocity: degrees to the right in an agent's latest step. Scalar.
      phase: 0 while the cross is there, 1 while the images are, 2 while nothing is. int32 scalar.
      phase_steps: environment steps for which the cross has been held, or nothing has been there. int32 scalar.
      num_steps: environment steps of the episode so far. int32 scalar.
      images: number of the episode's rewarded image, and of the other one. int32 `[2]`.
      rewarded_right: whether the trial has the rewarded one on the right. Bool scalar.
      trial: int32 scalar.
      selected: bool scalar.
      correct: bool scalar.
    """

    yaw: Array
    velocity: Array
    phase: Array
    phase_steps: Array
    num_steps: Array
    images: Array
    rewarded_right: Array
    trial: Array
    selected: Array
    correct: Array


@component
class Harlow:
    """Harlow's task on a screen that is seen while turning one's head, as a pure-JAX `SingleEnvironment`.

    A trial begins with a cross in the screen's centre. Who looks at it, within 3.5 degrees, for 4 environment steps on end
    gets +.2, and two images of 34 x 34 pixels take its place, with centres 20 degrees to the left and to the right. Looking
    within 7 degrees of one's centre selects it. For 10 environment steps nothing is shown, and the next trial begins.

    Actions turn left, right, or leave it to the momentum (0 to 2); each is repeated for `action_repeat` environment steps,
    which make one step of the agent's. In it the velocity becomes half of what it was, and `turn` more or less. An episode
    starts looking at the cross, at rest; it terminates with the selection of its last trial, or with the step of the agent's in
    which it reaches `max_steps`.

    Observations are what is seen: 65 degrees, in 84 x 84 pixels (see `views`). All that is seen is upright, so that turning
    shifts columns, by whole pixels. The screen is 65 degrees wide, and what is left of it darker than what is right of it,
    so that who looks away can find the way back.

    Images are numbered, and each is a sum of six waves in each colour (see `image`), the same in every episode. No two of the
    2,000 of the default seed look alike: any two differ by more than .15 on average, of 1.

    Args:
      num_trials: trials of an episode, at least 1.
      num_images: images that pairs are drawn from, at least 2.
      first_image: number of the first of them, at least 0: 0 for training, and 1,000 for images that are held out, say.
      max_steps: environment steps of an episode, at least 1.
      action_repeat: environment steps to each of the agent's, at least 1.
      turn: degrees that an action adds to the velocity, per step of the agent's; more than 0. Whether the source's 4.4 are that
        or per environment step is unclear.
      shuffle_rewards: whether a coin decides which image pays (see the module's docstring).
      seed: of the images.

    Raises:
      ValueError: if a number is not as above.
    """

    num_trials: PositiveInt = 10
    num_images: AtLeastTwo = 1000
    first_image: NonNegativeInt = 0
    max_steps: PositiveInt = 3600
    action_repeat: PositiveInt = 4
    turn: Positive = 4.4
    shuffle_rewards: bool = False
    seed: NonNegativeInt = 0

    def spec(self) -> specs.EnvironmentSpec:
        return specs.EnvironmentSpec(
            observations=view_spec(),
            actions=specs.DiscreteArray(3, name='action'),
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0 + _FIXATION_REWARD, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[HarlowState, dm_env.TimeStep]:
        pair_key, side_key = jax.random.split(key)
        zero, none, no = jnp.zeros((), jnp.float32), jnp.int32(0), jnp.zeros((), bool)
        images = _draw_pair(pair_key, self.first_image, self.num_images)
        state = HarlowState(
            zero, zero, none, none, none, images, jax.random.bernoulli(side_key), trial=none, selected=no, correct=no
        )
        # Which images come is not to be seen yet: a view of no state in particular is drawn once for a whole batch.
        view = self.view(state._replace(images=jnp.zeros(2, jnp.int32), rewarded_right=no))
        return state, make_timestep(view, first=True)

    def step(self, state: HarlowState, action: Array, key: Array) -> tuple[HarlowState, dm_env.TimeStep]:
        side_key, coin_key = jax.random.split(key)
        direction = jnp.asarray([-1.0, 1.0, 0.0], jnp.float32)[action]
        no = jnp.zeros_like(state.selected)
        state = state._replace(
            velocity=state.velocity / 2 + jnp.float32(self.turn) * direction, selected=no, correct=no
        )
        pays = jax.random.bernoulli(coin_key) if self.shuffle_rewards else None
        reward = jnp.zeros((), jnp.float32)
        for _ in range(self.action_repeat):
            state, paid = self._environment_step(state, pays)
            reward += paid
        side = jax.random.bernoulli(side_key)
        state = state._replace(rewarded_right=jnp.where(state.selected, side, state.rewarded_right))
        last = (state.trial >= self.num_trials) | (state.num_steps >= self.max_steps)
        return state, make_timestep(self.view(state), reward, jnp.where(last, 0, 1), last=last)

    def image(self, number: Array) -> Array:
        """The image of a number, int32, as it is shown: float32 `[34, 34, 3]`, in (0, 1).

        At column x and row y, as parts of the image's side, a colour is
        sigmoid(sum over six waves of amplitude * cos(2 pi (f_x x + f_y y) + phase)),
        where amplitudes are normal, frequencies f uniform over the integers from 0 to 4, those of rows from -4 to 4, and
        phases uniform.
        """
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), number), 3)
        amplitudes = jax.random.normal(keys[0], (3, _NUM_WAVES), jnp.float32)
        least = np.array([0, -4]).reshape(2, 1, 1)
        frequencies = jax.random.randint(keys[1], (2, 3, _NUM_WAVES), least, 5, jnp.int32).astype(jnp.float32)
        phases = jax.random.uniform(keys[2], (3, _NUM_WAVES), jnp.float32, 0, 2 * np.pi)
        angles = 2 * np.pi / _IMAGE_SIZE * frequencies[..., None] * jnp.arange(_IMAGE_SIZE, dtype=jnp.float32)
        columns, rows, sizes = angles[0] + phases[..., None], angles[1], amplitudes[..., None]
        # The cosine of a sum of angles is a sum of products: each colour is one product of matrices.
        rows = jnp.concatenate([sizes * jnp.cos(rows), -sizes * jnp.sin(rows)], axis=1)
        columns = jnp.concatenate([jnp.cos(columns), jnp.sin(columns)], axis=1)
        waves = jnp.moveaxis(rows.mT @ columns, 0, -1)
        return jax.nn.sigmoid(waves)

    def view(self, state: HarlowState) -> Array:
        """What is seen in a state: float32 `[84, 84, 3]`."""
        # Columns of the panorama, with 0 the first one right of the screen's centre.
        columns = jnp.arange(SIZE) - SIZE // 2 + jnp.rint(state.yaw / _PIXEL).astype(jnp.int32)
        rows = np.arange(SIZE) - SIZE // 2
        on_screen = (columns >= -SIZE // 2) & (columns < SIZE // 2)
        shades = jnp.where(on_screen, 0.75, jnp.where(columns < 0, 0.25, 0.5)).astype(jnp.float32)
        view = jnp.broadcast_to(shades[:, None], (SIZE, SIZE, 3))
        band = self._band(state)
        inside = (columns >= -band.shape[1] // 2) & (columns < band.shape[1] // 2) & (state.phase == _CHOICE)
        band = band[:, jnp.clip(columns + band.shape[1] // 2, 0, band.shape[1] - 1)]
        top = (SIZE - _IMAGE_SIZE) // 2
        band = jnp.where(inside[:, None], band, view[top : top + _IMAGE_SIZE])
        view = view.at[top : top + _IMAGE_SIZE].set(band)
        near, far = (lambda x: (x >= -1) & (x < 1)), (lambda x: (x >= -5) & (x < 5))
        cross = (near(rows)[:, None] & far(columns)) | (far(rows)[:, None] & near(columns))
        return jnp.where((cross & (state.phase == _FIXATION))[..., None], jnp.float32([0.8, 0.1, 0.1]), view)

    def animator(self) -> Animator:
        return view_animator(self.view)

    def _environment_step(self, state: HarlowState, pays: Array | None) -> tuple[HarlowState, Array]:
        """One of an agent's step: the state, and its reward. `pays`: whether a selection does; None: if it is correct."""
        yaw = _wrap(state.yaw + state.velocity / self.action_repeat)
        held = (state.phase == _FIXATION) & (abs(yaw) <= _FIXATING)
        phase_steps = jnp.where(held | (state.phase == _INTERVAL), state.phase_steps + 1, 0)
        fixated = held & (phase_steps >= _FIXATION_STEPS)
        right = abs(yaw - _IMAGE_YAW) <= _SELECTING
        selected = (state.phase == _CHOICE) & (right | (abs(yaw + _IMAGE_YAW) <= _SELECTING))
        correct = selected & (right == state.rewarded_right)
        over = (state.phase == _INTERVAL) & (phase_steps >= _INTERVAL_STEPS)
        next_phase = jnp.where(over, _FIXATION, (state.phase + 1) % 3)
        changes = fixated | selected | over
        state = state._replace(
            yaw=yaw,
            phase=jnp.where(changes, next_phase, state.phase).astype(jnp.int32),
            phase_steps=jnp.where(changes, 0, phase_steps),
            num_steps=state.num_steps + 1,
            trial=state.trial + selected,
            selected=state.selected | selected,
            correct=state.correct | correct,
        )
        selection = jnp.where(selected, jnp.where(correct if pays is None else pays, 1, -1), 0)
        return state, _FIXATION_REWARD * fixated + selection

    def _band(self, state: HarlowState) -> Array:
        """Both images with the screen between them: `[34, an even number of columns, 3]`, around the centre."""
        left, right = jax.vmap(self.image)(_left_and_right(state.images, state.rewarded_right))
        gap = 2 * round(_IMAGE_YAW / _PIXEL) - _IMAGE_SIZE
        between = jnp.full((_IMAGE_SIZE, gap, 3), 0.75, jnp.float32)
        return jnp.concatenate([left, between, right], axis=1)


def performance_by_trial(states: Any, num_trials: int) -> np.ndarray:
    """How often selections were correct, for each trial.

    Args:
      states: of any of the forms, after steps of the environment itself; leaves `[...]`, all of one shape.
      num_trials: of an episode.

    Returns:
      Share of the selections in trials 0 to `num_trials - 1` that were correct; NaN where there was none. `[num_trials]`.
    """
    selected, correct = np.asarray(states.selected), np.asarray(states.correct)
    trials = np.asarray(states.trial)[selected] - 1
    selections = np.bincount(trials, minlength=num_trials)
    return np.divide(
        np.bincount(trials, correct[selected], minlength=num_trials),
        selections,
        out=np.full(num_trials, np.nan),
        where=selections > 0,
    )


def object_vectors(numbers: Array, size: int, seed: int) -> Array:
    """Objects of the forms without images, by their numbers, int32 `[N]`: float32 `[N, size]`, standard normal."""
    key = jax.random.key(seed)
    return jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (size,), jnp.float32))(numbers)


def _draw_pair(key: Array, first: int, count: int) -> Array:
    """Two different numbers of `first` to `first + count - 1`, all ordered pairs alike. int32 `[2]`."""
    one_key, other_key = jax.random.split(key)
    one = jax.random.randint(one_key, (), 0, count, jnp.int32)
    other = (one + jax.random.randint(other_key, (), 1, count, jnp.int32)) % count
    return first + jnp.stack([one, other])


def _left_and_right(pair: Array, rewarded_right: Array) -> Array:
    """A pair, the rewarded one first, in the order of the sides."""
    return jnp.where(rewarded_right, pair[::-1], pair)


def _on_ring(cell: Array) -> Array:
    """Cells in [-8, 8]."""
    return (cell + _RING_SIZE // 2) % _RING_SIZE - _RING_SIZE // 2


def _wrap(angle: Array) -> Array:
    """Degrees in [-180, 180)."""
    return (angle + 180) % 360 - 180
