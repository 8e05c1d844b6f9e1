"""Models of behaviour fitted to blocks of episodes."""

import jax

from agents.analysis.meta_rl import bandit_policies
from agents.analysis.meta_rl.behaviour_fits import fits_of, summary_of_fits
from components.environments.bandits import RestlessBandit

KEY = jax.random.key(3)


def test_blocks_are_whole_and_no_more_than_asked_for():
    played = bandit_policies.rollout(bandit_policies.RescorlaWagner(0.2, 5.0), RestlessBandit((0.1,)), KEY, 39)
    rows = fits_of(played.arms, played.rewards, max_blocks=2)
    assert fits_of(played.arms[:29], played.rewards[:29]) == rows
    assert fits_of(played.arms[:9], played.rewards[:9]) == []
    assert [row['num_blocks'] for row in rows] == [2] * 4
    summary = summary_of_fits(rows)
    assert sum(summary[f'{row["model"]} preferred'] for row in rows) == 1
    assert abs(summary['learning rate of ab'] - 0.2) < 0.1
