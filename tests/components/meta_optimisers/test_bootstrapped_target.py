import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences, recorded_lifetime
from agents.learner import Learner
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.meta_optimisers.bootstrapped_target import BootstrappedTarget
from components.meta_optimisers.gradient_estimators.base import repeat
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent
from tests.helpers.trajectories_for_tests import targets_of

OUTER = ActorCritic(LambdaReturn(1.0, 1.0), value_cost=0.3, entropy_cost=0.0)


def bootstrapped(**kwargs) -> MetaGradient:
    parts = {'objective': OUTER, 'target_optimiser': Optimiser(optax.identity(), 0.3)}
    return MetaGradient(BootstrappedTarget(**{**parts, **kwargs}), optax.adam(1e-2))


def learner_of(meta_optimiser, **kwargs):
    rule = UpdateRule(ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.scale_by_rms(), 1e-2))
    with jax.enable_x64(False):
        return Learner(make_agent(**{'update_rule': rule, 'meta_optimiser': meta_optimiser, **kwargs}))


def first_lifetime(state):
    return jax.tree.map(lambda x: x[0], state.meta_params), jax.tree.map(lambda x: x[0, 0], state.agents)


def assert_trees_close(x, y, rtol=2e-5, atol=1e-6):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'num_inner_steps': 3, 'num_target_steps': 2, 'value_cost': 0.5},
        {'num_inner_steps': 2, 'policy_cost': 0.0, 'value_cost': 1.0},
    ],
)
@pytest.mark.parametrize(
    'network', [pytest.param(Network(MLP((16,))), marks=pytest.mark.slow), Network(MLP((8,)), LSTM(8))]
)
def test_meta_gradient_agrees_with_finite_differences(settings, network):
    comparison = compare_with_finite_differences(learner_of(bootstrapped(**settings), network=network))[DISCOUNT]
    assert comparison.autodiff != 0
    assert comparison.relative_error < 1e-5


def test_exact_modes_agree(x64):
    lifetime = recorded_lifetime(learner_of(bootstrapped(num_inner_steps=2, num_target_steps=3)), jnp.float64)
    expected, *others = (
        jax.jit(lambda m, mode=mode: lifetime.estimate(m, mode).gradient[DISCOUNT])(lifetime.meta_params)
        for mode in (Reverse(), Mixed(), Mixed(rematerialise=True), Forward())
    )
    assert expected != 0
    np.testing.assert_allclose(others, expected, rtol=1e-10)


def test_a_step_equals_the_algorithm_written_out_as_a_loop():
    """K = 2 updates, L - 1 = 2 more, one on the outer objective; the agent goes on from the last of its own updates."""
    learner = learner_of(bootstrapped(num_inner_steps=2, num_target_steps=3, value_cost=0.5))
    meta_params, agent = first_lifetime(learner.state)
    loop = learner.inner_loop
    advance = jax.jit(loop.advance)
    agents = [agent]
    for _ in range(4):
        agents.append(advance(meta_params, agents[-1])[0])
    student, last = agents[2], agents[4]

    network = learner.network
    outputs = network.outputs(last.params, last.trajectory)
    targets = targets_of(OUTER, outputs, last.trajectory)
    gradient = jax.grad(
        lambda p: OUTER.loss(network.predictions(p, last.trajectory)[0], targets, last.trajectory)[0].mean()
    )(last.params)
    target = jax.tree.map(lambda p, g: p - 0.3 * g, last.params, gradient)
    ours, theirs = (network.outputs(p, student.trajectory) for p in (student.params, target))
    p = jax.nn.softmax(theirs['logits'][:-1])
    divergence = (p * jnp.log(p / jax.nn.softmax(ours['logits'][:-1]))).sum(-1).mean()
    distance = jnp.square(theirs['value'][:-1] - ours['value'][:-1]).mean()

    rows = []
    learner._logger.write = rows.append
    learner.advance(1)
    (row,) = rows
    np.testing.assert_allclose(row['outer_loss/policy'][0], divergence, rtol=1e-4)
    np.testing.assert_allclose(row['outer_loss/value'][0], distance, rtol=1e-4)
    np.testing.assert_allclose(row['outer_loss/total'][0], divergence + 0.5 * distance, rtol=1e-4)
    assert row['learner_updates'] == 4
    _, learned = first_lifetime(learner.state)
    assert_trees_close(learned._replace(key=()), last._replace(key=()))


def test_no_gradient_flows_through_the_target():
    """Matching the target while it is held fixed has the derivative of a distance to a constant."""
    learner = learner_of(bootstrapped(num_inner_steps=2))
    with jax.enable_x64(True):
        lifetime = recorded_lifetime(learner, jnp.float64)
        estimate = jax.jit(lifetime.estimate)(lifetime.meta_params)
        fixed = estimate.result.targets

        def loss(meta_params):
            per_update = repeat(meta_params, 2)
            outer_loss, state = lifetime.meta_optimiser.outer_loss, lifetime.state
            return outer_loss(per_update, lifetime.agent, lifetime.inner_loop, state, fixed)[0]

        expected = jax.jit(jax.grad(loss))(lifetime.meta_params)[DISCOUNT]
        np.testing.assert_allclose(estimate.gradient[DISCOUNT], expected, rtol=1e-9)


def test_the_targets_optimiser_keeps_its_own_state():
    learner = learner_of(bootstrapped(target_optimiser=Optimiser(optax.scale_by_adam(), 1e-3)))
    learner.advance(3)
    state = learner.state.meta_opt_state.lifetime_state.opt_state
    assert state.count[0, 0] == 3
    assert all(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(state.mu))


def test_the_discount_moves_to_where_the_outer_objective_wants_it():
    learner = learner_of(
        bootstrapped(target_optimiser=Optimiser(optax.scale_by_rms(), 2e-3)),
        environment=Batch(Catch(6, 3), 32),
        unroll_length=6,
        update_rule=UpdateRule(ActorCritic(LambdaReturn(0.5, 0.9)), Optimiser(optax.scale_by_rms(), 2e-3)),
        meta_parameters=MetaParameterSet({DISCOUNT: Scalar(Sigmoid())}),
    )
    learner.advance(300)
    (values,) = learner.get_variables(['meta_parameters'])
    assert values[DISCOUNT] > 0.6


def test_only_heads_that_are_matched_are_asked_for():
    spec = make_agent().environment.spec()
    objective = ActorCritic(LambdaReturn(), value_head='outer_value')
    assert set(bootstrapped(objective=objective).heads(spec)) == {'logits', 'outer_value'}
    assert set(bootstrapped(objective=objective, value_cost=1.0).heads(spec)) == {'logits', 'outer_value', 'value'}


@pytest.mark.parametrize(
    ('settings', 'part'),
    [
        ({'num_inner_steps': 0}, 'num_inner_steps must be at least 1, got 0'),
        ({'num_target_steps': 0}, 'num_target_steps must be at least 1, got 0'),
        ({'policy_cost': 0.0}, 'nothing is matched'),
    ],
)
def test_bad_numbers_are_refused(settings, part):
    with pytest.raises(ValueError, match=part):
        bootstrapped(**settings)
