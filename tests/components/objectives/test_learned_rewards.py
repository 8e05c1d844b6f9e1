"""Learned rewards: against plain loops over time, and their meta-gradients against finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences
from agents.learner import Learner
from components.acting.behaviours import Behaviour
from components.acting.policies import FixedPolicy
from components.component_tree import learnable_paths
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.validation_data import TrainingTrajectory
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar, Weights
from components.networks.cores import GRU
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.learned_returns import LearnedReturn
from components.objectives.learned_rewards import IntrinsicReward, PotentialShaping, RewardWeightedReturn
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient
from tests.helpers.trajectories_for_tests import BATCH_SIZE, DISCOUNT, MASK, NUM_STEPS, SPEC, make_data

WEIGHTS = 'objective.returns.weights'
TORSO = MLP((4,))
REWARDS_ALONE = LambdaReturn(0.0, 0.0)  # Its targets are the rewards that it is handed.
LAST = {0: [2, 2, 2, 5, 5, 5], 1: [2, 2, 2, 3, 5, 5], 2: [5] * 6}  # Step that a return from each step reaches.


def bound(returns, seed=0):
    """With weights that are all different from 0."""
    weights = returns.init_weights(jax.random.key(seed), SPEC)
    random = np.random.default_rng(seed)
    return dataclasses.replace(
        returns, weights=jax.tree.map(lambda x: x + random.normal(0, 0.3, x.shape).astype(np.float32), weights)
    )


def features(weights, observation):
    return np.maximum(observation.reshape(-1) @ weights['linear_0']['w'] + weights['linear_0']['b'], 0)


def linear(weights, name, x):
    return x @ weights[name]['w'] + weights[name]['b']


def test_an_intrinsic_reward_is_that_of_the_state_and_the_action():
    values, log_rho, trajectory = make_data()
    returns = bound(IntrinsicReward(REWARDS_ALONE, TORSO, 0.3))
    target = returns(values, log_rho, trajectory).target
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            of_all = np.tanh(linear(returns.weights, 'reward', features(returns.weights, trajectory.observation[t, b])))
            intrinsic = 0.3 * of_all[trajectory.action[t, b]] if MASK[t, b] else 0
            np.testing.assert_allclose(target[t, b], trajectory.reward[t, b] + intrinsic, rtol=1e-5, atol=1e-6)
    assert target[3, 1] == trajectory.reward[3, 1]


def test_a_potential_shapes_by_its_differences():
    values, log_rho, trajectory = make_data()
    returns = bound(PotentialShaping(REWARDS_ALONE, TORSO, 0.8))
    target = returns(values, log_rho, trajectory).target
    potential = potentials(returns, trajectory)
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            if (t, b) == (3, 1):
                shaping = 0  # A restart is no transition.
            elif (t, b) == (2, 0):
                shaping = -potential[t, b]  # What follows a termination is another episode.
            else:  # The last observation before a truncation is on the trajectory.
                shaping = 0.8 * potential[t + 1, b] - potential[t, b]
            np.testing.assert_allclose(target[t, b], trajectory.reward[t, b] + shaping, rtol=1e-5, atol=1e-6)


def potentials(returns, trajectory):
    return np.array(
        [
            [linear(returns.weights, 'potential', features(returns.weights, x))[0] for x in row]
            for row in trajectory.observation
        ]
    )


def test_shaping_telescopes():
    """The longest return changes by the potentials of where it ends and starts, whatever lies between."""
    values, log_rho, trajectory = make_data()
    base = LambdaReturn(0.9, 1.0)
    returns = bound(PotentialShaping(base, TORSO, 0.9))
    potential = potentials(returns, trajectory)
    expected = np.array(base(values, log_rho, trajectory).target) - potential[:-1]
    for b in range(BATCH_SIZE):
        for t in range(NUM_STEPS):
            last = LAST[b][t]
            expected[t, b] += 0.9 ** (last + 1 - t) * DISCOUNT[last, b] * potential[last + 1, b]
    actual = returns(values, log_rho, trajectory).target
    np.testing.assert_allclose(actual[MASK > 0], expected[MASK > 0], rtol=1e-4, atol=1e-5)


def test_a_learned_return_function_is_a_sum_of_weighted_rewards():
    values, log_rho, trajectory = make_data()
    returns = bound(RewardWeightedReturn(LambdaReturn(0.9, 1.0), TORSO))
    estimate = returns(values, log_rho, trajectory)
    weights = returns.weights
    for b in range(BATCH_SIZE):
        seen = [features(weights, x) for x in trajectory.observation[:-1, b]]
        for t in range(NUM_STEPS):
            query, drift = linear(weights, 'query', seen[t]), linear(weights, 'drift', seen[t])[0]
            last = LAST[b][t]
            expected = 0.9 ** (last + 1 - t) * DISCOUNT[last, b] * values[last + 1, b]
            for j in range(t, last + 1):
                key = linear(weights, 'key', np.concatenate([seen[j], np.eye(3)[trajectory.action[j, b]]]))
                weight = 2 / (1 + np.exp(-(query @ key / 2 + (j - t) * drift)))
                expected += 0.9 ** (j - t) * weight * trajectory.reward[j, b]
            np.testing.assert_allclose(estimate.target[t, b], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(estimate.advantage, estimate.target - values[:-1], rtol=1e-4, atol=1e-5)


def test_a_hand_computed_learned_return_function():
    """Rewards 1 and 2, then a termination. The drift alone is not 0: log 3, so that a step away weighs 2 * 3 / 4."""
    returns = RewardWeightedReturn(LambdaReturn(0.5, 1.0), TORSO)
    weights = returns.init_weights(jax.random.key(0), SPEC)
    weights['drift']['b'] = jnp.log(jnp.array([3.0]))
    _, _, trajectory = make_data()
    trajectory = jax.tree.map(lambda x: x[:2, :1], trajectory)._replace(
        observation=trajectory.observation[:3, :1],
        first=trajectory.first[:3, :1],
        reward=np.array([[1.0], [2.0]], np.float32),
        discount=np.array([[1.0], [0.0]], np.float32),
    )
    returns = dataclasses.replace(returns, weights=weights)
    estimate = returns(np.ones((3, 1), np.float32), np.zeros((2, 1), np.float32), trajectory)
    np.testing.assert_allclose(estimate.target[:, 0], [1 + 0.5 * 1.5 * 2, 2], rtol=1e-6)
    np.testing.assert_allclose(estimate.advantage[:, 0], [1.5, 1], rtol=1e-6)


def test_no_reward_counts_beyond_an_end_and_every_other_one_does():
    values, log_rho, trajectory = make_data()
    returns = bound(RewardWeightedReturn(LambdaReturn(0.9, 0.8), TORSO))
    call = jax.jit(lambda reward: returns(values, log_rho, trajectory._replace(reward=reward)).target)
    before = call(trajectory.reward)
    for b in range(BATCH_SIZE):
        for j in range(NUM_STEPS):
            reward = trajectory.reward.copy()
            reward[j, b] += 1
            expected = np.zeros((NUM_STEPS, BATCH_SIZE), bool)
            expected[:, b] = [t <= j <= LAST[b][t] for t in range(NUM_STEPS)]
            np.testing.assert_array_equal(np.asarray(call(reward) != before), expected, err_msg=f'{j} of {b}')


@pytest.mark.parametrize('base', [LambdaReturn(0.9, 1.0), LambdaReturn(0.9, 0.7), LeakyVTrace(0.9, 0.8)])
def test_a_learned_return_function_starts_as_what_it_is_around(base):
    values, log_rho, trajectory = make_data()
    returns = RewardWeightedReturn(base, TORSO)
    returns = dataclasses.replace(returns, weights=returns.init_weights(jax.random.key(0), SPEC))
    for actual, expected in zip(returns(values, log_rho, trajectory), base(values, log_rho, trajectory), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_network_around_another():
    """Both see the trajectory that the outer one made."""
    values, log_rho, trajectory = make_data()
    inner = bound(LearnedReturn(core=GRU(5)))
    outer = bound(IntrinsicReward(inner, TORSO, 0.3))
    rewards = dataclasses.replace(outer, returns=REWARDS_ALONE)(values, log_rho, trajectory).target
    np.testing.assert_allclose(
        outer(values, log_rho, trajectory).target,
        inner(values, log_rho, trajectory._replace(reward=rewards)).target,
        rtol=1e-5,
    )


def rule(returns):
    return UpdateRule(ActorCritic(returns, 1.0, 0.7, 0.05), Optimiser(optax.scale_by_rms(), 0.01))


def learned(returns, *numbers, **kwargs):
    """An agent on a 4 x 3 Catch whose networks are learned, and the numbers at these paths from the return."""
    networks = [path for path, default in learnable_paths(rule(returns)).items() if callable(default)]
    entries = {**dict.fromkeys(networks, Weights()), **{f'objective.returns.{name}': Scalar() for name in numbers}}
    return make_agent(**{'update_rule': rule(returns), 'meta_parameters': MetaParameterSet(entries), **kwargs})


NESTED = IntrinsicReward(PotentialShaping(RewardWeightedReturn(LearnedReturn(core=GRU(5)), TORSO), TORSO), TORSO)


def test_every_network_has_its_path():
    paths = ['objective.returns' + '.returns' * depth + '.weights' for depth in range(4)]
    meta_params = MetaParameterSet(dict.fromkeys(paths, Weights())).init(jax.random.key(0), rule(NESTED), SPEC)
    heads = ['reward', 'potential', 'query', 'target']
    assert [head in meta_params[path] for path, head in zip(paths, heads, strict=True)] == [True] * 4
    assert sorted(learned(NESTED).meta_parameters.parameters) == sorted(paths)
    with pytest.raises(CompositionError, match=r'objective.returns.returns.weights are not initialised'):
        learned(NESTED, meta_parameters=MetaParameterSet({WEIGHTS: Weights()}))


@pytest.mark.parametrize('base', [LambdaReturn(), LeakyVTrace()])
def test_whether_it_is_on_policy_is_what_it_is_around(base):
    for make in (IntrinsicReward, PotentialShaping, RewardWeightedReturn):
        assert make(base, TORSO).is_on_policy is base.is_on_policy
    agent = learned(IntrinsicReward(base, TORSO), behaviour=Behaviour(FixedPolicy((0.2, 0.3, 0.5))))
    assert bool(agent.warnings()) is base.is_on_policy


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (lambda: IntrinsicReward(LambdaReturn(), TORSO, -0.1), 'IntrinsicReward.scale must be at least 0, got -0.1'),
        (lambda: IntrinsicReward(LambdaReturn(), TORSO, np.nan), 'IntrinsicReward.scale must be at least 0, got nan'),
        (
            lambda: PotentialShaping(LambdaReturn(), TORSO, 1.1),
            r'PotentialShaping.discount must be in \[0, 1\], got 1.1',
        ),
    ],
)
def test_what_cannot_be_is_refused(make, part):
    with pytest.raises(ValueError, match=f'^{part}$'):
        make()


def trained(agent, num_meta_steps):
    learner = Learner(agent)
    learner.advance(num_meta_steps)
    return learner.state.agents.params


def test_a_scale_of_zero_gives_the_same_run():
    """Nothing that is learned is another number, in ten updates."""
    base = LambdaReturn(0.9, 0.8)
    plain = trained(learned(base, meta_optimiser=Fixed()), 10)
    zero = trained(learned(IntrinsicReward(base, TORSO, 0.0), meta_optimiser=Fixed()), 10)
    jax.tree.map(np.testing.assert_array_equal, zero, plain)


def test_the_first_update_of_a_learned_return_function_is_the_ordinary_one():
    base = LambdaReturn(0.9, 1.0)
    plain = trained(learned(base, meta_optimiser=Fixed()), 1)
    first = trained(learned(RewardWeightedReturn(base, TORSO)), 1)
    jax.tree.map(np.testing.assert_array_equal, first, plain)


def test_the_meta_gradient_through_two_updates_is_right_for_each_inside_the_others():
    agent = learned(
        NESTED, 'scale', 'returns.discount', meta_optimiser=meta_gradient(num_inner_steps=2), unroll_length=6
    )
    comparisons = compare_with_finite_differences(Learner(agent))
    assert len(comparisons) == 6
    for path, comparison in comparisons.items():
        assert comparison.autodiff != 0, path
        assert comparison.relative_error < 1e-4, (path, comparison)


def test_the_meta_gradient_on_the_training_trajectory_is_right():
    agent = learned(
        IntrinsicReward(LambdaReturn(0.9, 0.8), TORSO, 0.5),
        meta_optimiser=meta_gradient(outer_data=TrainingTrajectory()),
        unroll_length=6,
    )
    (comparison,) = compare_with_finite_differences(Learner(agent)).values()
    assert comparison.autodiff != 0
    assert comparison.relative_error < 1e-4
