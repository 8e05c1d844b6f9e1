"""Hand-designed baseline policies for bandits, and rollouts of them.

Source: Wang et al. (2016) for which of them to compare with. Thompson sampling, upper confidence bounds, Gittins
indices and the update of Rescorla and Wagner are those of textbooks; the Bayes-optimal policies follow from each
bandit's own chances.
"""

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from agents.analysis.meta_rl.bandit_tables import gittins_indices, layer_start, optimal_preferences, position
from components.component import AtLeastTwo, Interval, NonNegative, PositiveInt, UnitInterval, component
from components.environments.bandits import Bandit, check_standard_deviations
from components.types import Array


class BanditPolicy(Protocol):
    """A frozen dataclass that chooses arms by what it remembers of an episode, its statistics: any pytree.

        statistics = policy.init(num_arms)
        for each pull of an episode:
            arm = policy.act(statistics, key)
            statistics = policy.update(statistics, arm, reward)

    A policy that counts on the length of an episode has it as a field `num_pulls`.
    """

    def init(self, num_arms: int) -> PyTree:
        """Statistics before the first pull; ValueError if this policy is not for so many arms."""
        ...

    def act(self, statistics: PyTree, key: Array) -> Array:
        """The arm to pull, int32 scalar."""
        ...

    def update(self, statistics: PyTree, arm: Array, reward: Array) -> PyTree:
        """Statistics after a pull that paid a scalar `reward`."""
        ...


class Rollout(NamedTuple):
    """What `N` episodes of `T` pulls came to.

    Attributes:
      arms: that were pulled. int32 `[N, T]`.
      rewards: that they paid. `[N, T]`.
      regret: by how much less they were expected to pay than the best arm at that pull; its sum over an episode is what
        is usually called regret. `[N, T]`.
    """

    arms: Array
    rewards: Array
    regret: Array


def episode_keys(key: Array, num_episodes: int) -> tuple[Array, Array]:
    """The keys that episodes are reset with, so that all who start from one key play in the same tasks.

    Args:
      key: of the episodes.
      num_episodes: how many, `N`.

    Returns:
      One key for each episode's `reset`, `[N]`, which draws its task; and one for all else that the episodes draw.
    """
    task_key, play_key = jax.random.split(key)
    return jax.random.split(task_key, num_episodes), play_key


def rollout(policy: BanditPolicy, bandit: Bandit, key: Array, num_episodes: int) -> Rollout:
    """Lets a policy play episodes of a bandit, in one compiled program.

    Args:
      policy: that plays.
      bandit: that it plays with.
      key: of the tasks (see `episode_keys`) and of all else.
      num_episodes: `N`.

    Returns:
      Arms, rewards and regret of `N` episodes of `T = bandit.num_pulls` pulls.

    Raises:
      ValueError: if the policy is not for as many arms, or counts on episodes of another length.
    """
    horizon = getattr(policy, 'num_pulls', bandit.num_pulls)
    if horizon != bandit.num_pulls:
        raise ValueError(
            f'{type(policy).__name__}.num_pulls must be {bandit.num_pulls}, as the bandit has it, got {horizon}'
        )
    num_arms = bandit.spec().actions.num_values

    def pull(carry: tuple[PyTree, PyTree], key: Array) -> tuple[tuple[PyTree, PyTree], Rollout]:
        state, statistics = carry
        act_key, step_key = jax.random.split(key)
        arm = policy.act(statistics, act_key)
        means = bandit.means(state)
        state, timestep = bandit.step(state, arm, step_key)
        statistics = policy.update(statistics, arm, timestep.reward)
        return (state, statistics), Rollout(arm, timestep.reward, jnp.max(means) - means[arm])

    def episode(task_key: Array, key: Array) -> Rollout:
        start = bandit.reset(task_key)[0], policy.init(num_arms)
        return jax.lax.scan(pull, start, jax.random.split(key, bandit.num_pulls))[1]

    task_keys, play_key = episode_keys(key, num_episodes)
    return jax.jit(jax.vmap(episode))(task_keys, jax.random.split(play_key, num_episodes))


class Counts(NamedTuple):
    """Statistics of a policy that knows no more of an arm than how often it was pulled, and what it paid.

    Attributes:
      num_pulls: of each arm. int32 `[A]`.
      reward_sums: what each arm has paid in all; how often, where rewards are 0 and 1. `[A]`.
    """

    num_pulls: Array
    reward_sums: Array


class _Counting:
    """What policies share whose statistics are `Counts`."""

    def init(self, num_arms: int) -> Counts:
        return Counts(jnp.zeros(num_arms, jnp.int32), jnp.zeros(num_arms))

    def update(self, statistics: Counts, arm: Array, reward: Array) -> Counts:
        return Counts(statistics.num_pulls.at[arm].add(1), statistics.reward_sums.at[arm].add(reward))


@component
class Random(_Counting):
    """Pulls every arm with the same probability."""

    def act(self, statistics: Counts, key: Array) -> Array:
        return jax.random.randint(key, (), 0, len(statistics.num_pulls), jnp.int32)


@component
class ThompsonSampling(_Counting):
    """Pulls the best arm of a task drawn from its posterior, for rewards 0 and 1.

    Every arm has a prior of its own, Beta(1, 1): the posterior is exact for `Independent` arms.
    """

    def act(self, statistics: Counts, key: Array) -> Array:
        failures = statistics.num_pulls - statistics.reward_sums
        draws = jax.random.beta(key, 1 + statistics.reward_sums, 1 + failures)
        return jnp.argmax(draws).astype(jnp.int32)


@component
class GreedyPosteriorMean(_Counting):
    """Pulls the arm of the highest posterior mean with a prior Beta(1, 1), for rewards 0 and 1; ties at random."""

    def act(self, statistics: Counts, key: Array) -> Array:
        return _best_arm((1 + statistics.reward_sums) / (2 + statistics.num_pulls), key)


@component
class UCB(_Counting):
    """Upper confidence bounds: mean reward + sqrt(exploration * log t / n), after n pulls of an arm and t of all.

    Every arm is pulled once before any is pulled twice. Ties are broken at random.

    Args:
      exploration: above, at least 0; 2 is the form called UCB1, 0.5 and 1 are usual too.

    Raises:
      ValueError: if `exploration` is negative.
    """

    exploration: NonNegative

    def act(self, statistics: Counts, key: Array) -> Array:
        num_pulls = jnp.maximum(statistics.num_pulls, 1)
        log_time = jnp.log(jnp.maximum(jnp.sum(statistics.num_pulls), 1))
        bounds = statistics.reward_sums / num_pulls + jnp.sqrt(self.exploration * log_time / num_pulls)
        return _best_arm(jnp.where(statistics.num_pulls == 0, jnp.inf, bounds), key)


@component
class Gittins(_Counting):
    """Pulls the arm of the highest Gittins index for the pulls that are left, with a prior Beta(1, 1); ties at random.

    The index of an arm is the certain pay per pull that is as good as pulling the arm at least once and taking that pay
    from whenever it is better. For rewards 0 and 1.

    Args:
      num_pulls: of an episode, at least 1.

    Raises:
      ValueError: if `num_pulls` < 1.
    """

    num_pulls: PositiveInt

    def act(self, statistics: Counts, key: Array) -> Array:
        successes = jnp.round(statistics.reward_sums).astype(jnp.int32)
        time = jnp.sum(statistics.num_pulls)
        indices = jnp.asarray(gittins_indices(self.num_pulls))[time, successes, statistics.num_pulls - successes]
        return _best_arm(indices, key)


@component
class BayesOptimal(_Counting):
    """The best policy there is for two `Independent` arms, by dynamic programming over what may be seen; ties at
    random.

    Args:
      num_pulls: of an episode, from 1 to 200: the table of a policy has about num_pulls ** 4 / 24 bytes.

    Raises:
      ValueError: if `num_pulls` is not as above, and from `init` if there are not two arms.
    """

    num_pulls: Annotated[int, Interval(1, 200)]

    def init(self, num_arms: int) -> Counts:
        _check_two_arms(self, num_arms)
        return super().init(num_arms)

    def act(self, statistics: Counts, key: Array) -> Array:
        n = statistics.num_pulls
        successes = jnp.round(statistics.reward_sums).astype(jnp.int32)
        index = layer_start(n[0] + n[1]) + position(n[0] - successes[0] + n[1], n[1], n[1] - successes[1])
        preference = jnp.asarray(optimal_preferences(self.num_pulls)[0])[index]
        return _best_arm(jnp.stack([preference, -preference]), key)

    def expected_regret(self) -> float:
        """Exact expected regret of an episode with `Independent(2)` arms: the least there is."""
        return self.num_pulls * 2 / 3 - optimal_preferences(self.num_pulls)[1]


@component
class MajorityRule(_Counting):
    """Pulls the arm that more of what was seen speaks for: its own successes and the other's failures; ties at random.

    The best policy there is for `Dependent` arms, whichever the family: each pull tells as much of both arms, so
    nothing is gained by exploring. For two arms.

    Raises:
      ValueError: from `init`, if there are not two arms.
    """

    def init(self, num_arms: int) -> Counts:
        _check_two_arms(self, num_arms)
        return super().init(num_arms)

    def act(self, statistics: Counts, key: Array) -> Array:
        failures = statistics.num_pulls - statistics.reward_sums
        return _best_arm(statistics.reward_sums + failures[::-1], key)


@component
class RescorlaWagner:
    """Values that go a fixed part of the way to what their arm has just paid; they start at 0.5.

    Args:
      learning_rate: that part, in [0, 1].
      inverse_temperature: arms are drawn from a softmax of the values times this, at least 0; None: the arm of the
        highest value is pulled, ties at random.

    Raises:
      ValueError: if an argument is not as above.
    """

    learning_rate: UnitInterval = 0.5
    inverse_temperature: NonNegative | None = None

    def init(self, num_arms: int) -> Array:
        return jnp.full(num_arms, 0.5)

    def act(self, statistics: Array, key: Array) -> Array:
        if self.inverse_temperature is None:
            return _best_arm(statistics, key)
        return jax.random.categorical(key, self.inverse_temperature * statistics).astype(jnp.int32)

    def update(self, statistics: Array, arm: Array, reward: Array) -> Array:
        return statistics.at[arm].add(self.learning_rate * (reward - statistics[arm]))


@component
class RandomWalkFilter:
    """Bayes' rule for a `RestlessBandit`: a posterior of how widely its arms walk and where they are, on a grid.

    Greedy, it is the best policy there is for that bandit with the same standard deviations: each pull tells as much of
    both arms, so nothing is gained by exploring.

    Args:
      standard_deviations: of the walk's steps, equally likely at first. A positive one below 1 / num_points is too
        narrow for the grid.
      greedy: whether to pull the arm of the higher posterior mean; if not, the better arm of one draw from the
        posterior, which is Thompson sampling.
      num_points: of the grid over [0, 1], at least 2.

    Raises:
      ValueError: if an argument is not as above, and from `init` if there are not two arms.
    """

    standard_deviations: Sequence[NonNegative] = (0.02, 0.10)
    greedy: bool = True
    num_points: AtLeastTwo = 100

    def __post_init__(self) -> None:
        check_standard_deviations(type(self).__name__, self.standard_deviations)
        narrow = [deviation for deviation in self.standard_deviations if 0 < deviation * self.num_points < 1]
        if narrow:
            raise ValueError(
                f'RandomWalkFilter.num_points must be at least {math.ceil(1 / min(narrow))} for standard deviation '
                f'{min(narrow)}, got {self.num_points}'
            )

    def init(self, num_arms: int) -> Array:
        """The posterior before the first pull: probabilities of standard deviation and arm 0's chance, `[V,
        points]`.
        """
        _check_two_arms(self, num_arms)
        shape = (len(self.standard_deviations), self.num_points)
        return jnp.full(shape, 1 / math.prod(shape))

    def act(self, statistics: Array, key: Array) -> Array:
        posterior = jnp.sum(statistics, axis=0)
        points = jnp.asarray(self._points)
        if self.greedy:
            mean = posterior @ points
            return _best_arm(jnp.stack([mean, 1 - mean]), key)
        arm_1_is_better = posterior @ (1 - jnp.sign(points - 0.5)) / 2
        return jax.random.bernoulli(key, arm_1_is_better).astype(jnp.int32)

    def update(self, statistics: Array, arm: Array, reward: Array) -> Array:
        points = jnp.asarray(self._points)
        # A success of one arm says what a failure of the other does.
        likelihood = jnp.where((arm == 0) == (reward > 0.5), points, 1 - points)
        moved = jnp.einsum('vp,vpq->vq', statistics * likelihood, jnp.asarray(self._transitions()))
        return moved / jnp.sum(moved)

    @property
    def _points(self) -> np.ndarray:
        return (np.arange(self.num_points) + 0.5) / self.num_points

    def _transitions(self) -> np.ndarray:
        """Probabilities of a step from point to point, reflected by the ends, `[V, points, points]`."""
        source, target = np.meshgrid(self._points, self._points, indexing='ij')
        deviations = np.maximum(np.array(self.standard_deviations), 1e-6)[:, None, None]  # 0 stays where it is.
        density = sum(np.exp(-0.5 * ((image - source) / deviations) ** 2) for image in _images(target, deviations))
        return density / density.sum(axis=-1, keepdims=True)


@component
class InformativeArmFirst:
    """Pulls the last arm of an `InformativeBandit`, then the one it told; the best policy there is from three pulls
    on.
    """

    def init(self, num_arms: int) -> Array:
        return jax.nn.one_hot(num_arms - 1, num_arms)

    def act(self, statistics: Array, key: Array) -> Array:
        del key
        return jnp.argmax(statistics).astype(jnp.int32)

    def update(self, statistics: Array, arm: Array, reward: Array) -> Array:
        num_candidates = len(statistics) - 1
        target = jnp.round(reward * num_candidates).astype(jnp.int32) - 1
        return jnp.where(arm == num_candidates, jax.nn.one_hot(target, num_candidates + 1), statistics)


@component
class SearchWithoutReplacement:
    """Pulls candidates of an `InformativeBandit` in random order until one is the target, and stays there.

    This is Thompson sampling with the true prior: in no task is the last arm the best one, so it is never pulled.

    Args:
      target_reward: what the target pays.
    """

    target_reward: float = 5.0

    def init(self, num_arms: int) -> Array:
        """Which arms may be the target, bool `[A]`."""
        return jnp.arange(num_arms) < num_arms - 1

    def act(self, statistics: Array, key: Array) -> Array:
        return _best_arm(statistics.astype(jnp.float32), key)

    def update(self, statistics: Array, arm: Array, reward: Array) -> Array:
        is_arm = jnp.arange(len(statistics)) == arm
        return jnp.where(jnp.isclose(reward, self.target_reward), is_arm, statistics & ~is_arm)


def _best_arm(values: Array, key: Array) -> Array:
    """The arm of the highest value, `[A]`; one of them at random where there are several."""
    ties = values == jnp.max(values)
    return jnp.argmax(jnp.where(ties, jax.random.uniform(key, values.shape), -1)).astype(jnp.int32)


def _check_two_arms(policy: BanditPolicy, num_arms: int) -> None:
    if num_arms != 2:
        raise ValueError(f'{type(policy).__name__} is a policy for 2 arms, got a bandit of {num_arms}')


def _images(points: np.ndarray, deviations: np.ndarray) -> list[np.ndarray]:
    """Where a step may lead without an end if it leads to `points` with both ends reflecting, up to 6 deviations
    away.
    """
    num_folds = math.ceil(3 * deviations.max()) + 1
    return [sign * points + 2 * fold for sign in (1, -1) for fold in range(-num_folds, num_folds + 1)]
