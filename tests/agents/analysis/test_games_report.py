"""Statistics over games, by hand, and the report of a folder of runs over many of them."""

import csv

import numpy as np
import pytest

from agents.analysis import comparison, games_report
from agents.analysis.run_tables import RunTableError, find_runs
from tests.helpers import made_up_runs
from tools import report

ATARI = """from __gin__ import dynamic_registration
from agents import agent
from agents.experiments import experiment
from components.environments.adapters import ale

TOTAL_ENV_STEPS = 4000
GAME = '{game}'

experiment.Experiment.total_env_steps = %TOTAL_ENV_STEPS
agent.Agent.environment = @ale.Atari()
ale.Atari.game = %GAME
"""


def write_run(folder, game, scores, column='human_normalised'):
    """A run of four rows whose last one has these scores, `[S]`."""
    folder.mkdir(parents=True)
    (folder / 'config.gin').write_text(ATARI.format(game=game))
    values = np.array(scores)[:, None] * np.array([0.0, 0.25, 0.5, 1.0])
    made_up_runs.write_table(folder, 'train', {'episode_return': values, column: values}, range(len(scores)))


def test_statistics_over_games_by_hand():
    # Means of the games are 2, 10 and 0; of nine runs in order, -1 0 1 1 2 3 9 10 11, two are cut on either side.
    scores = [np.array([1.0, 2.0, 3.0]), np.array([9.0, 10.0, 11.0]), np.array([-1.0, 0.0, 1.0])]
    found = comparison.over_games(scores)
    assert [float(x.value) for x in found] == pytest.approx([2, 4, (1 + 1 + 2 + 3 + 9) / 5])
    for estimate in found:
        assert estimate.low < estimate.value < estimate.high


def test_statistics_over_games_of_several_seeds_alike_have_no_width():
    found = comparison.over_games([np.full(3, 2.0), np.full(4, 4.0), np.full(3, 9.0)])
    assert found.median == (4, 4, 4)
    assert found.mean == pytest.approx((5, 5, 5))


def test_an_interval_draws_the_seeds_of_each_game():
    # The mean over two games: one does not vary, of the other every draw of three seeds counts.
    seeds = np.array([0.0, 3.0, 12.0])
    alone = comparison.interquartile_mean_interval(seeds)  # Of three seeds nothing is cut: it is the mean.
    found = comparison.over_games([seeds, np.full(3, 1.0)]).mean
    np.testing.assert_allclose([found.low, found.high], [(alone.low + 1) / 2, (alone.high + 1) / 2], atol=0.5)


def test_few_seeds_have_no_interval():
    found = comparison.over_games([np.array([1.0, 3.0]), np.array([4.0])])
    assert (found.median.value, found.mean.value) == (3, 3)
    assert np.isnan(found.mean.low)


@pytest.mark.parametrize(
    ('name', 'game', 'agent'),
    [
        ('frodo/pong', 'pong', 'frodo'),
        ('frodo-GAME=pong', 'pong', 'frodo'),
        ('pong', 'pong', ''),
        ('57/ms_pacman/frodo', 'ms_pacman', '57/frodo'),
        ('frodo/pongers', 'pong', 'frodo/pongers'),
        ('frodo/run', 'pong', 'frodo/run'),
    ],
)
def test_an_agent_is_what_names_have_beside_the_game(name, game, agent):
    assert games_report.agent_of(name, game) == agent


def test_a_report_over_games(tmp_path, capsys):
    for agent, better in (('frodo', 1.0), ('actor_critic', 0.0)):
        write_run(tmp_path / agent / 'pong', 'pong', [0.5 + better, 1.0 + better, 1.5 + better])
        write_run(tmp_path / agent / 'boxing', 'boxing', [2.0, 2.0, 2.0])
    assert report.main([str(tmp_path), '--over_games']) == 0
    with (tmp_path / 'report/over_games.csv').open() as file:
        first, second = csv.DictReader(file)
    assert (first['agent'], first['games'], first['partial']) == ('actor_critic', '2', '0')
    assert [float(first[name]) for name in ('median', 'mean', 'interquartile_mean')] == [1.5, 1.5, 1.625]
    assert [float(second[name]) for name in ('median', 'mean', 'interquartile_mean')] == [2, 2, 2]
    with (tmp_path / 'report/games.csv').open() as file:
        lines = [(line['agent'], line['game'], line['mean']) for line in csv.DictReader(file)]
    assert lines == [
        ('actor_critic', 'boxing', '2'), ('actor_critic', 'pong', '1'), ('frodo', 'boxing', '2'), ('frodo', 'pong', '2'),
    ]  # fmt: skip
    assert 'interquartile mean' in capsys.readouterr().out


def test_what_cannot_be_reported_over_games_is_one_line(tmp_path, capsys):
    write_run(tmp_path / 'a', 'pong', [1.0], column='episode_length')
    assert report.main([str(tmp_path), '--over_games']) == 2
    assert 'has no column human_normalised' in capsys.readouterr().err
    write_run(tmp_path / 'two/pong', 'pong', [1.0])
    write_run(tmp_path / 'two/pong_', 'pong', [1.0])
    with pytest.raises(RunTableError, match='pong and pong_ are both of agent in pong'):
        games_report.report_of(find_runs([tmp_path / 'two']), tmp_path, 0.1)
