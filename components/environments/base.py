"""Environment interfaces: one episode (`Environment`), and an auto-resetting batch (`BatchedEnvironment`).

A `Environment` is one episode's dynamics as pure functions. An `BatchedEnvironment` is a batch that never ends:

    state, timestep = environment.reset(key)
    while True:
        state, timestep = environment.step(state, actions, key)

How an episode of a batch ends. A *terminated* episode (LAST with discount 0) restarts in the same step: nothing is ever
bootstrapped from its last observation, so the timestep carries the reward and discount of the last transition beside
the first observation of the next episode (step type FIRST). A *truncated* episode (LAST with discount > 0) shows its
last observation, which returns bootstrap from; the action of the step after is ignored, and that step restarts the
episode with reward 0 and discount 0. This step is not a transition and is recorded with mask 0; it follows a LAST
timestep. An environment may also restart in this way after a termination, and show a last observation that nothing is
bootstrapped from.

State beyond an episode. Most environments keep nothing when an episode ends. One that is `Lifelong` keeps its
lifetime's state: the task it drew, a clock. `BatchedEnvironment.reset` starts a lifetime, and all `B` copies of a batch
start from the same one; an episode that ends never does.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import ArrayLike, PyTree, Shaped

from components.types import Array, CompositionError

Animator = Callable[[Sequence[PyTree], str | os.PathLike], None]
"""Draws an episode, from its states in their order and the path of the animated GIF that it writes."""


class Environment(Protocol):
    """One episode of a pure-JAX environment; unbatched. It may be `Lifelong` and `Drawable` too."""

    def spec(self) -> specs.EnvironmentSpec:
        """Shapes and ranges of unbatched observations, actions, rewards and discounts."""
        ...

    def reset(self, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        """Starts an episode: its state and a FIRST timestep with reward 0 and discount 1, scalars."""
        ...

    def step(self, state: PyTree, action: Shaped[Array, '...'], key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        """Takes one step. After a LAST timestep the state is not stepped again, or the result not used."""
        ...


class Lifelong(Protocol):
    """What a `Environment` may have beside its interface: something in its state that outlasts its episodes.

    Its `reset(key)` starts a lifetime. What that draws once and for all, a task say, is common to the copies of a
    batch: they start from one `reset`, each by a `restart` of its own. What the copies live through, a clock say, is
      their own.
    """

    def restart(self, state: PyTree, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        """Starts the next episode of the lifetime that `state` belongs to.

        Args:
          state: of any timestep of that lifetime, the first included.
          key: of what the episode draws.

        Returns:
          What `reset` returns: a state and a FIRST timestep with reward 0 and discount 1, scalars.
        """
        ...


class Drawable(Protocol):
    """What an environment may have beside its interface: a way to draw its episodes.

    A `dm_env.Environment` that can be drawn also shows the latest timestep's `state`, which is what is drawn.
    """

    def animator(self) -> Animator:
        """Makes the animator; imports the libraries for it, so that nothing else waits for them.

        Raises:
          ValueError: if this environment cannot be drawn after all; the message says why.
        """
        ...


class ReferenceScores(NamedTuple):
    """Returns of an episode that others are compared with.

    Attributes:
      random: of random play.
      human: of a person.
    """

    random: float
    human: float

    def normalised(self, episode_return: ArrayLike) -> np.ndarray:
        """Human-normalised scores: 0 for random play, 1 for the human's; of a mean return, the mean score."""
        return (np.asarray(episode_return) - self.random) / (self.human - self.random)


class Scored(Protocol):
    """What an environment may have beside its interface: returns to compare its agents' with."""

    @property
    def reference_scores(self) -> ReferenceScores | None:
        """None where none are known."""
        ...


class BatchedEnvironment(Protocol):
    """A batch of `B` environments that restart by themselves (see the module's docstring)."""

    @property
    def batch_size(self) -> int:
        """`B`."""
        ...

    @property
    def is_pure(self) -> bool:
        """Whether the state is a pytree of arrays, so that a saved one can be restored and a copy stepped."""
        ...

    def spec(self) -> specs.EnvironmentSpec:
        """Shapes and ranges of one environment's observations, actions, rewards and discounts, without `B`."""
        ...

    def reset(self, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        """Starts `B` episodes, of a new lifetime where the environment is `Lifelong`; leaves `[B, ...]`."""
        ...

    def step(self, state: PyTree, actions: Shaped[Array, 'B ...'], key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        """Takes one step in each environment; leaves `[B, ...]`."""
        ...

    def close(self, state: PyTree) -> None:
        """Frees what a concrete state, which is not used again, holds outside the program; called on the host."""
        ...

    def as_dm_env(self, seed: int) -> dm_env.Environment:
        """One copy for itself, for acme's loops; its episodes end as dm_env's do. `seed` is that of its randomness."""
        ...


def restart(environment: Environment, state: PyTree, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
    """Starts the next episode: of the lifetime of `state` if the environment is `Lifelong`, else one like any other."""
    return environment.restart(state, key) if hasattr(environment, 'restart') else environment.reset(key)


def human_normalised(environment: object, episode_return: ArrayLike) -> dict[str, np.ndarray]:
    """A column `human_normalised` of returns in an environment that is `Scored`; no column in any other."""
    scores: ReferenceScores | None = getattr(environment, 'reference_scores', None)
    return {} if scores is None else {'human_normalised': scores.normalised(episode_return)}


def spec_of(environment: Environment) -> specs.EnvironmentSpec:
    """An environment's spec, which may look at concrete values for it; within a traced function too."""
    with jax.ensure_compile_time_eval():
        return environment.spec()


def check_can_be_copied(environment: BatchedEnvironment, what_for: str) -> None:
    """Checks that copies of one state of an environment can be stepped, each for itself.

    Args:
      environment: of the states.
      what_for: what copies them, as the subject of a sentence.

    Raises:
      CompositionError: if there is one environment outside of the program behind all copies.
    """
    if not environment.is_pure:
        raise CompositionError(
            f'{what_for} starts from one state again and again, and those of {type(environment).__name__} live outside '
            'of the program, where there are no copies: use an environment that is written in JAX'
        )


def check_fits(spec: specs.EnvironmentSpec, trained_on: specs.EnvironmentSpec) -> None:
    """Checks that a network made for one environment can act in another.

    Args:
      spec: of the other environment.
      trained_on: of the one that the network was made for.

    Raises:
      CompositionError: if it cannot; the message names what differs.
    """
    shown, known = (
        {'observations': _structure(s.observations), 'actions': getattr(s.actions, 'num_values', s.actions)}
        for s in (spec, trained_on)
    )
    differences = [
        f'its {name} are {shown[name]} instead of {known[name]}' for name in shown if shown[name] != known[name]
    ]
    if differences:
        raise CompositionError(f'the environment does not fit the weights: {" and ".join(differences)}')


def _structure(observations: PyTree) -> PyTree:
    return jax.tree.map(lambda s: f'{jax.dtypes.canonicalize_dtype(s.dtype)} {list(s.shape)}', observations)


@contextlib.contextmanager
def named_failures(environment: BatchedEnvironment) -> Iterator[None]:
    """Turns an error of the program that an environment on the host has caused into that environment's own."""
    try:
        yield
    except Exception as error:
        failure = getattr(environment, 'failure', None)
        if failure is None or failure is error:
            raise
        raise failure from error


def animator_of(environment: object) -> Animator:
    """What draws an environment's episodes, if it is `Drawable`.

    Raises:
      ValueError: if it cannot be drawn.
    """
    if not hasattr(environment, 'animator'):
        raise ValueError(f'{type(environment).__name__} has no method `animator`')
    return environment.animator()


def make_timestep(
    observation: PyTree,
    reward: ArrayLike = 0,
    discount: ArrayLike = 1,
    *,
    first: ArrayLike = False,
    last: ArrayLike = False,
) -> dm_env.TimeStep:
    """A timestep with array leaves, so that every timestep of an environment has the same structure.

    Args:
      observation: pytree of arrays.
      reward: reward of the transition that led here.
      discount: the environment's discount of that transition.
      first: whether an episode starts here; a bool or a bool array.
      last: whether it ends here; likewise.

    Returns:
      The timestep, with an int32 step type and floating-point reward and discount.
    """
    step_type = jnp.where(first, dm_env.StepType.FIRST, jnp.where(last, dm_env.StepType.LAST, dm_env.StepType.MID))
    as_float = jnp.result_type(float)
    return dm_env.TimeStep(
        step_type.astype(jnp.int32), jnp.asarray(reward, as_float), jnp.asarray(discount, as_float), observation
    )
