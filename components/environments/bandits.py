"""Bandits: an episode is a row of pulls in one task, and every episode draws a task of its own.

A bandit shows nothing: its observations are empty. What there is to learn from, the action before, its reward and the
time, a wrapper adds. All of an episode's chances are known to `means`, from which regret is computed.

Source: Wang et al. (2016) for independent and dependent arms, the families easy, medium and hard, the arm that tells
where the target is, and arms that walk. How widely they walk, where from, and that the ends reflect them is this
project's choice.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import Float, PyTree

from components.component import AtLeastTwo, NonNegative, PositiveInt, UnitInterval, component
from components.environments.base import Environment, make_timestep
from components.types import Array


class Bandit(Environment, Protocol):
    """A `Environment` of `A` arms whose episodes have a fixed number of steps, and whose chances can be asked."""

    @property
    def num_pulls(self) -> int:
        """Steps of every episode, which the last one terminates."""
        ...

    def means(self, state: PyTree) -> Float[Array, ' A']:
        """Expected rewards of the arms at the next pull from a state."""
        ...


class TaskFamily(Protocol):
    """What a `BernoulliBandit` draws its tasks from."""

    @property
    def num_arms(self) -> int:
        """`A`."""
        ...

    def draw(self, key: Array) -> Float[Array, ' A']:
        """Probabilities that the arms of one task pay, in [0, 1]."""
        ...


@component
class Independent:
    """Arms that say nothing of each other: each one's probability is uniform over [0, 1].

    Args:
      num_arms: at least 2.

    Raises:
      ValueError: if `num_arms` < 2.
    """

    num_arms: AtLeastTwo = 2

    def draw(self, key: Array) -> Array:
        return jax.random.uniform(key, (self.num_arms,))


@component
class Dependent:
    """Two arms with probabilities p and 1 - p: whatever either of them pays tells as much of both.

    Args:
      probabilities: values of p, equally likely: (0.1, 0.9) is the family called easy, (0.25, 0.75) medium, (0.4, 0.6)
        hard.
        None: p is uniform over [0, 1].

    Raises:
      ValueError: if there is no value, or one is not in [0, 1].
    """

    probabilities: Sequence[UnitInterval] | None = None

    def __post_init__(self) -> None:
        if self.probabilities is not None and not len(self.probabilities):
            raise ValueError('Dependent.probabilities must be None or at least one: a task family with zero tasks')

    @property
    def num_arms(self) -> int:
        return 2

    def draw(self, key: Array) -> Array:
        if self.probabilities is None:
            probability = jax.random.uniform(key)
        else:
            probability = jax.random.choice(key, jnp.array(self.probabilities, jnp.result_type(float)))
        return jnp.stack([probability, 1 - probability])


class BernoulliBanditState(NamedTuple):
    """State of a `BernoulliBandit`.

    Attributes:
      pull: pulls of the episode so far. int32 scalar.
      probabilities: that the arms pay. `[A]`.
    """

    pull: Array
    probabilities: Array


@component
class BernoulliBandit:
    """Arms that pay 1 or 0, each with a probability that an episode keeps; a pure-JAX `Bandit`.

    An episode draws its task, and terminates after `num_pulls` pulls. Observations are empty, float32 `[0]`.

    Args:
      arms: what tasks are drawn from.
      num_pulls: steps of an episode, at least 1.

    Raises:
      ValueError: if `num_pulls` < 1.
    """

    arms: TaskFamily
    num_pulls: PositiveInt = 100

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.arms.num_arms, 0.0, 1.0)

    def reset(self, key: Array) -> tuple[BernoulliBanditState, dm_env.TimeStep]:
        return BernoulliBanditState(jnp.int32(0), self.arms.draw(key)), _first()

    def step(
        self, state: BernoulliBanditState, action: Array, key: Array
    ) -> tuple[BernoulliBanditState, dm_env.TimeStep]:
        reward = jax.random.bernoulli(key, state.probabilities[action])
        state = state._replace(pull=state.pull + 1)
        return state, _after(reward, state.pull == self.num_pulls)

    def means(self, state: BernoulliBanditState) -> Array:
        return state.probabilities


class RestlessBanditState(NamedTuple):
    """State of a `RestlessBandit`.

    Attributes:
      pull: pulls of the episode so far. int32 scalar.
      probability: that arm 0 pays at the next pull; arm 1 pays with what is left to 1. Scalar.
      standard_deviation: of the walk's steps in this episode. Scalar.
    """

    pull: Array
    probability: Array
    standard_deviation: Array


@component
class RestlessBandit:
    """Two arms that pay 1 with probabilities p and 1 - p, else 0, where p walks; a pure-JAX `Bandit`.

    An episode starts with p uniform over [0, 1], and draws how widely p walks. After each pull p moves by a Gaussian
    step, which the ends of [0, 1] reflect. The episode terminates after `num_pulls` pulls. Observations are empty,
    float32 `[0]`.

    Args:
      standard_deviations: of the steps; each episode draws one, all equally likely.
      num_pulls: steps of an episode, at least 1.

    Raises:
      ValueError: if there is no standard deviation, one is negative or not finite, or `num_pulls` < 1.
    """

    standard_deviations: Sequence[NonNegative] = (0.02, 0.10)
    num_pulls: PositiveInt = 100

    def __post_init__(self) -> None:
        check_standard_deviations(type(self).__name__, self.standard_deviations)

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(2, 0.0, 1.0)

    def reset(self, key: Array) -> tuple[RestlessBanditState, dm_env.TimeStep]:
        probability_key, deviation_key = jax.random.split(key)
        deviations = jnp.array(self.standard_deviations, jnp.result_type(float))
        deviation = jax.random.choice(deviation_key, deviations)
        return RestlessBanditState(jnp.int32(0), jax.random.uniform(probability_key), deviation), _first()

    def step(
        self, state: RestlessBanditState, action: Array, key: Array
    ) -> tuple[RestlessBanditState, dm_env.TimeStep]:
        reward_key, walk_key = jax.random.split(key)
        reward = jax.random.bernoulli(reward_key, self.means(state)[action])
        moved = state.probability + state.standard_deviation * jax.random.normal(walk_key)
        state = state._replace(pull=state.pull + 1, probability=_reflect(moved))
        return state, _after(reward, state.pull == self.num_pulls)

    def means(self, state: RestlessBanditState) -> Array:
        return jnp.stack([state.probability, 1 - state.probability])


class InformativeBanditState(NamedTuple):
    """State of an `InformativeBandit`.

    Attributes:
      pull: pulls of the episode so far. int32 scalar.
      target: the candidate that pays most, counted from 0. int32 scalar.
    """

    pull: Array
    target: Array


@component
class InformativeBandit:
    """Candidates, one of which pays most, and an arm that pays little but tells which; a pure-JAX `Bandit`.

    Nothing is left to chance but the target, which an episode draws among the candidates 0 to `num_candidates - 1`. The
    last arm, `num_candidates`, pays (target + 1) / num_candidates. An episode terminates after `num_pulls` pulls.
    Observations are empty, float32 `[0]`.

    Args:
      num_candidates: arms of which one is the target, at least 2; there is one more arm.
      num_pulls: steps of an episode, at least 1.
      target_reward: what the target pays, more than 1: no other arm pays as much.
      other_reward: what the other candidates pay, less than `target_reward`.

    Raises:
      ValueError: if an argument is not as above.
    """

    num_candidates: AtLeastTwo = 10
    num_pulls: PositiveInt = 5
    target_reward: float = 5.0
    other_reward: float = 1.0

    def __post_init__(self) -> None:
        if not self.target_reward > max(1, self.other_reward):
            raise ValueError(
                f'InformativeBandit.target_reward must be more than 1 and more than other_reward = {self.other_reward}, '
                f'got {self.target_reward}'
            )

    def spec(self) -> specs.EnvironmentSpec:
        lowest = min(self.other_reward, 1 / self.num_candidates)
        return _spec(self.num_candidates + 1, lowest, self.target_reward)

    def reset(self, key: Array) -> tuple[InformativeBanditState, dm_env.TimeStep]:
        target = jax.random.randint(key, (), 0, self.num_candidates, jnp.int32)
        return InformativeBanditState(jnp.int32(0), target), _first()

    def step(
        self, state: InformativeBanditState, action: Array, key: Array
    ) -> tuple[InformativeBanditState, dm_env.TimeStep]:
        del key  # What an arm pays is certain.
        reward = self.means(state)[action]
        state = state._replace(pull=state.pull + 1)
        return state, _after(reward, state.pull == self.num_pulls)

    def means(self, state: InformativeBanditState) -> Array:
        is_target = jnp.arange(self.num_candidates) == state.target
        candidates = jnp.where(is_target, self.target_reward, self.other_reward)
        return jnp.append(candidates, (state.target + 1) / self.num_candidates)


def check_standard_deviations(owner: str, standard_deviations: Sequence[float]) -> None:
    """Raises ValueError if there are none; `owner` is the class whose field they are."""
    if not len(standard_deviations):
        raise ValueError(f'{owner}.standard_deviations must be at least one: a task family with zero tasks')


def _spec(num_arms: int, lowest_reward: float, highest_reward: float) -> specs.EnvironmentSpec:
    return specs.EnvironmentSpec(
        observations=specs.Array((0,), np.float32, 'nothing'),
        actions=specs.DiscreteArray(num_arms, name='arm'),
        rewards=specs.BoundedArray((), np.float32, lowest_reward, highest_reward, 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )


def _first() -> dm_env.TimeStep:
    return make_timestep(jnp.zeros(0, jnp.float32), first=True)


def _after(reward: Array, last: Array) -> dm_env.TimeStep:
    return make_timestep(jnp.zeros(0, jnp.float32), reward, jnp.where(last, 0, 1), last=last)


def _reflect(x: Array) -> Array:
    """A number folded into [0, 1] at both ends, as often as it takes."""
    return 1 - jnp.abs(1 - jnp.mod(x, 2))
