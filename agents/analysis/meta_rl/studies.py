"""The registered studies of deep meta-RL: metrics and baselines of bandits, two-step task, Harlow task and I-maze.

`study_of` is the registry, by class of environment. A study of another task registers itself in its own module, which a
gin file imports:

    class MyStudy(Study): ...

    study_of.register(MyTask, MyStudy)

Source: Wang et al. (2016), whose figures these are the numbers of; the policies to compare with are said there too, or
are Bayes-optimal.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agents.analysis.frozen_episodes import FrozenEpisodes
from agents.analysis.meta_rl import bandit_policies, behaviour_fits, two_step_policies
from agents.analysis.meta_rl.bandit_policies import BanditPolicy, Rollout
from agents.analysis.meta_rl.harlow import performance_by_trial
from agents.analysis.meta_rl.i_maze import goal_latencies
from agents.analysis.meta_rl.study import Baseline, Fit, Row, SimulatedFit, Study
from components.environments.bandits import Bandit, BernoulliBandit, InformativeBandit, RestlessBandit
from components.environments.base import Environment
from components.environments.harlow.pixels import Harlow
from components.environments.harlow.ring import RingHarlow
from components.environments.harlow.symbolic import SymbolicHarlow
from components.environments.i_maze.pixels import IMaze
from components.environments.i_maze.symbolic import SymbolicIMaze
from components.environments.two_step import TwoStep
from components.types import Array, ConfigurationError

AnyHarlow = SymbolicHarlow | RingHarlow | Harlow


@functools.singledispatch
def study_of(environment: Environment) -> Study:
    """The study of an environment without wrappers, the registered one of its class or of the nearest base class.

    Raises:
      ConfigurationError: if none is registered; the message names the environments that have one.
    """
    known = sorted(cls.__name__ for cls in study_of.registry if cls is not object)
    raise ConfigurationError(
        f'no study is registered for {type(environment).__name__}, only for {", ".join(known)}: import the module that '
        'registers one (studies.study_of.register) in a gin file'
    )


@dataclasses.dataclass(frozen=True)
class BanditStudy(Study):
    """Regret, reward and share of best arms by pull."""

    environment: Bandit
    x = 'pull'
    y = ('cumulative_regret',)

    def num_steps(self) -> int:
        return self.environment.num_pulls

    def measure(self, recording: FrozenEpisodes) -> list[Row]:
        return self.rows(rollout_of(self.environment, recording))

    def rows(self, rollout: Rollout) -> list[Row]:
        """For each pull: what has been lost and won so far, and the share of episodes that pull the best arm."""
        columns = {name: np.asarray(x) for name, x in self.columns(rollout).items()}
        return [
            {'pull': t + 1, **{name: float(x[t]) for name, x in columns.items()}} for t in range(rollout.arms.shape[1])
        ]

    def columns(self, rollout: Rollout) -> dict[str, Array]:
        """What the rows tell, each by pull, `[T]`."""
        regret = np.cumsum(np.asarray(rollout.regret, np.float64), 1)
        reward = np.cumsum(np.asarray(rollout.rewards, np.float64), 1)
        return {
            'cumulative_regret': regret.mean(0),
            'standard_error': regret.std(0, ddof=1) / np.sqrt(len(regret)),
            'cumulative_reward': reward.mean(0),
            'best_arm': (np.asarray(rollout.regret) < 1e-6).mean(0),
        }

    def summary(self, rows: Sequence[Row]) -> Row:
        last = rows[-1]
        return {
            'regret': last['cumulative_regret'],
            'standard error': last['standard_error'],
            'sub-optimal pulls': sum(1 - row['best_arm'] for row in rows),
            'reward': last['cumulative_reward'],
        }

    def baselines(self) -> Mapping[str, Baseline]:
        def played_by(policy: BanditPolicy) -> Baseline:
            return lambda key, n: self.rows(bandit_policies.rollout(policy, self.environment, key, n))

        return {name: played_by(policy) for name, policy in self.policies().items()}

    def policies(self) -> dict[str, BanditPolicy]:
        """The policies of the baselines, by name."""
        policies = _policies_for_any_bandit() | {'Thompson': bandit_policies.ThompsonSampling()}
        if self.environment.spec().actions.num_values == 2:
            policies |= {
                'Gittins': bandit_policies.Gittins(self.num_steps()),
                'Bayes-optimal (independent)': bandit_policies.BayesOptimal(self.num_steps()),
                'majority rule': bandit_policies.MajorityRule(),
            }
        return policies


def rollout_of(bandit: Bandit, recording: FrozenEpisodes) -> Rollout:
    """An agent's recorded episodes of a bandit, with the regret of each pull."""
    before = jax.tree.map(lambda x: x[:-1], recording.states)
    means = jax.vmap(jax.vmap(bandit.means))(before)
    chosen = jnp.take_along_axis(means, recording.actions[..., None], -1)[..., 0]
    rollout = Rollout(recording.actions, recording.rewards, means.max(-1) - chosen)
    return jax.tree.map(lambda x: np.asarray(x).T, rollout)


def _policies_for_any_bandit() -> dict[str, BanditPolicy]:
    return {
        'random': bandit_policies.Random(),
        **{f'UCB ({exploration:g})': bandit_policies.UCB(exploration) for exploration in (0.5, 1, 2)},
    }


@dataclasses.dataclass(frozen=True)
class InformativeStudy(BanditStudy):
    """The same where one arm tells which the best is: how often that one is pulled, too."""

    environment: InformativeBandit

    def columns(self, rollout: Rollout) -> dict[str, Array]:
        informative = np.asarray(rollout.arms) == self.environment.num_candidates
        return {**super().columns(rollout), 'informative_arm': informative.mean(0)}

    def summary(self, rows: Sequence[Row]) -> Row:
        pulls = [row['informative_arm'] for row in rows]
        return {**super().summary(rows), 'informative arm first': pulls[0], 'and later': float(np.mean(pulls[1:]))}

    def policies(self) -> dict[str, BanditPolicy]:
        return _policies_for_any_bandit() | {
            'Thompson (true prior)': bandit_policies.SearchWithoutReplacement(self.environment.target_reward),
            'Bayes-optimal': bandit_policies.InformativeArmFirst(),
        }


@dataclasses.dataclass(frozen=True)
class RestlessStudy(BanditStudy):
    """The same where arms walk: each width of the walk by itself, where models of behaviour are fitted.

    Args:
      environment: the bandit.
      prior: what the Bayes-optimal policy takes it for; None for what it is.
    """

    environment: RestlessBandit
    prior: RestlessBandit | None = None

    def policies(self) -> dict[str, BanditPolicy]:
        deviations = tuple((self.prior or self.environment).standard_deviations)
        return _policies_for_any_bandit() | {
            'Thompson (random walk)': bandit_policies.RandomWalkFilter((0.05,), greedy=False),
            'Rescorla-Wagner (0.5)': bandit_policies.RescorlaWagner(0.5),
            'Rescorla-Wagner (0.2)': bandit_policies.RescorlaWagner(0.2),
            'Bayes-optimal': bandit_policies.RandomWalkFilter(deviations),
        }

    def variations(self) -> Mapping[str, Study]:
        deviations = tuple(self.environment.standard_deviations)
        if len(deviations) == 1:
            return {}
        alone = {d: dataclasses.replace(self.environment, standard_deviations=(d,)) for d in deviations}
        return {f'standard deviation {d:g}': RestlessStudy(one, self.environment) for d, one in alone.items()}

    def fits(self, recording: FrozenEpisodes) -> list[Fit]:
        return self._fits_of(rollout_of(self.environment, recording))

    def simulated(self) -> Mapping[str, SimulatedFit]:
        def played_by(policy: BanditPolicy) -> SimulatedFit:
            return lambda key, n: self._fits_of(bandit_policies.rollout(policy, self.environment, key, n))

        return {
            'Rescorla-Wagner (0.5)': played_by(bandit_policies.RescorlaWagner(0.5)),
            'Rescorla-Wagner (0.5), softmax': played_by(bandit_policies.RescorlaWagner(0.5, inverse_temperature=5.0)),
        }

    def _fits_of(self, rollout: Rollout) -> list[Fit]:
        """None where episodes of several widths are mixed."""
        deviation, *others = self.environment.standard_deviations
        if others:
            return []
        fits = behaviour_fits.fits_of(rollout.arms, rollout.rewards)
        return [{'standard_deviation': deviation, **fit} for fit in fits]


@dataclasses.dataclass(frozen=True)
class TwoStepStudy(Study):
    """Probabilities of repeating a choice by reward x transition, their interaction and main effect."""

    environment: TwoStep
    x = None
    y = ('rewarded_common', 'rewarded_rare', 'unrewarded_common', 'unrewarded_rare')

    def num_steps(self) -> int:
        return 2 * self.environment.num_trials

    def measure(self, recording: FrozenEpisodes) -> list[Row]:
        places = recording.states.place[:-1]
        return self._rows(two_step_policies.TwoStepEpisodes(places.T, recording.actions.T, recording.rewards.T))

    def baselines(self) -> Mapping[str, Baseline]:
        task = self.environment
        policies: dict[str, two_step_policies.TwoStepPolicy] = {
            'random': two_step_policies.TwoStepRandom(),
            'model-free (SARSA)': two_step_policies.Sarsa(),
            'last outcome': two_step_policies.LastOutcome(),
            'Bayes-optimal': two_step_policies.TwoStepBayesOptimal(task.reward_probability, task.switch_probability),
        }

        def played_by(policy: two_step_policies.TwoStepPolicy) -> Baseline:
            return lambda key, n: self._rows(two_step_policies.rollout(policy, task, key, n))

        return {name: played_by(policy) for name, policy in policies.items()}

    def _rows(self, episodes: two_step_policies.TwoStepEpisodes) -> list[Row]:
        found = two_step_policies.stay_probabilities(episodes)
        return [{name: float(value) for name, value in found._asdict().items()}]


@dataclasses.dataclass(frozen=True)
class HarlowStudy(Study):
    """Share of correct choices by trial, with the objects of training and with as many others."""

    environment: AnyHarlow
    x = 'trial'
    y = ('correct',)

    def num_steps(self) -> int:
        match self.environment:
            case SymbolicHarlow(num_trials=num_trials, fixation=fixation):
                return num_trials * (2 if fixation else 1)
            case RingHarlow(max_steps=max_steps):
                return max_steps
            case Harlow(max_steps=max_steps, action_repeat=action_repeat):
                return -(-max_steps // action_repeat)

    def measure(self, recording: FrozenEpisodes) -> list[Row]:
        after = jax.tree.map(lambda x: x[1:], recording.states)
        after = after._replace(selected=after.selected & recording.played)
        correct = performance_by_trial(after, self.environment.num_trials)
        score = recording.rewards.sum(0).mean()
        return [{'trial': i + 1, 'correct': float(x), 'episode_return': float(score)} for i, x in enumerate(correct)]

    def summary(self, rows: Sequence[Row]) -> Row:
        correct = [row['correct'] for row in rows]
        return {
            'trial 1': correct[0],
            'trial 2': correct[1] if len(correct) > 1 else np.nan,
            'trials 3 on': float(np.mean(correct[2:])) if len(correct) > 2 else np.nan,
            'return': rows[0]['episode_return'],
        }

    def variations(self) -> Mapping[str, Study]:
        return {'held-out objects': HarlowStudy(_with_other_objects(self.environment))}


def _with_other_objects(environment: AnyHarlow) -> AnyHarlow:
    """The same task with as many objects that it does not have."""
    if isinstance(environment, Harlow):
        return dataclasses.replace(environment, first_image=environment.first_image + environment.num_images)
    return dataclasses.replace(environment, first_object=environment.first_object + environment.num_objects)


@dataclasses.dataclass(frozen=True)
class IMazeStudy(Study):
    """Steps to an episode's first goal, and from there to each later one."""

    environment: SymbolicIMaze | IMaze
    x = None
    y = ('first', 'later')

    def num_steps(self) -> int:
        return self.environment.num_steps

    def measure(self, recording: FrozenEpisodes) -> list[Row]:
        found = goal_latencies(recording.states.reached_goal[1:])
        score = float(recording.rewards.sum(0).mean())
        return [{**found._asdict(), 'later_over_first': found.later / found.first, 'episode_return': score}]


study_of.register(BernoulliBandit, BanditStudy)
study_of.register(InformativeBandit, InformativeStudy)
study_of.register(RestlessBandit, RestlessStudy)
study_of.register(TwoStep, TwoStepStudy)
study_of.register(AnyHarlow, HarlowStudy)
study_of.register(SymbolicIMaze | IMaze, IMazeStudy)
