"""Reward transforms: numbers by hand, what is learned from and what is logged, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences
from agents.evaluator import Evaluator
from agents.learner import Learner
from components.acting.rewards import Clipped, Raw, SignedLog, transform_rewards
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.environments.wrappers import PreviousReward
from components.inner_loop import acting_source
from components.meta_optimisers.validation_data import FreshTrajectory
from components.networks.network import Network
from components.networks.torsos import Concatenate
from components.types import CompositionError
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient
from tests.helpers.documented_metrics import undocumented
from tests.helpers.environments_for_tests import Probe

REWARDS = jnp.array([-20.0, -0.5, 0.0, 1.0, 7.0])


@pytest.mark.parametrize(
    ('transform', 'expected'),
    [
        (Raw(), [-20, -0.5, 0, 1, 7]),
        (Clipped(), [-1, -0.5, 0, 1, 1]),
        (Clipped(-10, 3), [-10, -0.5, 0, 1, 3]),
        (SignedLog(), [-3.0445224, -0.4054651, 0, 0.6931472, 2.0794415]),  # log 21, log 1.5, log 2, log 8.
    ],
)
def test_transforms_by_hand(transform, expected):
    np.testing.assert_allclose(transform_rewards(transform, REWARDS), expected, rtol=1e-6)


@pytest.mark.parametrize(('low', 'high'), [(1, 1), (1, -1)])
def test_an_empty_interval_is_refused(low, high):
    with pytest.raises(ValueError, match=f'Clipped.low must be below Clipped.high, got {low} and {high}'):
        Clipped(low, high)


@dataclasses.dataclass(frozen=True)
class MeanOfBatch:
    def __call__(self, reward):
        return reward.mean()


@dataclasses.dataclass(frozen=True)
class Sign:
    def __call__(self, reward):
        return jnp.sign(reward).astype(jnp.int32)


@pytest.mark.parametrize(
    ('transform', 'message'),
    [
        (MeanOfBatch(), r'MeanOfBatch: what it returns is float32\[\], where Float\[B\] is expected'),
        (Sign(), r'Sign: what it returns is int32\[1\], where Float\[B\] is expected'),
        (1.0, 'Agent.reward must be a RewardTransform, got 1.0'),
        (Clipped, r'Agent.reward must be a RewardTransform, not a class: write @Clipped\(\)'),
    ],
)
def test_what_does_not_fit_is_one_line(transform, message):
    with pytest.raises(CompositionError, match=message) as error:
        make_agent(reward=transform)
    assert len(str(error.value).splitlines()) == 1


PROBE = Probe((2,), (0.0,))
"""Episodes of two steps that pay 10 and 20, and the action (0, 1 or 2) with each."""


@pytest.fixture(scope='module')
def clipped():
    """A learner of the probe with rewards clipped to [0, 11], after two meta-steps, and its rows."""
    agent = make_agent(
        environment=Batch(PROBE, 4),
        reward=Clipped(0, 11),
        meta_optimiser=meta_gradient(outer_data=FreshTrajectory()),
    )
    rows = []
    learner = Learner(agent)
    learner._logger.write = rows.append
    learner.advance(2)
    return learner, rows


def test_the_score_is_raw_and_what_is_learned_from_is_not(clipped):
    learner, (row,) = clipped
    assert 30 <= row['episode_return'][0] <= 34
    assert 21 <= row['transformed_episode_return'][0] <= 22
    pending = np.asarray(learner.state.agents.trajectory.reward)
    assert pending.min() >= 10
    assert pending.max() == 11
    assert undocumented(row) == []


def test_the_outer_loss_sees_transformed_rewards(clipped):
    learner, _ = clipped
    agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    source = acting_source(learner.inner_loop)
    _, trajectory, episodes = jax.jit(source.on_policy, static_argnums=1)(agent, 6)
    assert trajectory.reward.max() == 11
    assert episodes.return_sum > episodes.transformed_return_sum


def test_an_evaluation_is_of_the_raw_score(clipped):
    row = Evaluator(clipped[0], max_episode_length=5, seed=0).evaluate(0)
    for policy in ('stochastic', 'greedy'):
        assert 30 <= row[f'{policy}/episode_return'][0] <= 34


def test_a_raw_reward_has_no_second_column_and_no_second_state():
    rows = []
    learner = Learner(make_agent())
    learner._logger.write = rows.append
    learner.advance(1)
    assert 'transformed_episode_return' not in rows[0]
    assert learner.state.agents.actor_state.transformed_return == ()


def test_what_is_shown_of_the_past_is_the_environments_own():
    agent = make_agent(
        environment=Batch(PreviousReward(PROBE), 4),
        network=Network(Concatenate()),
        reward=Clipped(0, 11),
        unroll_length=3,
    )
    trajectory = jax.tree.map(lambda x: np.asarray(x[0, 0]), Learner(agent).state.agents.trajectory)
    shown, is_later = trajectory.observation['previous_reward'][1:, :, 0], ~trajectory.first[1:]
    assert is_later.sum() > 2
    np.testing.assert_array_equal(shown[is_later], 10 + trajectory.action[is_later])
    np.testing.assert_array_equal(trajectory.reward[is_later], np.minimum(shown[is_later], 11))


def test_the_meta_gradient_with_transformed_rewards_is_right():
    agent = make_agent(environment=Batch(Catch(4, 3), 3), reward=SignedLog(), unroll_length=4)
    comparison = compare_with_finite_differences(Learner(agent))[DISCOUNT]
    assert comparison.autodiff != 0
    assert comparison.relative_error < 1e-4
