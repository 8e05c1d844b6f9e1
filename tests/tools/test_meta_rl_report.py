"""The report of agents that learn within an episode."""

import csv
import functools

import pytest

from agents.analysis.meta_rl import report as report_of_analysis
from agents.analysis.meta_rl import studies
from tools import meta_rl_report, run

SMALL = [
    'NUM_ENVS = 4',
    'NUM_SEEDS = 2',
    'UNROLL_LENGTH = 6',
    'experiment.Experiment.loggers = []',
    'LOG_EVERY = 48',
    'CHECKPOINT_EVERY = 48',
    'TOTAL_ENV_STEPS = 96',
]
RECURRENT = 'cores.LSTM.hidden_size = 3'


def train(workdir, file, *bindings):
    arguments = [part for line in (*SMALL, *bindings) for part in ('--gin_bindings', line)]
    assert run.main(['--gin_file', file, '--workdir', str(workdir), *arguments]) == 0
    return workdir


@pytest.fixture(scope='module')
def bandits(tmp_path_factory):
    """Two runs of two seeds, with checkpoints 2 and 4."""
    runs = tmp_path_factory.mktemp('runs')
    files = {'independent': 'gin/bandits/independent.gin', 'easy': 'gin/bandits/dependent_easy.gin'}
    return [
        train(runs / name, file, RECURRENT, 'bandits.BernoulliBandit.num_pulls = 6') for name, file in files.items()
    ]


def report(*workdirs, arguments=()):
    command = [part for workdir in workdirs for part in ('--workdir', str(workdir))]
    return meta_rl_report.main([*command, '--num_episodes', '30', *map(str, arguments)])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_every_agent_plays_in_the_tasks_of_every_run(bandits, capsys):
    assert report(*bandits) == 0
    found = rows(bandits[0] / 'report' / 'report.csv')
    agents = [row for row in found if row['checkpoint']]
    assert {(row['test'], row['policy'], row['seed']) for row in agents} == {
        (test, policy, seed) for test in ('independent', 'easy') for policy in ('independent', 'easy') for seed in '01'
    }
    assert {row['checkpoint'] for row in agents} == {'4'}
    assert len(agents) == 2 * 2 * 2 * 6
    assert {'Thompson', 'Gittins', 'UCB (1)', 'random'} < {row['policy'] for row in found if row['test'] == 'easy'}
    regrets = [float(row['cumulative_regret']) for row in agents if row['pull'] == '6']
    assert min(regrets) > 0
    assert max(regrets) < 6 * 0.8 + 1e-6
    assert len(set(regrets)) > 2
    out = capsys.readouterr().out
    assert sum('independent' in line and '[' in line for line in out.splitlines()) >= 3
    assert (bandits[0] / 'report' / 'report.png').stat().st_size > 10_000


def test_checkpoints_can_be_chosen(bandits, tmp_path):
    assert report(bandits[0], arguments=['--checkpoints', 'all', '--out', tmp_path]) == 0
    assert {row['checkpoint'] for row in rows(tmp_path / 'report.csv')} == {'', '2', '4'}
    assert report(bandits[0], arguments=['--checkpoints', '2', '--out', tmp_path, '--greedy']) == 0
    assert {row['checkpoint'] for row in rows(tmp_path / 'report.csv')} == {'', '2'}


def test_the_two_step_task_is_drawn_as_bars(tmp_path):
    workdir = train(tmp_path / 'two_step', 'gin/two_step/fixed.gin', RECURRENT, 'two_step.TwoStep.num_trials = 3')
    assert report(workdir) == 0
    found = rows(workdir / 'report' / 'report.csv')
    assert len(found) == 4 + 2
    optimal = next(row for row in found if row['policy'] == 'Bayes-optimal')
    assert float(optimal['rewarded_common']) == 1
    assert all(0 <= float(row['mean_reward']) <= 1 for row in found)


@pytest.mark.slow
def test_arms_that_walk_are_told_apart_by_how_widely(tmp_path, capsys):
    workdir = train(
        tmp_path / 'restless', 'gin/bandits/restless.gin', RECURRENT, 'bandits.RestlessBandit.num_pulls = 6'
    )
    assert report(workdir, arguments=['--num_episodes', '20']) == 0  # Fits take most of the time.
    tests = ['restless', 'restless, standard deviation 0.02', 'restless, standard deviation 0.1']
    assert list(dict.fromkeys(row['test'] for row in rows(workdir / 'report' / 'report.csv'))) == tests
    fits = rows(workdir / 'report' / 'rescorla_wagner.csv')
    assert len(fits) == 2 * (2 + 2) * 4
    assert {(row['test'], row['standard_deviation']) for row in fits} == {(tests[1], '0.02'), (tests[2], '0.1')}
    assert {(row['seed'], row['checkpoint']) for row in fits if row['policy'] == 'restless'} == {('0', '4'), ('1', '4')}
    assert {row['num_blocks'] for row in fits} == {'2'}
    assert 'learning rate of ab' in capsys.readouterr().out


def test_one_line_and_status_2_for_what_cannot_be_reported(bandits, tmp_path, capsys):
    def error(*workdirs, arguments=()):
        assert report(*workdirs, arguments=arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert 'must be at least 2, got 1' in error(bandits[0], arguments=['--num_episodes', '1'])
    assert 'told apart by the names of their folders' in error(bandits[0], bandits[0])
    assert 'there is no checkpoint 3' in error(bandits[0], arguments=['--checkpoints', '3'])
    assert 'numbers with commas' in error(bandits[0], arguments=['--checkpoints', 'best'])
    catch = train(tmp_path / 'catch', 'gin/catch/actor_critic.gin', 'torsos.MLP.hidden_sizes = (4,)')
    line = error(catch)
    assert 'catch: no study is registered for Catch, only for BernoulliBandit' in line
    assert 'import the module' in line
    host = train(tmp_path / 'host', 'gin/host/catch.gin', 'torsos.MLP.hidden_sizes = (4,)')
    assert 'reports are of pure-JAX environments' in error(host)


STUDY = """
from agents.analysis.meta_rl.studies import study_of
from agents.analysis.meta_rl.study import Study
from components.environments.catch import Catch


class Caught(Study):
    x, y = 'trial', ('caught',)

    def __init__(self, environment):
        self.environment = environment

    def num_steps(self):
        return self.environment.rows - 1

    def measure(self, recording):
        return [{'trial': 1, 'caught': float((recording.rewards.sum(0) > 0).mean())}]

    def summary(self, rows):
        return {'share caught': rows[0]['caught']}

    def baselines(self):
        return {'never moves': lambda key, num_episodes: [{'trial': 1, 'caught': 0.25}]}
"""
REGISTRATION = """

class OwnCatch(Catch):
    pass


study_of.register(OwnCatch, Caught)
"""
IMPORTS = 'from __gin__ import dynamic_registration\n'


def test_a_users_own_study_is_named_in_a_gin_file(tmp_path, monkeypatch, capsys):
    (tmp_path / 'my_study.py').write_text(STUDY + REGISTRATION)
    (tmp_path / 'mine.gin').write_text(
        f"""{IMPORTS}
import my_study
from components.environments import batch
include 'gin/catch/actor_critic.gin'
batch.Batch.environment = @my_study.OwnCatch()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    workdir = train(tmp_path / 'mine', str(tmp_path / 'mine.gin'), 'torsos.MLP.hidden_sizes = (4,)')
    assert report(workdir) == 0
    assert 'share caught' in capsys.readouterr().out
    found = rows(workdir / 'report' / 'report.csv')
    assert [(row['policy'], row['seed']) for row in found] == [('never moves', ''), ('mine', '0'), ('mine', '1')]
    assert all(0 <= float(row['caught']) <= 1 for row in found)


def test_a_study_that_was_written_after_the_run_is_named_in_a_file_of_its_own(tmp_path, monkeypatch):
    workdir = train(tmp_path / 'later', 'gin/catch/actor_critic.gin', 'torsos.MLP.hidden_sizes = (4,)')
    (tmp_path / 'later_study.py').write_text(STUDY + '\nstudy_of.register(Catch, Caught)\n')
    (tmp_path / 'later.gin').write_text(f'{IMPORTS}import later_study\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(studies, 'study_of', copy_of(studies.study_of))
    monkeypatch.setattr(report_of_analysis, 'study_of', studies.study_of)
    assert report(workdir) == 2
    assert report(workdir, arguments=['--gin_file', tmp_path / 'later.gin']) == 0
    assert (workdir / 'report' / 'report.csv').exists()


def copy_of(registry):
    """A registry of its own for a test, with the same studies."""
    copy = functools.singledispatch(registry.registry[object])
    for cls, study in registry.registry.items():
        copy.register(cls, study)
    return copy
