"""Any `dm_env.Environment`, stepped on the host from inside the compiled learner."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jax.experimental import io_callback
from jaxtyping import PyTree
from numpy.typing import DTypeLike

from components.component import PositiveInt, check_arguments
from components.types import Array, EnvironmentFailedError


class HostState(NamedTuple):
    """Which batch on the host this is, int32 scalar. Each step returns it, which keeps a batch's steps in order."""

    batch_id: Array


class HostEnvironment:
    """A batch of `dm_env.Environment`s behind the interface of the compiled ones (`base.Environment`).

    The environments live in Python; a step is one callback for the whole batch. Episodes restart by the rule of
    `base`: at once after a termination, with one masked step after a truncation. Under `vmap` (seeds, lifetimes) every
    row has a batch of its own, stepped by a callback of its own. What happens on the host cannot be copied or taken
    back: a checkpoint holds the learner but not the episodes under way.

    What an environment returns is made to fit its specs: observations in any containers of the same structure, Python's
    numbers, a reward of one entry. A discount of None, which dm_env has at the start of an episode, is 1, and 0 where
    an episode ends. What does not fit, and any error of an environment, is an `EnvironmentFailedError` that names the
    environment, its number and its step.

    Args:
      environment: makes one environment; called on the host, once for each member of a batch.
      batch_size: environments in a batch, `B`.
      seed_argument: name of the argument of `environment` that takes an integer seed, in [0, 2^31). None if it takes
        none: then the environments' randomness is their own, and runs do not repeat.

    Attributes:
      failure: the error that ended a callback, which arrives as one of the program's; None if there was none.

    Raises:
      ValueError: if `batch_size` < 1, or the specs are not those of scalar rewards.
      EnvironmentFailedError: if an environment cannot be made.
    """

    def __init__(
        self,
        environment: Callable[..., dm_env.Environment],
        batch_size: PositiveInt,
        seed_argument: str | None = None,
    ):
        check_arguments(
            type(self), {'environment': environment, 'batch_size': batch_size, 'seed_argument': seed_argument}
        )
        self.batch_size = batch_size
        self.failure: EnvironmentFailedError | None = None
        self._make, self._seed_argument = environment, seed_argument
        self._batches: dict[int, _HostBatch] = {}
        self._ids = itertools.count()
        self._name = getattr(environment, '__name__', type(environment).__name__)
        # What JAX says there of a failed callback in many lines, `EnvironmentFailedError` says in one.
        logging.getLogger('jax._src.callback').setLevel(logging.CRITICAL)
        with self._failing('which tells its specs'):
            example = self._make_one(seed=0)
            spec = specs.make_environment_spec(example)
            example.close()
        self._spec = spec._replace(observations=_plain(spec.observations))
        if self._spec.rewards.shape != ():
            raise ValueError(f'HostEnvironment takes scalar rewards, got rewards of shape {self._spec.rewards.shape}')
        self._result = (
            jax.ShapeDtypeStruct((), jnp.int32),
            dm_env.TimeStep(
                self._struct((), np.int32),
                self._struct((), np.dtype(jnp.result_type(float))),
                self._struct((), np.dtype(jnp.result_type(float))),
                jax.tree.map(lambda spec: self._struct(spec.shape, spec.dtype), self._spec.observations),
            ),
        )

    @property
    def is_pure(self) -> bool:
        return False

    def spec(self) -> specs.EnvironmentSpec:
        return self._spec

    def reset(self, key: Array) -> tuple[HostState, dm_env.TimeStep]:
        seed = jax.random.randint(key, (), 0, np.iinfo(np.int32).max)
        batch_id, timestep = io_callback(self._host_reset, self._result, seed)
        return HostState(batch_id), timestep

    def step(self, state: HostState, actions: Array, key: Array) -> tuple[HostState, dm_env.TimeStep]:
        del key  # The environments draw their own randomness.
        batch_id, timestep = io_callback(self._host_step, self._result, state.batch_id, actions)
        return HostState(batch_id), timestep

    def close(self, state: HostState) -> None:
        for batch_id in np.ravel(state.batch_id):
            self._batches.pop(int(batch_id)).close()

    def as_dm_env(self, seed: int) -> dm_env.Environment:
        return self._make_one(seed)

    def _struct(self, shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.batch_size, *shape), jax.dtypes.canonicalize_dtype(dtype))

    def _make_one(self, seed: int) -> dm_env.Environment:
        # Of 31 bits, as the seed of a simulator may be a signed integer in C.
        return self._make() if self._seed_argument is None else self._make(**{self._seed_argument: int(seed) % 2**31})

    @contextlib.contextmanager
    def _failing(self, which: str) -> Iterator[None]:
        """Turns whatever an environment raises into an error of one line, and remembers it."""
        try:
            yield
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            message = ' '.join(str(error).split())
            kind = '' if isinstance(error, _WrongTimestepError) else f'{type(error).__name__}: '
            failure = EnvironmentFailedError(f'environment {self._name}, {which}: {kind}{message}'.rstrip(': '))
            self.failure = failure
            raise failure from error

    def _host_reset(self, seed: np.ndarray) -> tuple[np.ndarray, dm_env.TimeStep]:
        batch_id = next(self._ids)
        seeds = np.random.SeedSequence(int(seed)).generate_state(self.batch_size)
        environments = []
        for i, own_seed in enumerate(seeds):
            with self._failing(f'number {i} of {self.batch_size}, which is made'):
                environments.append(self._make_one(own_seed))
        self._batches[batch_id] = _HostBatch(environments, self._spec, self._failing)
        return self._as_result(batch_id, self._batches[batch_id].reset())

    def _host_step(self, batch_id: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, dm_env.TimeStep]:
        return self._as_result(batch_id, self._batches[int(batch_id)].step(np.asarray(actions)))

    def _as_result(self, batch_id: int | np.ndarray, timestep: dm_env.TimeStep) -> tuple[np.ndarray, dm_env.TimeStep]:
        return jax.tree.map(lambda struct, x: np.asarray(x, struct.dtype), self._result, (batch_id, timestep))


class _WrongTimestepError(ValueError):
    """A timestep does not fit the specs; the message says what it has and what it should have."""


class _HostBatch:
    """Environments stepped one after the other, with the last timestep of each.

    Args:
      environments: `B` of them.
      spec: what their timesteps are made to fit.
      failing: a context for calls of an environment, from what to call it.
    """

    def __init__(self, environments: list[dm_env.Environment], spec: specs.EnvironmentSpec, failing: Callable):
        self._environments, self._spec, self._failing = environments, spec, failing
        self._last = [False] * len(environments)
        self._num_steps = 0

    def reset(self) -> dm_env.TimeStep:
        return _stack([self._restart(i, 0.0, 1.0) for i in range(len(self._environments))])

    def step(self, actions: np.ndarray) -> dm_env.TimeStep:
        self._num_steps += 1
        timesteps = [self._step(i, action) for i, action in enumerate(actions)]
        self._last = [timestep.last() for timestep in timesteps]
        return _stack(timesteps)

    def close(self) -> None:
        for i, environment in enumerate(self._environments):
            with self._failing(f'number {i} of {len(self._environments)}, which is closed'):
                environment.close()

    def _step(self, i: int, action: np.integer) -> dm_env.TimeStep:
        if self._last[i]:
            return self._restart(i, 0.0, 0.0)
        with self._failing(f'number {i} of {len(self._environments)}, step {self._num_steps}'):
            timestep = _fit(self._environments[i].step(action), self._spec)
        if timestep.last() and timestep.discount == 0:
            return self._restart(i, timestep.reward, timestep.discount)
        return timestep

    def _restart(self, i: int, reward: float, discount: float) -> dm_env.TimeStep:
        """Starts an episode with the reward and discount of what came before it."""
        with self._failing(f'number {i} of {len(self._environments)}, reset after step {self._num_steps}'):
            return _fit(self._environments[i].reset(), self._spec)._replace(reward=reward, discount=discount)


def _fit(timestep: Any, spec: specs.EnvironmentSpec) -> dm_env.TimeStep:
    """A timestep with arrays and numbers of the specs' structure, shapes and types.

    Raises:
      _WrongTimestepError: if it cannot be had.
    """
    if not all(hasattr(timestep, name) for name in dm_env.TimeStep._fields):
        raise _WrongTimestepError(f'returned {_shown(timestep)} instead of a dm_env.TimeStep')
    if timestep.step_type not in tuple(dm_env.StepType):
        raise _WrongTimestepError(f'step_type is {_shown(timestep.step_type)} instead of a dm_env.StepType')
    step_type = dm_env.StepType(int(timestep.step_type))
    is_first, is_last = step_type == dm_env.StepType.FIRST, step_type == dm_env.StepType.LAST
    reward = 0.0 if timestep.reward is None and is_first else timestep.reward
    discount = timestep.discount
    if discount is None:
        discount = 0.0 if is_last else 1.0
    discount = _fit_array(discount, spec.discounts, 'discount')
    low, high = getattr(spec.discounts, 'minimum', 0.0), getattr(spec.discounts, 'maximum', 1.0)
    if not low <= discount <= high:
        raise _WrongTimestepError(f'discount is {_shown(discount)}, outside of [{low:g}, {high:g}]')
    return dm_env.TimeStep(
        step_type,
        _fit_array(reward, spec.rewards, 'reward'),
        discount,
        _fit_tree(timestep.observation, spec.observations, 'observation'),
    )


def _fit_tree(value: object, spec: Any, path: str) -> PyTree:
    """A structure of arrays in the containers of the spec's."""
    if isinstance(spec, specs.Array):
        return _fit_array(value, spec, path)
    if isinstance(spec, dict):
        if not isinstance(value, Mapping) or set(value) != set(spec):
            raise _WrongTimestepError(
                f'{path} is {_shown(value)} instead of a mapping with {", ".join(map(str, spec))}'
            )
        return {name: _fit_tree(value[name], spec[name], f'{path}/{name}') for name in spec}
    names = getattr(spec, '_fields', range(len(spec)))
    if isinstance(value, Mapping) and set(value) == set(names):
        value = [value[name] for name in names]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(spec):
        raise _WrongTimestepError(f'{path} is {_shown(value)} instead of a sequence of {len(spec)} entries')
    entries = [_fit_tree(x, s, f'{path}/{name}') for x, s, name in zip(value, spec, names, strict=True)]
    return type(spec)(*entries) if hasattr(spec, '_fields') else tuple(entries)


def _fit_array(value: object, spec: specs.Array, path: str) -> np.ndarray:
    """An array of the spec's shape and type, if its numbers can be had in it."""
    try:
        x = np.asarray(value)
    except Exception as error:
        raise _WrongTimestepError(f'{path} is {_shown(value)}, which is no array: {error}') from error
    if x.dtype.kind not in 'biuf':
        raise _WrongTimestepError(f'{path} is {_shown(value)} instead of numbers')
    if x.shape != spec.shape and spec.shape == () and x.size == 1:
        x = x.reshape(())
    if x.shape != tuple(spec.shape):
        raise _WrongTimestepError(f'{path} has shape {x.shape} instead of {tuple(spec.shape)}')
    dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
    with np.errstate(over='ignore', invalid='ignore'):
        fitted = x.astype(dtype)
    lost = fitted != x if dtype.kind in 'biu' else np.isfinite(x) & ~np.isfinite(fitted)
    if np.any(lost):
        raise _WrongTimestepError(f'{path} has {_shown(x[lost][0])}, which is no {dtype}')
    return fitted


def _plain(spec: Any) -> PyTree:
    """A structure of specs in dictionaries, tuples and named tuples."""
    if isinstance(spec, Mapping):
        return {name: _plain(entry) for name, entry in spec.items()}
    if isinstance(spec, tuple) and hasattr(spec, '_fields'):
        return type(spec)(*map(_plain, spec))
    return tuple(map(_plain, spec)) if isinstance(spec, list | tuple) else spec


def _shown(value: object) -> str:
    text = ' '.join(repr(value).split())
    return text if len(text) <= 80 else f'{text[:80]}...'


def _stack(timesteps: list[dm_env.TimeStep]) -> dm_env.TimeStep:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *timesteps)
