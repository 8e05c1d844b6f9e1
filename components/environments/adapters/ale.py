"""Atari games of the Arcade Learning Environment, stepped by ale-py from inside the compiled learner."""

import difflib
import functools
import importlib.metadata
import os
import re
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jax.experimental import io_callback
from jaxtyping import ArrayLike

from components.component import NonNegativeInt, PositiveInt, UnitInterval, component
from components.environments.atari_scores import SCORES
from components.environments.base import Animator, ReferenceScores, make_timestep
from components.environments.images import save_gif
from components.types import Array, CompositionError, FieldError

MIN_VERSION = (0, 12, 1)
"""Of ale-py; in 0.12.0 a program on a GPU finds no emulators."""

NOT_PLAYED = frozenset({'combat', 'joust', 'maze_craze', 'warlords'})
"""ROMs in the package, for two players and more, with which ale-py ends the process."""

SCREEN = 210, 160
"""Rows and columns of what is drawn."""


class AtariState(NamedTuple):
    """State of a batch of emulators; all that is theirs lives on the host.

    Attributes:
      handle: uint8 `[8]`, the address of the emulators. Each step returns it, which keeps their steps in order. It
        means nothing in another process, and is not to be stepped from two copies of a state.
      over: whether the latest timestep was LAST, so that the next step restarts, `[B]`.
      lives: that are left, int32 `[B]`.
    """

    handle: Array
    over: Array
    lives: Array


@component
class Atari:
    """A batch of Atari games behind the interface of the compiled environments (`base.BatchedEnvironment`).

    A step is one foreign call for the whole batch, within the program. Rewards are raw scores. An episode that ends
    shows its last observation, after a termination too, and restarts with the step after, which is masked. Under `vmap`
    (seeds, lifetimes) every row has emulators of its own, stepped one row after the other. Emulators cannot be copied
    or put into a file: a checkpoint holds the learner but not the episodes under way.

    Observations are the latest frames, the newest last, in gray: of the last two of the frames that an action is
    repeated for, the larger value of each pixel, resized. After a reset the older ones are 0.

    Making an emulator takes about a tenth of a second, and so does a reset, each on one core; what `close` is given is
    used again by a later `reset`.

    Args:
      game: ROM name, `ms_pacman` say.
      batch_size: emulators in a batch, `B`.
      num_threads: that step them; 0 for one for each of the machine's, at most `B`. No number changes a result.
      sticky: probability in each frame that the action of the frame before is repeated: 0.25 of Machado et al. (2018);
        0 in most work before.
      full_action_set: whether to take all 18 actions in every game, as Machado et al. (2018) do, or those that have an
        effect in this one. The latter is the default, as in Mnih et al. (2015): fewer actions are explored sooner.
      discount_lost_lives: whether the discount is 0 where a life is lost; the episode goes on all the same.
      frame_skip: frames that an action is repeated for; one agent's step.
      stack: frames in an observation.
      height: of an observation, in pixels.
      width: of an observation, in pixels.
      max_noops: an episode starts with fewer no-ops than so many, drawn uniformly.
      fire_on_reset: whether it starts with FIRE where the game has that; many wait for it.
      max_frames: after which an episode is truncated, the no-ops at its start left out.

    Raises:
      FieldError: if there is no such game, or the machine has not so many threads.
      CompositionError: if ale-py is missing or too old.
    """

    game: str
    batch_size: PositiveInt
    num_threads: NonNegativeInt = 0
    sticky: UnitInterval = 0.25
    full_action_set: bool = False
    discount_lost_lives: bool = False
    frame_skip: PositiveInt = 4
    stack: PositiveInt = 4
    height: PositiveInt = 84
    width: PositiveInt = 84
    max_noops: NonNegativeInt = 30
    fire_on_reset: bool = True
    max_frames: PositiveInt = 108_000

    def __post_init__(self) -> None:
        names = sorted(set(_ale_py().roms.get_all_rom_ids()) - NOT_PLAYED)
        if self.game not in names:
            nearest = difflib.get_close_matches(self.game.lower(), names, n=3, cutoff=0.4) or names
            raise FieldError(
                f'Atari.game must be a game of ale-py, got {self.game!r}; did you mean {" or ".join(nearest[:5])}?'
            )
        num_threads = os.cpu_count() or 1
        if self.num_threads > num_threads:
            raise FieldError(
                f'Atari.num_threads must be at most {num_threads}, which is what this machine has, or 0 for all of '
                f'them, got {self.num_threads}'
            )
        self.spec()  # Outside of any trace, and once.

    @property
    def is_pure(self) -> bool:
        return False

    @property
    def reference_scores(self) -> ReferenceScores | None:
        """Of the 57 games that others are compared on."""
        return SCORES.get(self.game)

    def spec(self) -> specs.EnvironmentSpec:
        return self._spec

    def reset(self, key: Array) -> tuple[AtariState, dm_env.TimeStep]:
        batch = (self.batch_size,)
        seed = jax.random.randint(key, (), 0, np.iinfo(np.int32).max)
        handle, frames, lives = io_callback(
            self._host_reset, (_HANDLE, self._frames, jax.ShapeDtypeStruct(batch, jnp.int32)), seed
        )
        first = make_timestep(_channels_last(frames), jnp.zeros(batch), jnp.ones(batch), first=jnp.ones(batch, bool))
        return AtariState(handle, jnp.zeros(batch, bool), lives), first

    def step(self, state: AtariState, actions: Array, key: Array) -> tuple[AtariState, dm_env.TimeStep]:
        del key  # Emulators draw their own randomness.
        # In range, the nearest action for any other: ale-py would wait for it for ever.
        actions = jnp.clip(actions, 0, self._spec.actions.num_values - 1).astype(jnp.int32)
        handle, frames, reward, terminated, truncated, lives = self._emulate(state.handle, actions)
        discount = _discount(terminated, lives < state.lives, self.discount_lost_lives)
        over = terminated | truncated
        timestep = make_timestep(
            _channels_last(frames), reward, jnp.where(state.over, 0, discount), first=state.over, last=over
        )
        return AtariState(handle, over, lives), timestep

    def close(self, state: AtariState) -> None:
        for handle in np.reshape(state.handle, (-1, 8)):
            self._pool.put_back(handle.tobytes())

    def as_dm_env(self, seed: int) -> dm_env.Environment:
        return _DmAtari(self, seed)

    def make(self, batch_size: int, in_colour: bool = False) -> Any:
        """Emulators on the host, an `ale_py.AtariVectorEnv`.

        Args:
          batch_size: how many.
          in_colour: whether they show the screen in RGB, `[1, 210, 160, 3]`, in place of observations.
        """
        height, width = SCREEN if in_colour else (self.height, self.width)
        return _ale_py().AtariVectorEnv(
            self.game,
            batch_size,
            num_threads=min(self.num_threads, batch_size),
            max_num_frames_per_episode=self.max_frames,
            repeat_action_probability=self.sticky,
            full_action_space=self.full_action_set,
            img_height=height,
            img_width=width,
            grayscale=not in_colour,
            stack_num=1 if in_colour else self.stack,
            frameskip=self.frame_skip,
            noop_max=self.max_noops,
            use_fire_reset=self.fire_on_reset,
            # Else the score is lost, an episode restarts at a lost life, or a termination says nothing of restarts.
            reward_clipping=False,
            episodic_life=False,
            life_loss_info=False,
        )

    @functools.cached_property
    def _spec(self) -> specs.EnvironmentSpec:
        example = self.make(1)
        example.xla()  # Registers the foreign functions.
        return specs.EnvironmentSpec(
            observations=specs.BoundedArray((self.height, self.width, self.stack), np.uint8, 0, 255, 'observation'),
            actions=specs.DiscreteArray(int(example.single_action_space.n), name='action'),
            rewards=specs.Array((), np.float32, 'reward'),
            discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
        )

    @functools.cached_property
    def _pool(self) -> '_Pool':
        return _Pool(lambda: self.make(self.batch_size))

    @property
    def _frames(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.batch_size, self.stack, self.height, self.width), jnp.uint8)

    def _host_reset(self, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        handle, emulators = self._pool.take()
        frames, info = emulators.reset(seed=_seeds(np.random.SeedSequence(int(seed)), self.batch_size))
        return np.frombuffer(handle, np.uint8), frames, info['lives']

    @functools.cached_property
    def _emulate(self) -> Callable[[Array, Array], tuple[Array, ...]]:
        """The foreign call: from handle `[8]` and actions `[B]` to handle, frames `[B, stack, H, W]`, reward,
        terminated, truncated and lives, each `[B]`.
        """
        integers, bools = (jax.ShapeDtypeStruct((self.batch_size,), dtype) for dtype in (jnp.int32, jnp.bool_))
        results = (_HANDLE, self._frames, integers, bools, bools, integers, integers, integers, integers)

        @jax.custom_batching.custom_vmap
        def emulate(handle: Array, actions: Array) -> tuple[Array, ...]:
            # Not asked as long as the rule below is.
            call = jax.ffi.ffi_call('atari_vector_xla_step', results, vmap_method='sequential', has_side_effect=True)
            *found, _, lives, _, _ = call(handle, actions, np.ones(self.batch_size, np.float32))
            return *found, lives

        @emulate.def_vmap
        def one_row_after_the_other(
            axis_size: int, in_batched: list[bool], handle: Array, actions: Array
        ) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
            if not in_batched[0]:
                raise CompositionError(
                    'one batch of Atari emulators cannot be stepped with several actions at once: reset it under the '
                    'same vmap, so that each row has emulators of its own'
                )
            if not in_batched[1]:
                actions = jnp.broadcast_to(actions, (axis_size, *actions.shape))
            found = jax.lax.map(lambda row: emulate(*row), (handle, actions))
            return found, (True,) * len(found)

        return emulate


class _Pool:
    """Emulators of one configuration, in use or not.

    They are kept for the life of the process: a program that was started may still hold their address.

    Args:
      make: makes a batch of them.
    """

    def __init__(self, make: Callable[[], Any]):
        self._make, self._lock = make, threading.Lock()
        self._in_use: dict[bytes, Any] = {}
        self._waiting: list[tuple[bytes, Any]] = []

    def __len__(self) -> int:
        return len(self._in_use) + len(self._waiting)

    def take(self) -> tuple[bytes, Any]:
        """A batch that nothing else uses, and its handle."""
        with self._lock:
            if self._waiting:
                handle, emulators = self._waiting.pop()
            else:
                emulators = self._make()
                handle = np.asarray(emulators.ale.handle(), np.uint8).tobytes()
            self._in_use[handle] = emulators
            return handle, emulators

    def put_back(self, handle: bytes) -> None:
        with self._lock:
            self._waiting.append((handle, self._in_use.pop(handle)))


class _DmAtari(dm_env.Environment):
    """One game by dm_env's rules; every episode has a seed of its own, drawn from the first.

    Attributes:
      state: the screen in RGB, uint8 `[210, 160, 3]`; None unless `animator` was called before the episode began.
    """

    def __init__(self, atari: Atari, seed: int):
        self._atari, self._spec, self._emulator = atari, atari.spec(), atari.make(1)
        self._seeds = np.random.SeedSequence(seed)
        self._screen: Any = None  # A second emulator that does the same: the first one shows no colours.
        self._lives, self._over = 0, True
        self.state: np.ndarray | None = None

    def reset(self) -> dm_env.TimeStep:
        seed = _seeds(self._seeds.spawn(1)[0], 1)
        frames, info = self._emulator.reset(seed=seed)
        if self._screen:
            self.state = self._screen.reset(seed=seed)[0][0, 0]
        self._lives, self._over = int(info['lives'][0]), False
        return dm_env.restart(_channels_last(frames)[0])

    def step(self, action: ArrayLike) -> dm_env.TimeStep:
        if self._over:
            return self.reset()
        actions = np.clip(np.reshape(action, 1), 0, self._spec.actions.num_values - 1).astype(np.int32)
        frames, reward, terminated, truncated, info = self._emulator.step(actions)
        if self._screen:
            self.state = self._screen.step(actions)[0][0, 0]
        lives = int(info['lives'][0])
        discount = _discount(terminated, lives < self._lives, self._atari.discount_lost_lives)[0]
        self._lives, self._over = lives, bool(terminated[0] or truncated[0])
        return dm_env.TimeStep(
            dm_env.StepType.LAST if self._over else dm_env.StepType.MID,
            np.float32(reward[0]),
            np.float32(discount),
            _channels_last(frames)[0],
        )

    def observation_spec(self) -> specs.Array:
        return self._spec.observations

    def action_spec(self) -> specs.Array:
        return self._spec.actions

    def reward_spec(self) -> specs.Array:
        return self._spec.rewards

    def discount_spec(self) -> specs.BoundedArray:
        return self._spec.discounts

    def animator(self) -> Animator:
        from PIL import Image  # Imported here: only drawing needs it.

        if self._screen is None:
            self._screen = self._atari.make(1, in_colour=True)
        milliseconds = round(1_000 * self._atari.frame_skip / 60)

        def animate(states: Sequence[np.ndarray], path: str | os.PathLike) -> None:
            save_gif(map(Image.fromarray, states), path, milliseconds)

        return animate


_HANDLE = jax.ShapeDtypeStruct((8,), jnp.uint8)


def _discount(terminated: Array, has_fewer_lives: ArrayLike, discounts_lost_lives: bool) -> Array:
    """The environment's discount of a transition within an episode."""
    return 1 - (terminated | has_fewer_lives if discounts_lost_lives else terminated)


def _channels_last(frames: Any) -> Any:
    """From `[B, stack, H, W]` to `[B, H, W, stack]`."""
    return frames.transpose(0, 2, 3, 1)


def _seeds(sequence: np.random.SeedSequence, number: int) -> np.ndarray:
    """Of emulators, which take 31 bits: a negative one stands for none."""
    return (sequence.generate_state(number) % 2**31).astype(np.int32)


def _ale_py() -> types.ModuleType:
    """The library, which nothing but Atari waits for.

    Raises:
      CompositionError: if it is missing, incomplete or too old.
    """
    needed = '.'.join(map(str, MIN_VERSION))
    try:
        found = importlib.metadata.version('ale-py')
        import ale_py
        import ale_py.roms
        import ale_py.vector_env
    except ImportError as error:
        raise CompositionError(
            f"Atari needs ale-py {needed} or newer: python -m pip install 'ale-py>={needed}' gymnasium chex ({error})"
        ) from error
    if tuple(map(int, re.findall(r'\d+', found)[:3])) < MIN_VERSION:
        raise CompositionError(
            f"Atari needs ale-py {needed} or newer, and {found} is installed: python -m pip install 'ale-py>={needed}'"
        )
    return ale_py
