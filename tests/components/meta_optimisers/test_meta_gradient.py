import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences, recorded_lifetime
from agents.learner import Learner
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.step_weights import Explicit, Geometric, LastStep, Uniform
from components.meta_optimisers.validation_data import FreshTrajectory, TrainingTrajectory
from components.meta_parameters.bijectors import Exp, Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum, masked_mean
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient, update_rule
from tests.helpers.trajectories_for_tests import targets_of, without_last


def first_lifetime(state):
    """Meta-parameters and agent of a learner's first seed and lifetime."""
    return jax.tree.map(lambda x: x[0], state.meta_params), jax.tree.map(lambda x: x[0, 0], state.agents)


def gradient_of(learner, **changes):
    """Meta-gradient of a learner's first lifetime with some fields of its outer loss changed."""
    meta_params, agent = first_lifetime(learner.state)
    meta_optimiser = learner.agent.meta_optimiser
    outer_loss = dataclasses.replace(meta_optimiser.outer_loss, **changes)
    meta_optimiser = dataclasses.replace(meta_optimiser, outer_loss=outer_loss)
    return np.array(list(estimate(learner, meta_optimiser, meta_params, agent).gradient.values()))


def estimate(learner, meta_optimiser, meta_params, agent):
    """What a meta-optimiser estimates from one lifetime."""

    @jax.jit
    def run(meta_params, agent):
        return meta_optimiser.gradient_estimator(meta_optimiser.outer_loss, meta_params, agent, learner.inner_loop, ())

    return run(meta_params, agent)


def assert_trees_close(x, y, rtol=2e-5, atol=1e-6):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


SETTINGS = {
    'one step': {},
    'three steps': {'meta_optimiser': meta_gradient(num_inner_steps=3)},
    'fresh validation': {'meta_optimiser': meta_gradient(num_inner_steps=2, outer_data=FreshTrajectory(7))},
    'fresh validation of the same length': {'meta_optimiser': meta_gradient(outer_data=FreshTrajectory(4))},
    'the training trajectory': {'meta_optimiser': meta_gradient(num_inner_steps=2, outer_data=TrainingTrajectory())},
    'mixture': {'meta_optimiser': meta_gradient(num_inner_steps=3, step_weights=Uniform())},
    'mixture with fresh validation': {
        'meta_optimiser': meta_gradient(
            num_inner_steps=2, step_weights=Explicit((0.7, -0.2)), outer_data=FreshTrajectory(6)
        )
    },
    'recurrent': {
        'network': Network(MLP((8,)), LSTM(8)),
        'meta_optimiser': meta_gradient(num_inner_steps=2),
    },
    'Adam': {
        'update_rule': UpdateRule(
            ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.scale_by_adam(eps_root=1e-8), 1e-3)
        ),
        'meta_optimiser': meta_gradient(num_inner_steps=2),
    },
    # On-policy, V-trace truncates ratios just where they are: beyond one step it has no derivative there.
    'V-trace': {
        'update_rule': UpdateRule(ActorCritic(LeakyVTrace(0.9, 0.8)), Optimiser(optax.identity(), 1e-1)),
    },
    'importance sampling': {
        'update_rule': UpdateRule(ActorCritic(LeakyVTrace(0.9, 0.8, alpha=0.0)), Optimiser(optax.identity(), 1e-1)),
        'meta_optimiser': meta_gradient(num_inner_steps=3),
    },
    'sum with an outer critic': {
        'update_rule': UpdateRule(
            Sum({'inner': ActorCritic(LambdaReturn(0.9, 0.8)), 'outer': ValueRegression(LambdaReturn(1.0, 1.0))}),
            Optimiser(optax.scale_by_rms(), 1e-3),
        ),
        'meta_parameters': MetaParameterSet(
            {'objective.terms.inner.returns.discount': Scalar(Sigmoid()), 'optimiser.learning_rate': Scalar(Exp())}
        ),
        'meta_optimiser': meta_gradient(
            num_inner_steps=3, objective=ActorCritic(LambdaReturn(1.0, 1.0), value_cost=0.0, value_head='outer_value')
        ),
    },
}


@pytest.mark.parametrize('name', SETTINGS)
def test_meta_gradient_agrees_with_finite_differences(name):
    learner = Learner(make_agent(**SETTINGS[name]))
    comparisons = compare_with_finite_differences(learner)
    assert comparisons.keys() == learner.agent.meta_parameters.parameters.keys()
    for path, comparison in comparisons.items():
        assert comparison.autodiff != 0, path
        assert comparison.relative_error < 1e-5, (path, comparison)


def test_every_path_of_an_actor_critic_has_a_right_and_non_zero_meta_gradient():
    paths = {
        DISCOUNT: Sigmoid(),
        'objective.returns.lambda_': Sigmoid(),
        'objective.policy_cost': Exp(),
        'objective.value_cost': Exp(),
        'objective.entropy_cost': Exp(),
        'optimiser.learning_rate': Exp(),
    }
    parameters = MetaParameterSet({path: Scalar(bijector) for path, bijector in paths.items()})
    agent = make_agent(meta_parameters=parameters, meta_optimiser=meta_gradient(num_inner_steps=2))
    for path, comparison in compare_with_finite_differences(Learner(agent)).items():
        assert abs(comparison.autodiff) > 1e-9, path
        assert comparison.relative_error < 1e-5, (path, comparison)


@pytest.mark.parametrize('num_inner_steps', [1, 4])
def test_inner_steps_equal_a_python_loop_of_updates(num_inner_steps):
    learner = Learner(make_agent(meta_optimiser=meta_gradient(num_inner_steps=num_inner_steps)))
    meta_params, agent = first_lifetime(learner.state)
    loop = learner.inner_loop
    rule = learner.agent.update_rule
    act = jax.jit(learner.actor.unroll, static_argnums=3)

    @jax.jit
    def update(meta_params, learning, trajectory):
        bound = learner.agent.meta_parameters.bind(rule, meta_params)
        return bound.update(learner.network, learning, trajectory)

    for _ in range(num_inner_steps):
        learning, _ = update(meta_params, agent.learning, agent.trajectory)
        key, act_key = jax.random.split(agent.key)
        actor_state, trajectory, _ = act(learning.params, agent.actor_state, act_key, loop.unroll_length)
        agent = agent._replace(
            learning=learning,
            num_updates=agent.num_updates + 1,
            actor_state=actor_state,
            trajectory=trajectory,
            key=key,
        )
    learner.advance(1)
    _, learned = first_lifetime(learner.state)
    assert_trees_close(learned._replace(key=()), agent._replace(key=()))


def test_one_inner_step_equals_the_meta_gradient_written_out_by_hand():
    """Theta' = theta - lr * semi-gradient(discount), outer loss on the next trajectory, chain rule through theta'."""
    rule = UpdateRule(ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.identity(), 0.1))
    learner = Learner(make_agent(update_rule=rule))
    meta_params, agent = first_lifetime(learner.state)
    network, outer = learner.network, learner.agent.meta_optimiser.outer_loss.objective

    def moved(logit):
        bound = UpdateRule(ActorCritic(LambdaReturn.__new__(LambdaReturn)), rule.optimiser)
        object.__setattr__(bound.objective.returns, 'discount', jax.nn.sigmoid(logit))
        object.__setattr__(bound.objective.returns, 'lambda_', 0.8)
        targets = targets_of(bound.objective, network.outputs(agent.params, agent.trajectory), agent.trajectory)

        def loss(params):
            outputs = network.outputs(params, agent.trajectory)
            return masked_mean(
                bound.objective.loss(without_last(outputs), targets, agent.trajectory)[0], agent.trajectory.mask
            )

        return jax.tree.map(lambda p, g: p - 0.1 * g, agent.params, jax.grad(loss)(agent.params))

    _, act_key = jax.random.split(agent.key)
    params = moved(meta_params[DISCOUNT])
    _, validation, _ = learner.actor.unroll(params, agent.actor_state, act_key, 4)

    def outer_loss(logit):
        outputs = network.outputs(moved(logit), validation)
        targets = jax.lax.stop_gradient(targets_of(outer, outputs, validation))
        return masked_mean(outer.loss(without_last(outputs), targets, validation)[0], validation.mask)

    expected = jax.jit(jax.grad(outer_loss))(meta_params[DISCOUNT])
    np.testing.assert_allclose(gradient_of(learner), [expected], rtol=1e-4)


@pytest.fixture(scope='module')
def plain():
    """A learner, and the plain meta-gradients of its first lifetime through one, two and three steps."""
    learner = Learner(make_agent(meta_optimiser=meta_gradient(num_inner_steps=3)))
    return learner, np.array([gradient_of(learner, num_inner_steps=k) for k in (1, 2, 3)])


@pytest.mark.parametrize('weights', [Uniform(), Geometric(0.5), Explicit((0.0, 2.0, -1.0))])
def test_a_mixture_is_the_weighted_sum_of_plain_meta_gradients(plain, weights):
    learner, gradients = plain
    mixture = gradient_of(learner, step_weights=weights)
    np.testing.assert_allclose(mixture, weights(3) @ gradients, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('k', [1, 2, 3])
def test_one_hot_weights_are_the_plain_k_step_meta_gradient(plain, k):
    learner, gradients = plain
    one_hot = Explicit(tuple(float(i == k) for i in (1, 2, 3)))
    assert gradients[k - 1] != 0
    np.testing.assert_allclose(gradient_of(learner, step_weights=one_hot), gradients[k - 1], rtol=1e-6)


def test_with_one_step_all_weightings_are_the_same():
    learner = Learner(make_agent())
    plain = gradient_of(learner)
    for weights in (Uniform(), Explicit((1.0,))):
        np.testing.assert_array_equal(gradient_of(learner, step_weights=weights), plain)


def test_a_mixture_reports_its_weights_and_the_loss_of_each_step():
    rows = []
    learner = Learner(make_agent(meta_optimiser=meta_gradient(num_inner_steps=2, step_weights=Geometric(0.5))))
    learner._logger.write = rows.append
    learner.advance(3)
    np.testing.assert_allclose([rows[0][f'step_weight/{k}'][0] for k in (1, 2)], [2 / 3, 1 / 3], rtol=1e-6)
    losses = [rows[0][f'outer_loss/step_{k}'][0] for k in (1, 2)]
    np.testing.assert_allclose(np.mean(losses), rows[0]['outer_loss/total'][0], rtol=1e-5)


def test_fresh_validation_is_drawn_for_each_outer_loss():
    rows = []
    weights = {'num_inner_steps': 3, 'outer_data': FreshTrajectory(7)}
    for step_weights, num_validations in ((LastStep(), 1), (Uniform(), 3)):
        learner = Learner(make_agent(meta_optimiser=meta_gradient(step_weights=step_weights, **weights)))
        learner._logger.write = rows.append
        learner.advance(2)
        np.testing.assert_array_equal(rows[-1]['validation_env_steps'], [2 * num_validations * 7 * 5])


def test_stopping_bootstrap_values_changes_the_meta_gradient_beyond_one_step_only(x64):
    def gradient(stop, num_inner_steps):
        rule = UpdateRule(
            ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.identity(), 0.3), stop_bootstrap_values=stop
        )
        agent = make_agent(update_rule=rule, meta_optimiser=meta_gradient(num_inner_steps=num_inner_steps))
        with jax.enable_x64(False):
            learner = Learner(agent)
        lifetime = recorded_lifetime(learner, jnp.float64)
        return float(jax.jit(lifetime.estimate)(lifetime.meta_params).gradient[DISCOUNT])

    assert gradient(True, 1) == pytest.approx(gradient(False, 1), rel=1e-9)
    assert gradient(True, 3) != pytest.approx(gradient(False, 3), rel=1e-3)


def test_lifetimes_share_meta_parameters_and_average_their_gradients():
    learner = Learner(make_agent(num_lifetimes=3))
    meta_params, _ = first_lifetime(learner.state)
    agents = [jax.tree.map(lambda x, i=i: x[0, i], learner.state.agents) for i in range(3)]
    weights = [agent.params['network/logits_head']['w'] for agent in agents]
    assert not np.array_equal(weights[0], weights[1])

    optimiser = learner.agent.meta_optimiser
    gradients = [estimate(learner, optimiser, meta_params, agent).gradient[DISCOUNT] for agent in agents]
    rows = []
    learner._logger.write = rows.append
    learner.advance(1)
    np.testing.assert_allclose(rows[0][f'meta_gradient/{DISCOUNT}'][0], np.mean(gradients), rtol=1e-4)


def test_fixed_meta_parameters_train_exactly_like_constants():
    """Plain reinforcement learning with a bound discount of 0.9 is the same as with the constant 0.9."""
    learned = Learner(make_agent(meta_optimiser=Fixed()))
    constant = Learner(make_agent(meta_optimiser=Fixed(), meta_parameters=MetaParameterSet()))
    # Their keys differ only where the meta-parameters start, which takes no randomness.
    for learner in (learned, constant):
        learner.advance(5)
    assert_trees_close(learned.state.agents.params, constant.state.agents.params)


def test_the_discount_moves_to_where_the_outer_objective_wants_it():
    """On one-step episodes delayed by a long fall, an undiscounted outer objective raises the discount."""
    agent = make_agent(
        environment=Batch(Catch(6, 3), 32),
        unroll_length=6,
        update_rule=UpdateRule(ActorCritic(LambdaReturn(0.5, 0.9)), Optimiser(optax.scale_by_rms(), 2e-3)),
    )
    learner = Learner(agent, num_meta_steps=300)
    learner.step()
    (values,) = learner.get_variables(['meta_parameters'])
    assert values[DISCOUNT] > 0.7


@pytest.mark.parametrize(
    'transform', [optax.scale_by_adam(), optax.chain(optax.clip_by_global_norm(1.0), optax.identity())]
)
def test_an_inner_optimiser_that_would_give_nan_is_refused(transform):
    rule = UpdateRule(ActorCritic(LambdaReturn()), Optimiser(transform, 1e-3))
    with pytest.raises(CompositionError, match=r'Optimiser.transform cannot be differentiated'):
        make_agent(update_rule=rule)
    make_agent(update_rule=rule, meta_optimiser=Fixed())  # Nothing is differentiated here.


def test_a_meta_parameter_without_a_path_to_the_outer_loss_is_named():
    """With separate torsos the weight of the value loss cannot reach a policy-gradient outer loss in one step."""
    agent = make_agent(
        network=Network(MLP((8,)), shared=False),
        meta_parameters=MetaParameterSet(
            {'objective.value_cost': Scalar(Exp()), 'objective.entropy_cost': Scalar(Exp())}
        ),
        meta_optimiser=meta_gradient(objective=ActorCritic(LambdaReturn(1.0, 1.0), value_cost=0.0)),
    )
    with pytest.raises(CompositionError, match=r"'objective.value_cost'.*optimiser.learning_rate") as error:
        Learner(agent).advance(2)
    assert "'objective.entropy_cost'" not in str(error.value)


def test_an_outer_critic_that_nothing_trains_is_refused():
    objective = ActorCritic(LambdaReturn(), value_head='outer_value')
    with pytest.raises(CompositionError, match=r'outer_value.*no term of the inner objective trains'):
        make_agent(meta_optimiser=meta_gradient(objective=objective))


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match='num_inner_steps must be at least 1, got 0'):
        meta_gradient(num_inner_steps=0)
    with pytest.raises(ValueError, match='unroll_length must be None or at least 1, got 0'):
        FreshTrajectory(0)


def test_no_meta_parameters_to_train_is_refused():
    with pytest.raises(CompositionError, match='no meta-parameters'):
        make_agent(meta_parameters=MetaParameterSet())


def test_a_zero_gradient_does_not_make_the_meta_gradient_nan():
    """A dead unit: its weights have gradients of exactly zero."""
    learner = Learner(make_agent(update_rule=update_rule(), meta_optimiser=meta_gradient(num_inner_steps=2)))
    meta_params, agent = first_lifetime(learner.state)
    dead = jax.tree.map(lambda x: x.at[..., 0].set(-1e3 if x.ndim == 1 else 0.0), agent.params)
    found = estimate(
        learner,
        learner.agent.meta_optimiser,
        meta_params,
        agent._replace(learning=agent.learning._replace(params=dead)),
    )
    assert jnp.isfinite(found.gradient[DISCOUNT])
