"""What is measured in episodes of each family of tasks, and the registry of studies."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.meta_rl import bandit_policies, report
from agents.analysis.meta_rl.studies import rollout_of, study_of
from agents.analysis.meta_rl.study import Study
from components.environments.bandits import BernoulliBandit, Dependent, Independent, InformativeBandit, RestlessBandit
from components.environments.catch import Catch
from components.environments.harlow.pixels import Harlow
from components.environments.harlow.symbolic import SymbolicHarlow
from components.environments.i_maze.symbolic import SymbolicIMaze
from components.environments.two_step import TwoStep
from components.environments.wrappers import PreviousAction, PreviousReward
from components.types import ConfigurationError
from tests.helpers.scripted_agents import KEY, record, win_stay


def test_others_play_the_same_tasks():
    bandit = BernoulliBandit(Independent(2), 10)
    rows = study_of(bandit).baselines()['majority rule'](KEY, 100)
    expected = bandit_policies.rollout(bandit_policies.MajorityRule(), bandit, KEY, 100).regret.sum(1).mean()
    np.testing.assert_allclose(rows[-1]['cumulative_regret'], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('environment', 'names'),
    [
        (BernoulliBandit(Independent(3), 5), {'Thompson', 'UCB (1)', 'random'}),
        (BernoulliBandit(Dependent(), 5), {'Gittins', 'Bayes-optimal (independent)', 'majority rule'}),
        (RestlessBandit(num_pulls=5), {'Rescorla-Wagner (0.5)', 'Thompson (random walk)', 'Bayes-optimal'}),
        (InformativeBandit(), {'Thompson (true prior)', 'Bayes-optimal', 'UCB (2)'}),
        (TwoStep(num_trials=3), {'Bayes-optimal', 'last outcome', 'model-free (SARSA)'}),
    ],
)
def test_each_family_has_its_policies(environment, names):
    study = study_of(environment)
    assert names <= set(study.baselines())
    for name in names:
        row = study.summary(study.baselines()[name](KEY, 40))
        assert all(np.isfinite(value) for value in row.values())


def test_each_volatility_is_measured_for_itself_with_policies_that_do_not_know_which_it_is():
    bandit = RestlessBandit((0.02, 0.3), 5)
    variations = study_of(bandit).variations()
    assert list(variations) == ['standard deviation 0.02', 'standard deviation 0.3']
    low = variations['standard deviation 0.02']
    assert low.environment == RestlessBandit((0.02,), 5)
    assert not low.variations()
    unaware = bandit_policies.RandomWalkFilter((0.02, 0.3))
    expected = bandit_policies.rollout(unaware, low.environment, KEY, 100).regret.sum(1).mean()
    rows = low.baselines()['Bayes-optimal'](KEY, 100)
    np.testing.assert_allclose(rows[-1]['cumulative_regret'], expected, rtol=1e-5)


def test_models_of_behaviour_are_fitted_to_blocks_of_one_volatility():
    study = study_of(RestlessBandit((0.1,)))
    recording = record(PreviousReward(PreviousAction(RestlessBandit((0.1,)))), win_stay, jnp.int32(0), 2, 100, 10)
    assert study_of(RestlessBandit()).fits(recording) == []
    by_model = {row['model']: row for row in study.fits(recording)}
    # To shift at once is to learn at rate 1, wherever the arm that was left has paid nothing last.
    assert by_model['ab']['preferred'] + by_model['abe']['preferred'] == 1
    assert by_model['ab']['learning_rate'] > 0.8
    (row, *_) = study.simulated()['Rescorla-Wagner (0.5)'](KEY, 10)
    assert (row['standard_deviation'], row['model'], row['preferred']) == (0.1, 'b', 1)


def test_a_step_of_the_pixels_is_several_of_the_environment():
    assert study_of(Harlow(max_steps=10, action_repeat=4)).num_steps() == 3
    assert study_of(dataclasses.replace(SymbolicHarlow(num_trials=3), fixation=True)).num_steps() == 6


def test_an_environment_without_a_study_is_told_which_have_one():
    with pytest.raises(ConfigurationError, match=r'no study is registered for Catch, only for Bernoulli.*, TwoStep'):
        study_of(Catch())


class Coin(Catch):
    """A task of a user."""


class CoinStudy(Study):
    """What the protocol asks for, and no more."""

    x, y = None, ('paid',)

    def __init__(self, environment):
        self.environment = environment

    def num_steps(self):
        return self.environment.rows - 1

    def measure(self, recording):
        return [{'paid': float(recording.rewards.mean())}]


def test_a_study_registers_itself_for_a_class_and_those_that_inherit_from_it():
    study_of.register(Coin, CoinStudy)
    study = study_of(type('Biased', (Coin,), {})())
    assert type(study) is CoinStudy
    assert study.summary([{'paid': 1.0}]) == {'paid': 1.0}
    assert (study.baselines(), study.variations(), study.simulated(), study.fits(None)) == ({}, {}, {}, [])


def test_regret_is_what_the_best_arm_would_have_paid_more():
    bandit = BernoulliBandit(Dependent((0.1,)), 4)
    recording = record(PreviousReward(PreviousAction(bandit)), win_stay, jnp.int32(0), 2, 4, 30)
    rollout = rollout_of(bandit, recording)
    np.testing.assert_allclose(rollout.regret, np.where(recording.actions.T == 0, 0.8, 0.0), atol=1e-6)
    rows = study_of(bandit).measure(recording)
    assert [row['pull'] for row in rows] == [1, 2, 3, 4]
    np.testing.assert_allclose(rows[-1]['cumulative_regret'], rollout.regret.sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(rows[1]['best_arm'], (recording.actions[1] == 1).mean())
    np.testing.assert_allclose(rows[2]['cumulative_reward'], recording.rewards[:3].sum(0).mean(), rtol=1e-5)


def test_an_arm_that_walks_has_the_regret_of_where_it_was():
    bandit = RestlessBandit((0.3,), 5)
    recording = record(PreviousReward(PreviousAction(bandit)), win_stay, jnp.int32(0), 2, 5, 20)
    p = np.asarray(recording.states.probability[:-1]).T
    chosen = np.where(recording.actions.T == 0, p, 1 - p)
    np.testing.assert_allclose(rollout_of(bandit, recording).regret, np.maximum(p, 1 - p) - chosen, atol=1e-6)


def test_performance_in_harlow_of_who_repeats_what_paid():
    environment = PreviousReward(PreviousAction(SymbolicHarlow(num_trials=4)))

    def choose(state, observation):
        """Knows the object of the last choice, and whether it paid."""
        chosen, t = state
        shown = observation['observation'].reshape(2, -1)
        wanted = jnp.where(observation['previous_reward'][0] > 0, chosen, -chosen)
        action = jnp.where(t == 0, 0, jnp.argmax(shown @ wanted))
        return action, (shown[action] - shown[1 - action], t + 1)

    recording = record(environment, choose, (jnp.zeros(16), jnp.int32(0)), 2, 4, 200)
    study = study_of(SymbolicHarlow(num_trials=4))
    summary = study.summary(study.measure(recording))
    assert 0.35 < summary['trial 1'] < 0.65
    assert summary['trial 2'] == summary['trials 3 on'] == 1
    assert study.variations()['held-out objects'].environment.first_object == 1000


def test_latencies_of_who_goes_around_in_the_maze():
    environment = SymbolicIMaze(num_steps=40)
    recording = record(environment, lambda state, _: (state % 4, state + 1), jnp.int32(0), 4, 40, 5)
    (row,) = study_of(environment).measure(recording)
    assert row['share'] == 0
    assert np.isnan(row['first'])


class MyTask(Catch):
    pass


class NoArguments:
    pass


class TwoCurves(Study):
    x, y = 'trial', ('a', 'b')

    def __init__(self, environment):
        self.environment = environment


class NoStudy:
    def __init__(self, environment):
        self.environment = environment


@pytest.mark.parametrize(
    ('study', 'message'),
    [
        (NoArguments, 'the study of MyTask cannot be made: NoArguments'),
        (NoStudy, 'the study of MyTask, NoStudy, must be a Study, with num_steps'),
        (TwoCurves, "the study of MyTask, TwoCurves, must be one with a single column in `y`, .* over 'trial'"),
    ],
)
def test_a_study_that_is_none_is_refused(study, message):
    study_of.register(MyTask, study)
    with pytest.raises(ConfigurationError, match=message):
        report.tests_of({'mine': MyTask()})
