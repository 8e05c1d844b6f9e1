"""Whole episodes of frozen agents."""

import jax
import jax.numpy as jnp
import numpy as np

from agents.analysis.meta_rl.bandit_policies import episode_keys
from agents.analysis.meta_rl.studies import study_of
from components.environments.bandits import BernoulliBandit, Independent
from components.environments.harlow.ring import RingHarlow
from components.environments.wrappers import PreviousAction, PreviousReward
from tests.helpers.scripted_agents import KEY, record, win_stay


def test_an_agent_is_given_the_tasks_of_the_key_and_its_last_action_and_reward():
    bandit = BernoulliBandit(Independent(2), 6)
    recording = record(PreviousReward(PreviousAction(bandit)), win_stay, jnp.int32(0), 2, 6, 50)
    tasks = jax.vmap(bandit.reset)(episode_keys(KEY, 50)[0])[0].probabilities
    np.testing.assert_array_equal(recording.states.probabilities, np.broadcast_to(tasks, (7, 50, 2)))
    np.testing.assert_array_equal(recording.states.pull, np.broadcast_to(np.arange(7)[:, None], (7, 50)))
    expected = np.zeros(50, int)
    for t in range(6):
        np.testing.assert_array_equal(recording.actions[t], expected)
        expected = np.where(recording.rewards[t] > 0, expected, 1 - expected)
    assert recording.played.all()


def test_nothing_changes_after_the_end_of_an_episode():
    """On the ring an episode ends with its last trial, when that may be."""
    environment = RingHarlow(num_trials=2, max_steps=40)
    recording = record(environment, lambda state, _: ((state // 4) % 2, state + 1), jnp.int32(0), 3, 40, 30)
    lengths = recording.played.sum(0)
    assert lengths.min() < lengths.max() <= 40
    for i, length in enumerate(lengths):
        assert recording.played[:length, i].all()
        assert not recording.rewards[length:, i].any()
        assert (np.asarray(recording.states.num_steps)[length:, i] == length).all()
    rows = study_of(environment).measure(recording)
    selections = sum(int((recording.states.selected[1:] & recording.played)[:, i].sum()) for i in range(30))
    assert selections <= 60
    assert len(rows) == 2
