"""Returns that a network computes: against a plain loop over time, and their meta-gradients against finite
differences."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences
from agents.learner import Learner
from components.acting.policies import EpsilonMixture
from components.meta_optimisers.gradient_estimators.exact import Forward
from components.meta_optimisers.regularisers import Consistency, check_regularisers
from components.meta_optimisers.validation_data import FreshTrajectory
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar, Weights
from components.networks.cores import GRU
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum, Unroll
from components.objectives.entropy_bonus import EntropyBonus
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import LambdaReturn
from components.objectives.value_regression import ActionValueRegression, ValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient
from tests.helpers.trajectories_for_tests import BATCH_SIZE, DISCOUNT, NUM_STEPS, SPEC, make_data

WEIGHTS = 'objective.returns.weights'


def bound(returns, seed=0, spec=SPEC):
    return dataclasses.replace(returns, weights=returns.init_weights(jax.random.key(seed), spec))


def backward_loop(returns, values, log_rho, trajectory):
    """The same, one step and one environment at a time."""

    def compress(x):
        return np.sign(x) * np.log(1 + np.abs(x))

    core = hk.without_apply_rng(hk.transform(lambda x, state: returns.core()(x, state)))
    initial = hk.without_apply_rng(hk.transform(lambda: returns.core().initial_state(1)))
    weights = {name.replace('reset_core/', ''): leaf for name, leaf in returns.weights.items()}
    targets = np.zeros((NUM_STEPS, BATCH_SIZE))
    for b in range(BATCH_SIZE):
        state = initial.apply({})
        for t in reversed(range(NUM_STEPS)):
            terminated = trajectory.discount[t, b] == 0
            restarts = t + 1 < NUM_STEPS and trajectory.mask[t + 1, b] == 0
            if terminated or restarts:
                state = initial.apply({})
            shown = {
                'reward': compress(trajectory.reward[t, b]),
                'discount': trajectory.discount[t, b],
                'next_value': compress(trajectory.discount[t, b] * values[t + 1, b]),
                'value': compress(values[t, b]),
                'log_rho': compress(log_rho[t, b]),
            }
            x = jnp.array([[shown[name] for name in returns.inputs]], jnp.float32)
            hidden, state = core.apply(weights, x, state)
            targets[t, b] = (hidden @ weights['target']['w'] + weights['target']['b'])[0, 0]
    return targets


@pytest.mark.parametrize('inputs', [('reward', 'discount', 'next_value'), ('log_rho', 'value', 'reward')])
def test_the_target_is_that_of_a_loop_backwards_in_time(inputs):
    returns = bound(LearnedReturn(inputs, GRU(5)))
    values, log_rho, trajectory = make_data()
    estimate = returns(values, log_rho, trajectory)
    np.testing.assert_allclose(estimate.target, backward_loop(returns, values, log_rho, trajectory), atol=1e-5)
    np.testing.assert_allclose(estimate.advantage, estimate.target - values[:-1], atol=1e-6)


def test_no_target_reaches_through_an_end_and_every_other_one_does():
    """Which targets a change at each step of each environment moves."""
    returns = bound(LearnedReturn(('reward', 'discount', 'next_value', 'value', 'log_rho'), GRU(5), MLP((4,))))
    values, log_rho, trajectory = make_data()
    call = jax.jit(
        lambda values, log_rho, reward, observation: (
            returns(values, log_rho, trajectory._replace(reward=reward, observation=observation)).target
        )
    )
    before = call(values, log_rho, trajectory.reward, trajectory.observation)
    last_of = {0: [2, 2, 2, 5, 5, 5], 1: [2, 2, 2, 3, 5, 5], 2: [5] * 6}  # Step 3 of column 1 is a restart, for itself.
    for b in range(BATCH_SIZE):
        for t in range(NUM_STEPS):
            moved = [np.array(x) for x in (values, log_rho, trajectory.reward, trajectory.observation)]
            moved[0][t, b] += 1
            moved[1][t, b] += 1
            moved[2][t, b] += 1
            moved[3][t + 1, b] += 1
            changed = np.asarray(call(*moved) != before)
            expected = np.zeros_like(changed)
            expected[:, b] = [i <= t <= last_of[b][i] for i in range(NUM_STEPS)]
            if t > 0 and DISCOUNT[t - 1, b] == 1:  # The value of a state is that of the transition before it, too.
                expected[:, b] |= np.array([i <= t - 1 <= last_of[b][i] for i in range(NUM_STEPS)])
            np.testing.assert_array_equal(changed, expected, err_msg=f'step {t} of environment {b}')


def test_the_output_can_be_added_to_a_known_return():
    values, log_rho, trajectory = make_data()
    alone = bound(LearnedReturn(core=GRU(5)))
    base = LambdaReturn(0.9, 0.7)
    both = dataclasses.replace(alone, base=base)
    expected = alone(values, log_rho, trajectory).target + base(values, log_rho, trajectory).target
    np.testing.assert_allclose(both(values, log_rho, trajectory).target, expected, atol=1e-5)


def test_targets_can_be_differentiated_where_inputs_are_exactly_zero():
    returns = bound(LearnedReturn(('reward', 'log_rho', 'value'), GRU(5)))
    values, log_rho, trajectory = make_data()

    def slopes(x):
        arguments = [jnp.full_like(array, x) for array in (values, log_rho, trajectory.reward)]
        return jax.grad(lambda v, r, reward: returns(v, r, trajectory._replace(reward=reward)).target.sum(), (0, 1, 2))(
            *arguments
        )

    for at_zero, beside in zip(slopes(0), slopes(1e-5), strict=True):
        np.testing.assert_allclose(at_zero, beside, atol=1e-3)
        assert np.any(np.abs(at_zero) > 0.01)


@pytest.mark.parametrize('stop', [True, False])
def test_values_that_are_shown_stop_the_gradient_if_told(stop):
    returns = bound(LearnedReturn(('next_value', 'value'), GRU(5), stop_value_inputs=stop))
    values, log_rho, trajectory = make_data()
    slope = jax.grad(lambda values: returns(values, log_rho, trajectory).target.sum())(jnp.asarray(values))
    assert bool(np.any(slope)) is not stop


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (lambda: LearnedReturn(()), 'inputs names nothing; there is reward'),
        (lambda: LearnedReturn(('reward', 'rewards')), 'inputs names rewards; there is reward'),
        (lambda: Consistency(stop='both'), "'none' or 'bootstrap' or 'prediction'"),
    ],
)
def test_what_is_not_there_is_refused(make, part):
    with pytest.raises(ValueError, match=part):
        make()


def learned(objective=None, **kwargs):
    """An agent on a 4 x 3 Catch with a learned return."""
    objective = objective or ActorCritic(LearnedReturn(core=GRU(5)), 1.0, 0.7, 0.05)
    parts = {
        'update_rule': UpdateRule(objective, Optimiser(optax.scale_by_rms(), 0.01)),
        'meta_parameters': MetaParameterSet({WEIGHTS: Weights()}),
    }
    return make_agent(**{**parts, **kwargs})


def test_a_network_has_to_be_a_meta_parameter_and_of_its_kind():
    with pytest.raises(CompositionError, match=r'objective.returns.weights are not initialised: add to .*Weights\(\)'):
        learned(meta_parameters=MetaParameterSet({'objective.entropy_cost': Scalar()}))
    with pytest.raises(CompositionError, match=r'weights of a network, not a number.*Weights'):
        learned(meta_parameters=MetaParameterSet({WEIGHTS: Scalar()}))
    with pytest.raises(CompositionError, match=r'the number 0.05, not weights of a network.*Scalar'):
        learned(meta_parameters=MetaParameterSet({WEIGHTS: Weights(), 'objective.entropy_cost': Weights()}))
    with pytest.raises(CompositionError, match='whole network; use Mixed'):
        learned(meta_optimiser=meta_gradient(gradient_estimator=Forward()))


OUTER = meta_gradient(num_inner_steps=2, outer_data=FreshTrajectory(6))
OUTER_VALUE = meta_gradient(
    num_inner_steps=2, outer_data=FreshTrajectory(6), objective=ActionValueRegression(LambdaReturn(1.0, 1.0))
)


@pytest.mark.parametrize(
    'agent',
    [
        learned(meta_optimiser=OUTER),
        learned(
            ActorCritic(LearnedReturn(('reward', 'next_value', 'value', 'log_rho'), GRU(5), MLP((4,)), LambdaReturn())),
            meta_optimiser=OUTER,
            meta_parameters=MetaParameterSet({WEIGHTS: Weights(), 'objective.returns.base.discount': Scalar()}),
        ),
        learned(
            ActionValueRegression(LearnedReturn(core=GRU(5))),
            meta_optimiser=OUTER_VALUE,
            policy=EpsilonMixture(epsilon=0.3),
        ),
    ],
    ids=['actor_critic', 'everything', 'value_based'],
)
def test_the_meta_gradient_is_right(agent):
    for path, comparison in compare_with_finite_differences(Learner(agent)).items():
        assert comparison.autodiff != 0
        assert comparison.relative_error < 1e-4, (path, comparison)


def consistency_by_hand(target, trajectory, discount):
    errors = np.zeros_like(target)
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            goes_on = t + 1 < NUM_STEPS and trajectory.mask[t + 1, b]
            if trajectory.discount[t, b] == 0:
                errors[t, b] = target[t, b] - trajectory.reward[t, b]
            elif goes_on:
                errors[t, b] = target[t, b] - (trajectory.reward[t, b] + discount * target[t + 1, b])
    return errors**2


def test_consistency_is_that_of_successive_targets():
    values, _, trajectory = make_data()
    returns = bound(LearnedReturn(core=GRU(5)))
    rule = UpdateRule(ValueRegression(returns, value_head='value'), Optimiser(optax.identity(), 0.1))
    outputs = {'value': values, 'logits': jnp.zeros((*values.shape, 3))}
    target = np.asarray(returns(values, np.zeros_like(trajectory.reward), trajectory).target)
    unroll = Unroll(outputs, trajectory, None, None)
    penalty = Consistency(0.3, 0.9)(rule, unroll, ())
    np.testing.assert_allclose(penalty, 0.3 * consistency_by_hand(target, trajectory, 0.9), rtol=1e-4, atol=1e-6)
    # A return that is consistent by its own definition pays nothing, but where it starts from a value.
    longest = UpdateRule(ValueRegression(LambdaReturn(0.9, 1.0), value_head='value'), rule.optimiser)
    np.testing.assert_allclose(Consistency(0.3, 0.9)(longest, unroll, ()), 0, atol=1e-9)


def slope_of_consistency(stop, target, trajectory):
    def penalty(target):
        objective = ActorCritic(LambdaReturn())
        rule = UpdateRule(objective, Optimiser(optax.identity(), 0.1))
        object.__setattr__(objective, 'targets', lambda unroll, state: (target, state))
        return Consistency(1.0, 0.9, stop)(rule, Unroll({}, trajectory, None, None), ()).sum()

    return jax.grad(penalty)(jnp.asarray(target))


def test_where_the_gradient_of_consistency_stops():
    _, _, trajectory = make_data()
    target = np.random.default_rng(1).normal(size=(NUM_STEPS, BATCH_SIZE)).astype(np.float32)
    slopes = {stop: slope_of_consistency(stop, target, trajectory) for stop in ('none', 'bootstrap', 'prediction')}
    np.testing.assert_allclose(slopes['bootstrap'] + slopes['prediction'], slopes['none'], atol=1e-5)
    # In column 2 the last target is a successor only, and the first a prediction only.
    assert slopes['bootstrap'][-1, 2] == 0 != slopes['prediction'][-1, 2]
    assert slopes['prediction'][0, 2] == 0 != slopes['bootstrap'][0, 2]


def test_regularisers_add_their_own_slope_to_the_meta_gradient():
    """SGD on the meta-parameters moves them by the sum of the two, and the logs tell both."""

    def advanced(regularisers):
        optimiser = dataclasses.replace(OUTER, optimiser=optax.sgd(1.0), regularisers=regularisers)
        rows = []
        learner = Learner(learned(meta_optimiser=optimiser), logger=Rows(rows))
        before = jax.tree.map(np.array, learner.state.meta_params[WEIGHTS])
        learner.advance(1)
        moved = jax.tree.map(lambda x, y: np.asarray(x - y)[0], before, learner.state.meta_params[WEIGHTS])
        return moved, rows[0]

    without, row = advanced({})
    assert not any('regularisers' in name for name in row)
    both, row = advanced({'consistency': Consistency(10.0)})
    slope = jax.tree.map(lambda x, y: x - y, both, without)
    assert row['outer_loss/consistency'] > 0
    np.testing.assert_allclose(row[f'meta_gradient_of_regularisers/{WEIGHTS}'], optax.tree.norm(slope), rtol=1e-3)
    optimiser = dataclasses.replace(OUTER, regularisers={'consistency': Consistency(objective='objective.terms')})
    with pytest.raises(CompositionError, match=r"regulariser 'consistency': the path 'objective.terms' ends"):
        learned(meta_optimiser=optimiser)


@pytest.mark.parametrize('path', ['objective', 'objective.terms'])
def test_a_regulariser_of_several_objectives_names_them(path):
    rule = UpdateRule(
        Sum({'one': ActorCritic(LearnedReturn()), 'other': EntropyBonus('logits', 3)}), Optimiser(optax.identity(), 0.1)
    )
    with pytest.raises(ValueError, match=r'bind its field objective to one of objective\.terms\.one, objective\.terms'):
        check_regularisers({'consistency': Consistency(objective=path)}, rule)
    check_regularisers({'consistency': Consistency(objective='objective.terms.one')}, rule)


class Rows:
    """A logger that keeps what it is given."""

    def __init__(self, rows):
        self.write = rows.append
