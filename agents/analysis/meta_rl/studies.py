"""Metrics and baselines of deep meta-RL, by task family.

Source: Wang et al. (2016), whose figures these are the numbers of; the policies to compare with are said there too, or
are Bayes-optimal.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.analysis.frozen_episodes import FrozenEpisodes
from agents.analysis.meta_rl import bandit_policies, behaviour_fits, two_step_policies
from agents.analysis.meta_rl.bandit_policies import BanditPolicy, Rollout
from agents.analysis.meta_rl.harlow import performance_by_trial
from agents.analysis.meta_rl.i_maze import goal_latencies
from components.environments.bandits import Bandit, BernoulliBandit, InformativeBandit, RestlessBandit
from components.environments.base import Environment
from components.environments.harlow.pixels import Harlow
from components.environments.harlow.ring import RingHarlow
from components.environments.harlow.symbolic import SymbolicHarlow
from components.environments.i_maze.pixels import IMaze
from components.environments.i_maze.symbolic import SymbolicIMaze
from components.environments.two_step import TwoStep
from components.types import Array

Row = dict[str, float]
AnyHarlow = SymbolicHarlow | RingHarlow | Harlow


class Study(NamedTuple):
    """What is measured in an environment.

    Attributes:
      environment: without wrappers.
      num_steps: of its longest episode.
      measure: from recorded episodes to rows: one for each pull or trial, or a single one.
      baselines: hand-designed policies, by name: from a key of `bandit_policies.episode_keys` and a number
        of episodes to the same rows.
      variations: studies of other forms of the environment to measure in as well, by name.
      summary: from rows to the few numbers that tell most.
      x: column that curves are drawn over; None for bars.
      y: columns that are drawn.
      fits: from recorded episodes to rows of `behaviour_fits.fits_of`; None where no models of behaviour are fitted.
      simulated: such rows of policies that are such models, by name, from a key and a number of episodes.
    """

    environment: Environment
    num_steps: int
    measure: Callable[[FrozenEpisodes], list[Row]]
    summary: Callable[[Sequence[Row]], Row]
    x: str | None
    y: Sequence[str]
    baselines: Mapping[str, Callable[[Array, int], list[Row]]] = {}
    variations: Mapping[str, 'Study'] = {}
    fits: Callable[[FrozenEpisodes], list[dict[str, Any]]] | None = None
    simulated: Mapping[str, Callable[[Array, int], list[dict[str, Any]]]] = {}


def study_of(environment: Environment) -> Study:
    """The study of an environment without wrappers.

    Raises:
      ValueError: if there is none.
    """
    match environment:
        case BernoulliBandit() | RestlessBandit() | InformativeBandit():
            return _study_of_bandit(environment)
        case TwoStep():
            return _study_of_two_step(environment)
        case SymbolicHarlow() | RingHarlow() | Harlow():
            return _study_of_harlow(environment)
        case SymbolicIMaze() | IMaze():
            return _study_of_i_maze(environment)
    raise ValueError(
        f'there is nothing to report of {type(environment).__name__}: reports are of bandits, and of TwoStep, '
        'SymbolicHarlow, RingHarlow, Harlow, SymbolicIMaze and IMaze'
    )


def _study_of_bandit(bandit: Bandit, prior: Bandit | None = None) -> Study:
    """The study of a bandit, with policies that take it for one of `prior`, if that is given."""

    def measure(recording: FrozenEpisodes) -> list[Row]:
        return _rows_of_rollout(rollout_of(bandit, recording), bandit)

    def played_by(policy: BanditPolicy) -> Callable[[Array, int], list[Row]]:
        return lambda key, num_episodes: _rows_of_rollout(
            bandit_policies.rollout(policy, bandit, key, num_episodes), bandit
        )

    baselines = {name: played_by(policy) for name, policy in _policies_for(prior or bandit).items()}
    study = Study(bandit, bandit.num_pulls, measure, _summary_of_rollout, 'pull', ('cumulative_regret',), baselines)
    return _with_volatilities(study, bandit) if isinstance(bandit, RestlessBandit) else study


def _with_volatilities(study: Study, bandit: RestlessBandit) -> Study:
    """Measures each standard deviation of the walk for itself; with a single one, fits models of behaviour."""
    deviations = tuple(bandit.standard_deviations)
    if len(deviations) > 1:
        alone = {d: dataclasses.replace(bandit, standard_deviations=(d,)) for d in deviations}
        variations = {f'standard deviation {d:g}': _study_of_bandit(one, bandit) for d, one in alone.items()}
        return study._replace(variations=variations)

    def rows(rollout: Rollout) -> list[dict[str, Any]]:
        return [
            {'standard_deviation': deviations[0], **row}
            for row in behaviour_fits.fits_of(rollout.arms, rollout.rewards)
        ]

    def played_by(policy: BanditPolicy) -> Callable[[Array, int], list[dict[str, Any]]]:
        return lambda key, num_episodes: rows(bandit_policies.rollout(policy, bandit, key, num_episodes))

    return study._replace(
        fits=lambda recording: rows(rollout_of(bandit, recording)),
        simulated={
            'Rescorla-Wagner (0.5)': played_by(bandit_policies.RescorlaWagner(0.5)),
            'Rescorla-Wagner (0.5), softmax': played_by(bandit_policies.RescorlaWagner(0.5, inverse_temperature=5.0)),
        },
    )


def rollout_of(bandit: Bandit, recording: FrozenEpisodes) -> Rollout:
    """An agent's recorded episodes of a bandit, with the regret of each pull."""
    before = jax.tree.map(lambda x: x[:-1], recording.states)
    means = jax.vmap(jax.vmap(bandit.means))(before)
    chosen = jnp.take_along_axis(means, recording.actions[..., None], -1)[..., 0]
    rollout = Rollout(recording.actions, recording.rewards, means.max(-1) - chosen)
    return jax.tree.map(lambda x: np.asarray(x).T, rollout)


def _policies_for(bandit: Bandit) -> dict[str, BanditPolicy]:
    num_pulls, num_arms = bandit.num_pulls, bandit.spec().actions.num_values
    policies: dict[str, BanditPolicy] = {
        'random': bandit_policies.Random(),
        **{f'UCB ({exploration:g})': bandit_policies.UCB(exploration) for exploration in (0.5, 1, 2)},
    }
    if isinstance(bandit, InformativeBandit):
        return policies | {
            'Thompson (true prior)': bandit_policies.SearchWithoutReplacement(bandit.target_reward),
            'Bayes-optimal': bandit_policies.InformativeArmFirst(),
        }
    if isinstance(bandit, RestlessBandit):
        deviations = tuple(bandit.standard_deviations)
        return policies | {
            'Thompson (random walk)': bandit_policies.RandomWalkFilter((0.05,), greedy=False),
            'Rescorla-Wagner (0.5)': bandit_policies.RescorlaWagner(0.5),
            'Rescorla-Wagner (0.2)': bandit_policies.RescorlaWagner(0.2),
            'Bayes-optimal': bandit_policies.RandomWalkFilter(deviations),
        }
    policies |= {'Thompson': bandit_policies.ThompsonSampling()}
    if num_arms == 2:
        policies |= {
            'Gittins': bandit_policies.Gittins(num_pulls),
            'Bayes-optimal (independent)': bandit_policies.BayesOptimal(num_pulls),
            'majority rule': bandit_policies.MajorityRule(),
        }
    return policies


def _rows_of_rollout(rollout: Rollout, bandit: Bandit) -> list[Row]:
    """For each pull: what has been lost and won so far, and the share of episodes that pull the best arm."""
    regret = np.cumsum(np.asarray(rollout.regret, np.float64), 1)
    reward = np.cumsum(np.asarray(rollout.rewards, np.float64), 1)
    columns = {
        'cumulative_regret': regret.mean(0),
        'standard_error': regret.std(0, ddof=1) / np.sqrt(len(regret)),
        'cumulative_reward': reward.mean(0),
        'best_arm': (np.asarray(rollout.regret) < 1e-6).mean(0),
    }
    if isinstance(bandit, InformativeBandit):
        columns['informative_arm'] = (np.asarray(rollout.arms) == bandit.num_candidates).mean(0)
    return [{'pull': t + 1, **{name: float(x[t]) for name, x in columns.items()}} for t in range(regret.shape[1])]


def _summary_of_rollout(rows: Sequence[Row]) -> Row:
    last = rows[-1]
    summary = {
        'regret': last['cumulative_regret'],
        'standard error': last['standard_error'],
        'sub-optimal pulls': sum(1 - row['best_arm'] for row in rows),
        'reward': last['cumulative_reward'],
    }
    if 'informative_arm' in last:
        summary['informative arm first'] = rows[0]['informative_arm']
        summary['and later'] = float(np.mean([row['informative_arm'] for row in rows[1:]]))
    return summary


def _study_of_two_step(environment: TwoStep) -> Study:
    def rows(recording: two_step_policies.TwoStepEpisodes) -> list[Row]:
        found = two_step_policies.stay_probabilities(recording)
        return [{name: float(value) for name, value in found._asdict().items()}]

    def measure(recording: FrozenEpisodes) -> list[Row]:
        places = recording.states.place[:-1]
        return rows(two_step_policies.TwoStepEpisodes(places.T, recording.actions.T, recording.rewards.T))

    policies: dict[str, two_step_policies.TwoStepPolicy] = {
        'random': two_step_policies.Random(),
        'model-free (SARSA)': two_step_policies.Sarsa(),
        'last outcome': two_step_policies.LastOutcome(),
        'Bayes-optimal': two_step_policies.BayesOptimal(environment.reward_probability, environment.switch_probability),
    }
    baselines = {
        name: lambda key, n, policy=policy: rows(two_step_policies.rollout(policy, environment, key, n))
        for name, policy in policies.items()
    }
    bars = ('rewarded_common', 'rewarded_rare', 'unrewarded_common', 'unrewarded_rare')
    return Study(environment, 2 * environment.num_trials, measure, lambda rows: rows[0], None, bars, baselines)


def _study_of_harlow(environment: AnyHarlow) -> Study:
    def measure(recording: FrozenEpisodes) -> list[Row]:
        after = jax.tree.map(lambda x: x[1:], recording.states)
        after = after._replace(selected=after.selected & recording.played)
        correct = performance_by_trial(after, environment.num_trials)
        score = recording.rewards.sum(0).mean()
        return [{'trial': i + 1, 'correct': float(x), 'episode_return': float(score)} for i, x in enumerate(correct)]

    def summary(rows: Sequence[Row]) -> Row:
        correct = [row['correct'] for row in rows]
        return {
            'trial 1': correct[0],
            'trial 2': correct[1] if len(correct) > 1 else np.nan,
            'trials 3 on': float(np.mean(correct[2:])) if len(correct) > 2 else np.nan,
            'return': rows[0]['episode_return'],
        }

    study = Study(environment, _longest_episode(environment), measure, summary, 'trial', ('correct',))
    held_out = study._replace(environment=_with_other_objects(environment))
    return study._replace(variations={'held-out objects': held_out})


def _longest_episode(environment: AnyHarlow) -> int:
    match environment:
        case SymbolicHarlow():
            return environment.num_trials * (2 if environment.fixation else 1)
        case RingHarlow():
            return environment.max_steps
        case Harlow():
            return -(-environment.max_steps // environment.action_repeat)


def _with_other_objects(environment: AnyHarlow) -> AnyHarlow:
    """The same task with as many objects that it does not have."""
    if isinstance(environment, Harlow):
        return dataclasses.replace(environment, first_image=environment.first_image + environment.num_images)
    return dataclasses.replace(environment, first_object=environment.first_object + environment.num_objects)


def _study_of_i_maze(environment: SymbolicIMaze | IMaze) -> Study:
    def measure(recording: FrozenEpisodes) -> list[Row]:
        found = goal_latencies(recording.states.reached_goal[1:])
        score = float(recording.rewards.sum(0).mean())
        return [{**found._asdict(), 'later_over_first': found.later / found.first, 'episode_return': score}]

    return Study(environment, environment.num_steps, measure, lambda rows: rows[0], None, ('first', 'later'))
