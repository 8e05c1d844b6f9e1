"""Human-normalised scores: the table, numbers by hand, and the columns of runs in environments that have scores."""

import dataclasses

import numpy as np
import pytest

from agents.evaluator import Evaluator
from agents.learner import Learner
from components.environments.atari_scores import SCORES
from components.environments.base import ReferenceScores, human_normalised
from components.environments.batch import Batch
from components.environments.catch import Catch
from tests.helpers.agents_for_tests import make_agent
from tests.helpers.documented_metrics import undocumented


def test_the_table():
    assert len(SCORES) == 57
    assert list(SCORES) == sorted(SCORES)
    assert all(scores.human > scores.random for scores in SCORES.values())
    assert SCORES['pong'] == (-20.7, 14.6)
    assert SCORES['ms_pacman'] == (307.3, 6951.6)
    assert SCORES['double_dunk'] == (-18.6, -16.4)


@pytest.mark.parametrize(
    ('game', 'score', 'expected'),
    [
        ('breakout', 1.7, 0),
        ('breakout', 30.5, 1),
        ('breakout', 16.1, 0.5),
        ('boxing', 100, 99.9 / 12),
        ('pong', -21, -0.3 / 35.3),
    ],
)
def test_human_normalised_scores_by_hand(game, score, expected):
    np.testing.assert_allclose(SCORES[game].normalised(score), expected, atol=1e-12)


@dataclasses.dataclass(frozen=True)
class ScoredCatch(Catch):
    @property
    def reference_scores(self):
        return ReferenceScores(-0.5, 0.5)


def test_a_row_of_an_environment_with_scores_has_them():
    rows = []
    learner = Learner(make_agent(environment=Batch(ScoredCatch(4, 3), 5)), num_seeds=2)
    learner._logger.write = rows.append
    learner.advance(1)
    np.testing.assert_allclose(rows[0]['human_normalised'], rows[0]['episode_return'] + 0.5)
    assert undocumented(rows[0]) == []
    row = Evaluator(learner, max_episode_length=5, seed=0).evaluate(0)
    for policy in ('stochastic', 'greedy'):
        np.testing.assert_allclose(row[f'{policy}/human_normalised'], row[f'{policy}/episode_return'] + 0.5)
    assert undocumented(row) == []


def test_other_rows_do_not():
    assert human_normalised(Batch(Catch(4, 3), 5), [0.5]) == {}
    assert human_normalised(object(), [0.5]) == {}
