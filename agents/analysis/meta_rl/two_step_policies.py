"""Hand-designed baseline policies for the two-step task, rollouts of them, and their stay probabilities.

Source: Wang et al. (2016) for the task and the probabilities of staying. The Bayes-optimal policy, the rule of the last
outcome and the model-free control are this project's choice of what to show beside a learned agent.
"""

import math
from typing import Annotated, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from agents.analysis.meta_rl.bandit_policies import episode_keys
from components.component import Interval, NonNegative, UnitInterval, component
from components.environments.two_step import TwoStep, TwoStepState
from components.types import Array


class TwoStepPolicy(Protocol):
    """A frozen dataclass that chooses first actions by what it remembers of an episode, its statistics: any pytree.

    statistics = policy.init()
    for each trial of an episode:
        action = policy.act(statistics, key)
        statistics = policy.update(statistics, action, place, reward)
    """

    def init(self) -> PyTree:
        """Statistics before the first trial."""
        ...

    def act(self, statistics: PyTree, key: Array) -> Array:
        """The action of the first stage, 0 or 1, int32 scalar."""
        ...

    def update(self, statistics: PyTree, action: Array, place: Array, reward: Array) -> PyTree:
        """Statistics after a trial in which `action` led to `place`, 1 or 2, which paid `reward`; scalars."""
        ...


class TwoStepEpisodes(NamedTuple):
    """What `N` episodes of the two-step task came to, `T` steps each: two for a trial.

    Attributes:
      places: where each action was chosen, the observation's one-hot number: 0 at even steps, 1 or 2 at odd ones. int32
        `[N, T]`.
      actions: that were chosen; those at odd steps mean nothing. int32 `[N, T]`.
      rewards: of the transitions that the actions started, which is 0 at even steps. `[N, T]`.
    """

    places: Array
    actions: Array
    rewards: Array


def rollout(policy: TwoStepPolicy, environment: TwoStep, key: Array, num_episodes: int) -> TwoStepEpisodes:
    """Lets a policy play episodes of the two-step task, in one compiled program.

    Args:
      policy: that plays; at the second stage action 0 is taken, which means nothing.
      environment: the task.
      key: of the tasks (see `bandit_policies.episode_keys`) and of all else.
      num_episodes: `N`.

    Returns:
      A recording of `N` episodes of `T = 2 * environment.num_trials` steps.
    """

    def trial(carry: tuple[TwoStepState, PyTree], key: Array) -> tuple[tuple[TwoStepState, PyTree], TwoStepEpisodes]:
        state, statistics = carry
        act_key, first_key, second_key = jax.random.split(key, 3)
        action, nothing = policy.act(statistics, act_key), jnp.int32(0)
        between, first = environment.step(state, action, first_key)
        after, second = environment.step(between, nothing, second_key)
        recording = TwoStepEpisodes(
            places=jnp.stack([state.place, between.place]),
            actions=jnp.stack([action, nothing]),
            rewards=jnp.stack([first.reward, second.reward]),
        )
        return (after, policy.update(statistics, action, between.place, second.reward)), recording

    def episode(task_key: Array, key: Array) -> TwoStepEpisodes:
        start = environment.reset(task_key)[0], policy.init()
        recording = jax.lax.scan(trial, start, jax.random.split(key, environment.num_trials))[1]
        return jax.tree.map(jnp.ravel, recording)

    task_keys, play_key = episode_keys(key, num_episodes)
    return jax.jit(jax.vmap(episode))(task_keys, jax.random.split(play_key, num_episodes))


class StayProbabilities(NamedTuple):
    """How often the first action of the trial before was repeated, by what that trial was like; scalars.

    Model-based behaviour shows a reward x transition interaction, model-free behaviour a main effect of reward.

    Attributes:
      rewarded_common: after a reward and a common transition; NaN, like the three others, if no trial was of that kind.
      rewarded_rare: after a reward and a rare transition.
      unrewarded_common: after no reward and a common transition.
      unrewarded_rare: after no reward and a rare transition.
      interaction: of reward and transition, (rewarded common - rare) - (unrewarded common - rare).
      main_effect: of reward, half of (rewarded common + rare) - (unrewarded common + rare).
      mean_reward: of a trial, the first ones included.
    """

    rewarded_common: Array
    rewarded_rare: Array
    unrewarded_common: Array
    unrewarded_rare: Array
    interaction: Array
    main_effect: Array
    mean_reward: Array


def stay_probabilities(recording: TwoStepEpisodes) -> StayProbabilities:
    """Counts repeated choices in whole episodes of the two-step task, a learned agent's or those of `rollout`.

    Args:
      recording: of at least two trials; every episode starts with a first stage. A transition is common if it led to
        the place `action + 1`.

    Returns:
      Probabilities over all trials but each episode's first, all episodes together.

    Raises:
      ValueError: if episodes are not of an even number of steps, at least 4.
    """
    num_steps = recording.actions.shape[1]
    if num_steps < 4 or num_steps % 2:
        raise ValueError(
            f'stay_probabilities needs episodes of two trials or more, two steps each, got {num_steps} steps'
        )
    choices, rewards = recording.actions[:, ::2], recording.rewards[:, 1::2]
    stays = choices[:, 1:] == choices[:, :-1]
    common = (recording.places[:, 1::2] == choices + 1)[:, :-1]
    rewarded = (rewards > 0)[:, :-1]

    def after(kind: Array) -> Array:
        return jnp.sum(stays & kind) / jnp.sum(kind)

    kinds = (rewarded & common, rewarded & ~common, ~rewarded & common, ~rewarded & ~common)
    rc, rr, uc, ur = (after(kind) for kind in kinds)
    return StayProbabilities(rc, rr, uc, ur, (rc - rr) - (uc - ur), (rc + rr - uc - ur) / 2, jnp.mean(rewards))


@component
class TwoStepRandom:
    """Chooses either action with the same probability."""

    def init(self) -> tuple[()]:
        return ()

    def act(self, statistics: tuple[()], key: Array) -> Array:
        del statistics
        return jax.random.randint(key, (), 0, 2, jnp.int32)

    def update(self, statistics: tuple[()], action: Array, place: Array, reward: Array) -> tuple[()]:
        del action, place, reward
        return statistics


@component
class TwoStepBayesOptimal:
    """Chooses the action that commonly leads where the reward more probably is; the best policy there is.

    Its statistics are the logarithm of the odds that place 1 pays and not place 2. Every trial moves it by as much,
    whatever was chosen, so nothing is gained by exploring. Even odds are broken at random.

    Args:
      reward_probability: that the paying place pays, above 0.5 and below 1.
      switch_probability: that the paying place switches before a trial, in [0, 1].

    Raises:
      ValueError: if an argument is not as above.
    """

    reward_probability: Annotated[float, Interval(0.5, 1, low_open=True, high_open=True)] = 0.9
    switch_probability: UnitInterval = 0.0

    def init(self) -> Array:
        return jnp.zeros(())

    def act(self, statistics: Array, key: Array) -> Array:
        return _towards(statistics, key)

    def update(self, statistics: Array, action: Array, place: Array, reward: Array) -> Array:
        del action
        step = math.log(self.reward_probability) - math.log1p(-self.reward_probability)
        log_odds = statistics + step * _evidence(place, reward)
        stays, switches = jnp.log(1 - self.switch_probability), jnp.log(self.switch_probability)
        return jnp.logaddexp(stays + log_odds, switches) - jnp.logaddexp(switches + log_odds, stays)


@component
class LastOutcome:
    """Chooses the action that commonly leads where the last trial says the reward is; the first one at random.

    Its statistics are that evidence: 1 for place 1, -1 for place 2.
    """

    def init(self) -> Array:
        return jnp.zeros(())

    def act(self, statistics: Array, key: Array) -> Array:
        return _towards(statistics, key)

    def update(self, statistics: Array, action: Array, place: Array, reward: Array) -> Array:
        del statistics, action
        return _evidence(place, reward)


@component
class Sarsa:
    """Repeats what was rewarded, without a model of the transitions: tabular SARSA(1), with a softmax of its values.

    With eligibility traces that do not decay, the value of the first action goes towards what the trial paid, wherever
    it led. Values, `[2]`, start at 0 with every episode.

    Args:
      learning_rate: the part of the way it goes, in [0, 1].
      inverse_temperature: that multiplies the values, at least 0.

    Raises:
      ValueError: if an argument is not as above.
    """

    learning_rate: UnitInterval = 0.5
    inverse_temperature: NonNegative = 5.0

    def init(self) -> Array:
        return jnp.zeros(2)

    def act(self, statistics: Array, key: Array) -> Array:
        return jax.random.categorical(key, self.inverse_temperature * statistics).astype(jnp.int32)

    def update(self, statistics: Array, action: Array, place: Array, reward: Array) -> Array:
        del place
        return statistics.at[action].add(self.learning_rate * (reward - statistics[action]))


def _evidence(place: Array, reward: Array) -> Array:
    """1 if a trial speaks for place 1, by a reward there or none at place 2, else -1."""
    return jnp.where((place == 1) == (reward > 0), 1.0, -1.0)


def _towards(evidence: Array, key: Array) -> Array:
    """The action that commonly leads to the place that evidence above 0, or below it, speaks for; at 0 a random one."""
    # Log-odds that come back to 0 do so up to rounding.
    even = jnp.abs(evidence) < 1e-4
    return jnp.where(even, jax.random.bernoulli(key), evidence < 0).astype(jnp.int32)
