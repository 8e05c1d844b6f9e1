"""Harlow's task on a screen, in pixels."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import AtLeastTwo, NonNegativeInt, Positive, PositiveInt, component
from components.environments.base import Animator, make_timestep
from components.environments.harlow.common import FIXATION_REWARD, draw_pair, left_and_right
from components.environments.images import SIZE, view_animator, view_spec
from components.types import Array

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


class HarlowState(NamedTuple):
    """State of a `Harlow`; see the package's docstring for the last three attributes.

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
    """Harlow's task on a screen that is seen while turning one's head, as a pure-JAX `Environment`.

    A trial begins with a cross in the screen's centre. Looking at it, within 3.5 degrees, for 4 environment steps on
    end pays +.2, and two images of 34 x 34 pixels take its place, with centres 20 degrees to the left and to the right.
    Looking within 7 degrees of one's centre selects it. For 10 environment steps nothing is shown, and the next trial
    begins.

    Actions turn left, right, or leave it to the momentum (0 to 2); each is repeated for `action_repeat` environment
    steps, which make one step of the agent's. In it the velocity becomes half of what it was, and `turn` more or less.
    An episode starts looking at the cross, at rest; it terminates with the selection of its last trial, or with the
    step of the agent's in which it reaches `max_steps`.

    Observations are what is seen: 65 degrees, in 84 x 84 pixels (see `images`). All that is seen is upright, so that
    turning shifts columns, by whole pixels. The screen is 65 degrees wide, and what is left of it darker than what is
    right of it, so that an agent that looks away can find the way back.

    Images are numbered, and each is a sum of six waves in each colour (see `image`), the same in every episode. No two
    of the 2,000 of the default seed look alike: any two differ by more than .15 on average, of 1.

    Args:
      num_trials: trials of an episode, at least 1.
      num_images: images that pairs are drawn from, at least 2.
      first_image: number of the first of them, at least 0: 0 for training, and 1,000 for images that are held out, say.
      max_steps: environment steps of an episode, at least 1.
      action_repeat: environment steps to each of the agent's, at least 1.
      turn: degrees that an action adds to the velocity, per step of the agent's; more than 0. Whether the source's 4.4
        are that or per environment step is unclear.
      shuffle_rewards: whether a coin decides which image pays (see the package's docstring).
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
            rewards=specs.BoundedArray((), np.float32, -1.0, 1.0 + FIXATION_REWARD, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    def reset(self, key: Array) -> tuple[HarlowState, dm_env.TimeStep]:
        pair_key, side_key = jax.random.split(key)
        zero, none, no = jnp.zeros((), jnp.float32), jnp.int32(0), jnp.zeros((), bool)
        images = draw_pair(pair_key, self.first_image, self.num_images)
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
        where amplitudes are normal, frequencies f uniform over the integers from 0 to 4, those of rows from -4 to 4,
        and phases uniform.
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
        """One of an agent's step: the state, and its reward. `pays`: whether a selection does; None: if it is
        correct.
        """
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
        return state, FIXATION_REWARD * fixated + selection

    def _band(self, state: HarlowState) -> Array:
        """Both images with the screen between them: `[34, an even number of columns, 3]`, around the centre."""
        left, right = jax.vmap(self.image)(left_and_right(state.images, state.rewarded_right))
        gap = 2 * round(_IMAGE_YAW / _PIXEL) - _IMAGE_SIZE
        between = jnp.full((_IMAGE_SIZE, gap, 3), 0.75, jnp.float32)
        return jnp.concatenate([left, between, right], axis=1)


def _wrap(angle: Array) -> Array:
    """Degrees in [-180, 180)."""
    return (angle + 180) % 360 - 180
