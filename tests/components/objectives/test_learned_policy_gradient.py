"""LPG: its network against a plain loop, its loss by hand, its meta-gradient against finite differences."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences
from agents.learner import Learner
from components.acting.action_distributions import Categorical
from components.environments.catch import Catch
from components.meta_optimisers.regularisers import TargetSize
from components.meta_parameters.meta_parameters import MetaParameterSet, Weights
from components.networks.cores import GRU
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum, Unroll
from components.objectives.entropy_bonus import EntropyBonus
from components.objectives.learned_policy_gradient import LearnedPolicyGradient, LearnedTargets
from components.objectives.returns import LambdaReturn
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError, Trajectory
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient
from tests.helpers.trajectories_for_tests import targets_of, without_last

SPEC = Catch(4, 3).spec()
NUM_STEPS, BATCH_SIZE, SIZE = 5, 2, 4
DISCOUNT = np.array([[1, 1], [0, 1], [1, 1], [1, 0], [1, 1]], np.float32)  # Column 1 restarts at step 3.
MASK = np.array([[1, 1], [1, 1], [1, 1], [1, 0], [1, 1]], np.float32)


def make_data():
    random = np.random.default_rng(0)
    outputs = {
        'logits': random.normal(size=(NUM_STEPS + 1, BATCH_SIZE, 3)).astype(np.float32),
        'prediction': random.normal(size=(NUM_STEPS + 1, BATCH_SIZE, SIZE)).astype(np.float32),
    }
    trajectory = Trajectory(
        observation=np.zeros((NUM_STEPS + 1, BATCH_SIZE, 4, 3), np.float32),
        first=np.zeros((NUM_STEPS + 1, BATCH_SIZE), bool),
        action=random.integers(3, size=(NUM_STEPS, BATCH_SIZE)),
        reward=(random.normal(size=(NUM_STEPS, BATCH_SIZE)) * MASK).astype(np.float32),
        discount=DISCOUNT,
        mask=MASK,
        behaviour_policy=Categorical(np.zeros((NUM_STEPS, BATCH_SIZE, 3), np.float32)),
        core_state={},
    )
    return outputs, trajectory


def bound(objective):
    return dataclasses.replace(objective, weights=objective.init_weights(jax.random.key(0), SPEC))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def loop(objective, outputs, trajectory):
    """The targets, one step of one environment at a time."""
    weights = {name.replace('reset_core/', ''): leaf for name, leaf in objective.weights.items()}
    core = hk.without_apply_rng(hk.transform(lambda x, state: objective.core()(x, state)))
    initial = hk.without_apply_rng(hk.transform(lambda: objective.core().initial_state(1)))

    def linear(name, x):
        return x @ np.asarray(weights[name]['w']) + np.asarray(weights[name]['b'])

    def embed(prediction):
        return linear('embedding', np.maximum(linear('linear_0', prediction), 0))[0]

    pi, y = softmax(outputs['logits']), softmax(outputs['prediction'])
    policy, prediction = np.zeros((NUM_STEPS, BATCH_SIZE)), np.zeros((NUM_STEPS, BATCH_SIZE, SIZE))
    for b in range(BATCH_SIZE):
        state = initial.apply({})
        for t in reversed(range(NUM_STEPS)):
            restarts = t + 1 < NUM_STEPS and MASK[t + 1, b] == 0
            if DISCOUNT[t, b] == 0 or restarts:
                state = initial.apply({})
            x = [
                trajectory.reward[t, b],
                DISCOUNT[t, b],
                pi[t, b, trajectory.action[t, b]],
                embed(y[t, b]),
                DISCOUNT[t, b] * embed(y[t + 1, b]),
            ]
            hidden, state = core.apply(weights, jnp.array([x], jnp.float32), state)
            policy[t, b] = linear('policy', np.asarray(hidden))[0, 0]
            prediction[t, b] = softmax(linear('prediction', np.asarray(hidden))[0])
    return policy, prediction


def test_the_targets_are_those_of_a_loop_backwards_in_time():
    objective = bound(LearnedPolicyGradient(GRU(6), MLP((5,)), SIZE))
    outputs, trajectory = make_data()
    targets = targets_of(objective, outputs, trajectory)
    policy, prediction = loop(objective, outputs, trajectory)
    np.testing.assert_allclose(targets.policy, policy, atol=1e-5)
    np.testing.assert_allclose(targets.prediction, prediction, atol=1e-5)
    np.testing.assert_allclose(np.exp(targets.log_prediction), prediction, atol=1e-5)


def test_the_loss_by_hand():
    outputs, trajectory = make_data()
    random = np.random.default_rng(1)
    policy = random.normal(size=(NUM_STEPS, BATCH_SIZE)).astype(np.float32)
    prediction = softmax(random.normal(size=(NUM_STEPS, BATCH_SIZE, SIZE))).astype(np.float32)
    loss, _ = LearnedPolicyGradient(prediction_size=SIZE, prediction_cost=0.3).loss(
        without_last(outputs), LearnedTargets(policy, prediction, np.log(prediction)), trajectory
    )
    pi, y = softmax(outputs['logits']), softmax(outputs['prediction'])
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            divergence = sum(y[t, b] * np.log(y[t, b] / prediction[t, b]))
            expected = -policy[t, b] * np.log(pi[t, b, trajectory.action[t, b]]) + 0.3 * divergence
            assert loss[t, b] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_shown_policy_and_predictions_can_stop_the_gradient():
    outputs, trajectory = make_data()
    for stop in (True, False):
        objective = bound(LearnedPolicyGradient(GRU(6), MLP((5,)), SIZE, stop_inputs=stop))
        slope = jax.grad(lambda outputs, o=objective: targets_of(o, outputs, trajectory).policy.sum())(
            jax.tree.map(jnp.asarray, outputs)
        )
        assert [bool(np.any(slope[head])) for head in sorted(slope)] == [not stop] * 2


def test_the_size_of_targets_is_penalised():
    outputs, trajectory = make_data()
    objective = bound(LearnedPolicyGradient(GRU(6), MLP((5,)), SIZE))
    targets = targets_of(objective, outputs, trajectory)
    penalty = TargetSize({'policy': 0.5, 'prediction': 2.0})(
        UpdateRule(objective, Optimiser(optax.identity(), 0.1)), Unroll(outputs, trajectory, None, None), ()
    )
    expected = 0.5 * np.square(targets.policy) + 2 * np.square(targets.prediction).sum(-1)
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


def test_the_entropy_of_an_output_is_a_bonus():
    outputs, trajectory = make_data()
    loss, _ = EntropyBonus('prediction', SIZE, 0.1).loss(without_last(outputs), (), trajectory)
    y = softmax(outputs['prediction'][:-1])
    np.testing.assert_allclose(loss, 0.1 * (y * np.log(y)).sum(-1), rtol=1e-4)


def lpg(**kwargs):
    """LPG on a 4 x 3 Catch, and beside it the critic that the outer objective needs."""
    objective = Sum(
        {
            'lpg': LearnedPolicyGradient(GRU(6), MLP((5,)), SIZE),
            'critic': ValueRegression(LambdaReturn(0.9, 0.8), value_head='value'),
        }
    )
    outer = Sum(
        {
            'actor_critic': ActorCritic(LambdaReturn(0.9, 0.8), value_cost=0.0, entropy_cost=0.05),
            'prediction': EntropyBonus('prediction', SIZE, 0.1),
        }
    )
    parts = {
        'update_rule': UpdateRule(objective, Optimiser(optax.identity(), 0.5)),
        'meta_parameters': MetaParameterSet({'objective.terms.lpg.weights': Weights()}),
        'meta_optimiser': meta_gradient(objective=outer, num_inner_steps=2),
    }
    return make_agent(**{**parts, **kwargs})


def test_the_meta_gradient_is_right():
    ((path, comparison),) = compare_with_finite_differences(Learner(lpg())).items()
    assert path == 'objective.terms.lpg.weights'
    assert comparison.autodiff != 0
    assert comparison.relative_error < 1e-4, comparison


def test_predictions_are_needed():
    with pytest.raises(ValueError, match='prediction_size must be at least 1, got 0'):
        LearnedPolicyGradient(prediction_size=0)


def test_lifetimes_end_one_after_the_other_and_leave_the_meta_parameters():
    learner = Learner(lpg(num_lifetimes=2, lifetime_length=4, unroll_length=2), num_meta_steps=1)
    assert learner.state.agents.num_updates.tolist() == [[0, 2]]
    new = jax.jit(learner.init_agent)
    before = jax.tree.map(lambda x: np.array(x[0, 0]), learner.state.agents.params)

    def weights(lifetime):
        return jax.tree.map(lambda x: np.array(x[0, lifetime]), learner.state.agents.params)

    learner.advance(1)
    assert learner.state.agents.num_updates.tolist() == [
        [2, 0]
    ]  # The second has had its 4 updates, as it started half way.
    learned = weights(0)
    assert any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (before, learned)), strict=True))
    # A new agent has heads without a bias, which learning has given the other.
    assert all(np.any(learned[f'network/{head}_head']['b']) for head in ('logits', 'prediction', 'value'))
    assert not any(np.any(weights(1)[f'network/{head}_head']['b']) for head in ('logits', 'prediction', 'value'))
    learner.advance(1)
    assert learner.state.agents.num_updates.tolist() == [[0, 2]]
    assert not any(np.any(weights(0)[f'network/{head}_head']['b']) for head in ('logits', 'prediction', 'value'))
    assert all(np.any(weights(1)[f'network/{head}_head']['b']) for head in ('logits', 'prediction', 'value'))
    assert jax.tree.structure(new(jax.random.key(0)).params) == jax.tree.structure(learned)


def test_a_lifetime_shorter_than_a_meta_step_is_refused():
    with pytest.raises(CompositionError, match=r'lifetime_length \(1\) is shorter than one step .* 2 updates'):
        lpg(lifetime_length=1)
