"""Objectives that remember something: target networks and moving averages, alone and through meta-gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import recorded_lifetime
from agents.learner import Learner
from components.component import component
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.bootstrapped_target import BootstrappedTarget
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.gradient_estimators.truncated import Truncated
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.regularisers import Consistency, targets_at
from components.meta_optimisers.step_weights import Uniform
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Stateless, Sum, Unroll, masked_mean
from components.objectives.entropy_bonus import EntropyBonus
from components.objectives.moving_averages import MovingAverage
from components.objectives.returns import LambdaReturn, ReturnEstimate
from components.objectives.target_network import TargetNetwork
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient
from tests.helpers.trajectories_for_tests import MASK, SPEC, make_data, without_last

INNER = ActorCritic(LambdaReturn(0.9, 0.8))
WHOLE = Sum({'ac': TargetNetwork(MovingAverage(INNER, 0.6, stop_moments=False), 0.3)})
"""Both, in a sum, with every gradient flowing."""
PATHS = {
    'rate': 'objective.terms.ac.rate',
    'decay': 'objective.terms.ac.objective.decay',
    'discount': 'objective.terms.ac.objective.objective.returns.discount',
}

STOPPED = TargetNetwork(MovingAverage(INNER, 0.6), 0.3, stop_target_params=True)
STOPPED_PATHS = 'objective.objective.decay', 'objective.objective.objective.returns.discount'


def rule_of(objective):
    return UpdateRule(objective, Optimiser(optax.scale_by_rms(), 1e-2))


def learner_of(objective, paths=(), **kwargs):
    learned = MetaParameterSet({path: Scalar(Sigmoid()) for path in paths})
    return Learner(make_agent(update_rule=rule_of(objective), meta_parameters=learned, **kwargs))


def first(tree):
    return jax.tree.map(lambda x: jnp.copy(x[0, 0]), tree)


def given(**values):
    """Outputs with these values `[T, B]`; those at the last observation are not read."""
    return {name: jnp.append(x, jnp.full_like(x[:1], jnp.nan), axis=0) for name, x in values.items()}


@component
class Given(Stateless):
    """An objective of advantages that are given in place of outputs."""

    def heads(self, spec):
        return {}

    def targets(self, unroll, state):
        return ReturnEstimate(unroll.outputs['target'][:-1], unroll.outputs['advantage'][:-1]), state

    def loss(self, predictions, targets, trajectory):
        return targets.advantage, {}


# --- Moving averages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('decay', [0.0, 0.7])
@pytest.mark.parametrize('subtract_mean', [True, False])
def test_advantages_are_normalised_by_moments_that_weigh_late_updates_most(decay, subtract_mean):
    objective = MovingAverage(Given(), decay, 1e-3, subtract_mean)
    _, _, trajectory = make_data()
    random, state, seen = np.random.default_rng(0), objective.init(None), []
    for update in range(4):
        advantage = random.normal(1.0 + update, 1.0 + update, size=MASK.shape)
        outputs = given(advantage=jnp.asarray(advantage), target=jnp.asarray(7 * advantage))
        targets, state = objective.targets(Unroll(outputs, trajectory, None, None), state)
        seen.append(advantage[MASK > 0])
        weights = np.concatenate([np.full(x.size, decay ** (update - i) / x.size) for i, x in enumerate(seen)])
        weights, values = weights / weights.sum(), np.concatenate(seen)
        mean = weights @ values
        variance = weights @ (values - mean) ** 2
        expected = (advantage - subtract_mean * mean) / np.sqrt(variance + 1e-3)
        np.testing.assert_allclose(targets.advantage, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(targets.target, 7 * advantage, rtol=1e-6)


def test_a_trajectory_of_masked_transitions_leaves_the_moments_alone():
    objective = MovingAverage(Given(), 0.5)
    _, _, trajectory = make_data()
    nothing = trajectory._replace(mask=0 * trajectory.mask)
    outputs = given(advantage=jnp.full(MASK.shape, 3.0), target=jnp.zeros(MASK.shape))
    for state in (
        objective.init(None),
        objective.targets(Unroll(outputs, trajectory, None, None), objective.init(None))[1],
    ):
        _, after = objective.targets(Unroll(outputs, nothing, None, None), state)
        np.testing.assert_array_equal(jax.tree.leaves(after), jax.tree.leaves(state))


def test_no_gradient_flows_through_the_moments_unless_asked_for():
    _, _, trajectory = make_data()
    random = np.random.default_rng(0)
    advantage = jnp.asarray(random.normal(size=MASK.shape))

    def normalised(stop):
        def run(advantage):
            objective = MovingAverage(Given(), 0.5, stop_moments=stop)
            outputs = given(advantage=advantage, target=advantage)
            return objective.targets(Unroll(outputs, trajectory, None, None), objective.init(None))[0].advantage

        return run

    standard_deviation = np.asarray(advantage)[MASK > 0].std()
    slope = jax.jacobian(normalised(True))(advantage).reshape(advantage.size, -1)
    np.testing.assert_allclose(slope, np.eye(advantage.size) / standard_deviation, rtol=1e-4, atol=1e-6)
    # Normalised numbers do not change as all of them are moved or scaled.
    slope = jax.jacobian(normalised(False))(advantage).reshape(advantage.size, -1)
    counted = MASK.ravel() > 0
    np.testing.assert_allclose(slope[counted] @ (counted * 1.0), 0, atol=1e-5)
    np.testing.assert_allclose(slope[counted] @ (counted * advantage.ravel()), 0, atol=1e-5)


def test_an_objective_without_advantages_cannot_be_normalised():
    with pytest.raises(CompositionError, match='EntropyBonus, whose targets have no advantages to normalise'):
        MovingAverage(EntropyBonus('logits', 3)).targets(
            Unroll({}, None, None, None), MovingAverage(Given()).init(None)
        )


# --- Target networks --------------------------------------------------------------------------------------------------


def test_targets_are_those_of_weights_that_follow():
    objective = TargetNetwork(INNER, 0.25)
    learner = learner_of(
        objective, meta_optimiser=meta_gradient(num_inner_steps=1), paths=['objective.objective.returns.discount']
    )
    agent, outputs_of = first(learner.state.agents), jax.jit(learner.network.outputs)
    meta_params = jax.tree.map(lambda x: x[0], learner.state.meta_params)
    copy, optimiser = agent.params, learner.agent.update_rule.optimiser
    advance = jax.jit(learner.inner_loop.advance)
    for _ in range(3):
        copy = jax.tree.map(lambda x, y: 0.75 * x + 0.25 * y, copy, agent.params)
        outputs = outputs_of(agent.params, agent.trajectory)
        outputs['value'] = outputs_of(copy, agent.trajectory)['value']
        targets, _ = INNER.targets(Unroll(outputs, agent.trajectory, None, None), ())

        def loss(params, targets=targets, trajectory=agent.trajectory):
            losses, _ = INNER.loss(without_last(outputs_of(params, trajectory)), targets, trajectory)
            return masked_mean(losses, trajectory.mask)

        expected, _ = optimiser.step(jax.grad(loss)(agent.params), agent.learning.opt_state, agent.params)
        agent, _ = advance(meta_params, agent)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), agent.params, expected)
        state = agent.learning.objective_state
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), state.target_params, copy)


def test_weights_that_are_followed_at_once_are_no_target_network():
    plain, followed = (
        learner_of(objective, meta_optimiser=Fixed()) for objective in (INNER, TargetNetwork(INNER, 1.0))
    )
    for learner in (plain, followed):
        learner.advance(3)
    params = (first(learner.state.agents).params for learner in (plain, followed))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), *params)


def test_only_heads_of_the_objective_can_be_read_from_the_copy():
    with pytest.raises(ValueError, match='names q; the objective reads logits, value'):
        TargetNetwork(INNER, heads_of_copy=('q',)).heads(SPEC)
    with pytest.raises(ValueError, match='heads_of_copy is empty'):
        TargetNetwork(INNER, heads_of_copy=())


# --- Meta-gradients ---------------------------------------------------------------------------------------------------


def gradient_of(lifetime, estimator):
    return jax.jit(lambda meta_params: lifetime.estimate(meta_params, estimator).gradient)(lifetime.meta_params)


@functools.cache
def lifetime_of(name, num_inner_steps):
    """Recorded after some updates: before them there is nothing to remember."""
    objective, paths = {'whole': (WHOLE, tuple(PATHS.values())), 'stopped': (STOPPED, STOPPED_PATHS)}[name]
    with jax.enable_x64(False):
        learner = learner_of(objective, paths, meta_optimiser=meta_gradient(num_inner_steps=num_inner_steps))
        learner.advance(3)
    return recorded_lifetime(learner, jnp.float64)


@pytest.mark.parametrize('num_inner_steps', [pytest.param(1, marks=pytest.mark.slow), 3])
def test_meta_gradients_are_those_of_finite_differences(x64, num_inner_steps):
    lifetime = lifetime_of('whole', num_inner_steps)
    compared = lifetime.compare_with_finite_differences()
    for path, found in compared.items():
        assert found.finite_difference != 0, path
        assert found.relative_error < 1e-5, (path, found)
    for estimator in (Mixed(rematerialise=True), Reverse(), Reverse(rematerialise=True), Forward()):
        gradient = gradient_of(lifetime, estimator)
        for path, found in compared.items():
            np.testing.assert_allclose(gradient[path], found.autodiff, rtol=1e-8)


def test_through_one_update_the_truncated_estimate_is_the_whole(x64):
    lifetime = lifetime_of('whole', 1)
    whole, truncated = (gradient_of(lifetime, estimator) for estimator in (Mixed(), Truncated()))
    for path in PATHS.values():
        np.testing.assert_allclose(truncated[path], whole[path], rtol=1e-9)


def test_what_is_stopped_stops_in_every_estimator(x64):
    """Against three updates written out, with advantages and the copy held constant where the fields say so."""
    lifetime = lifetime_of('stopped', 3)
    loop, rule, agent = lifetime.inner_loop, lifetime.inner_loop.update.update_rule, lifetime.agent
    outer, network = lifetime.meta_optimiser.outer_loss.objective, loop.network

    def outer_loss(meta_params):
        decay, discount = (jax.nn.sigmoid(meta_params[path]) for path in STOPPED_PATHS)
        (params, opt_state, state), now = agent.learning, agent
        copy, (mean, variance, weight) = state.target_params, state.objective.moments
        for _ in range(3):
            trajectory = now.trajectory
            copy = jax.lax.stop_gradient(jax.tree.map(lambda x, y: 0.7 * x + 0.3 * y, copy, params))
            outputs = network.outputs(params, trajectory)
            values = network.outputs(copy, trajectory)['value']
            returns = dataclasses.replace(INNER.returns, discount=discount)
            target, advantage = returns(values, jnp.zeros_like(trajectory.reward), trajectory)
            fixed = jax.lax.stop_gradient(advantage)
            total = decay * weight + 1 - decay
            squares = decay * weight * (variance + mean**2) + (1 - decay) * jnp.mean(fixed**2)
            mean, weight = (decay * weight * mean + (1 - decay) * fixed.mean()) / total, total
            variance = squares / total - mean**2
            targets = ReturnEstimate(target, (advantage - mean) / jnp.sqrt(variance + 1e-8))

            def loss(params, targets=targets, trajectory=trajectory):
                return INNER.loss(network.predictions(params, trajectory)[0], targets, trajectory)[0].mean()

            params, opt_state = rule.optimiser.step(jax.grad(loss)(params), opt_state, params)
            now = now._replace(num_updates=now.num_updates + 1)
            now, _ = loop.source.next(now, loop.unroll_length)
        outputs = network.outputs(params, now.trajectory)
        fixed, _ = outer.targets(Unroll(jax.lax.stop_gradient(outputs), now.trajectory, None, None), ())
        return outer.loss(without_last(outputs), fixed, now.trajectory)[0].mean()

    expected = jax.jit(jax.grad(outer_loss))(lifetime.meta_params)
    for estimator in (Mixed(), Reverse(), Forward()):
        actual = gradient_of(lifetime, estimator)
        for path in STOPPED_PATHS:
            np.testing.assert_allclose(actual[path], expected[path], rtol=1e-7)


@pytest.mark.parametrize('kwargs', [{}, {'step_weights': Uniform()}])
def test_the_outer_objective_remembers_as_well(kwargs):
    outer = TargetNetwork(INNER, 0.5)
    optimiser = meta_gradient(objective=outer, num_inner_steps=2, **kwargs)
    learner = learner_of(INNER, ['objective.returns.discount'], meta_optimiser=optimiser)
    agent, meta_params = first(learner.state.agents), jax.tree.map(lambda x: x[0], learner.state.meta_params)
    copy, advance = agent.params, jax.jit(learner.inner_loop.advance)
    for k in range(2):
        agent, _ = advance(meta_params, agent)
        if kwargs or k == 1:
            copy = jax.tree.map(lambda x, y: (x + y) / 2, copy, agent.params)
    learner.advance(1)
    state = first(learner.state.meta_opt_state.lifetime_state)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), state.target_params, copy)


def test_the_objective_of_a_bootstrapped_target_remembers_as_well():
    outer = MovingAverage(INNER, 0.5)
    optimiser = MetaGradient(BootstrappedTarget(outer, Optimiser(optax.identity(), 0.1)), optax.sgd(0.1))
    learner = learner_of(INNER, ['objective.returns.discount'], meta_optimiser=optimiser)
    learner.advance(2)
    state = first(learner.state.meta_opt_state.lifetime_state)
    assert state.objective_state.moments.weight == 0.75
    assert state.objective_state.moments.variance > 0


def test_a_regulariser_sees_targets_as_the_update_rule_does():
    learner = learner_of(WHOLE, [PATHS['discount']])
    learner.advance(2)
    agent, network = first(learner.state.agents), learner.network
    unroll = Unroll(network.outputs(agent.params, agent.trajectory), agent.trajectory, agent.params, network)
    state = agent.learning.objective_state
    whole, _ = WHOLE.targets(unroll, state)
    of_wrapper = targets_at(rule_of(WHOLE), 'objective.terms.ac.objective', unroll, state)
    np.testing.assert_array_equal(of_wrapper.advantage, whole['ac'].advantage)
    inner = targets_at(rule_of(WHOLE), 'objective.terms.ac.objective.objective', unroll, state)
    np.testing.assert_array_equal(inner.target, whole['ac'].target)
    assert np.abs(inner.advantage - whole['ac'].advantage).max() > 1e-3
    penalty = Consistency(objective='objective.terms.ac')(rule_of(WHOLE), unroll, state)
    assert penalty.shape == agent.trajectory.reward.shape


# --- Lifetimes, and what is wrong -------------------------------------------------------------------------------------


def test_a_new_lifetime_remembers_nothing():
    learner = learner_of(WHOLE, meta_optimiser=Fixed(), num_lifetimes=2, lifetime_length=3)
    learner.advance(3)  # The first has just ended, the second has a different age.
    agents = jax.tree.map(lambda x: x[0], learner.state.agents)
    moments = agents.learning.objective_state['ac'].objective.moments
    ages = np.asarray(agents.num_updates)
    assert sorted(ages)[0] == 0 < sorted(ages)[1]
    np.testing.assert_allclose(moments.weight, np.where(ages == 0, 0, 1 - 0.6**ages), rtol=1e-6)
    copy = agents.learning.objective_state['ac'].target_params
    new = int(np.argmin(ages))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[new], y[new]), copy, agents.params)


@component
class Growing(ValueRegression):
    """Remembers one number more after every update."""

    def init(self, params):
        return jnp.zeros(1)

    def targets(self, unroll, state):
        targets, _ = super().targets(unroll, ())
        return targets, jnp.concatenate([state, jnp.zeros(1)])


def test_a_state_that_changes_its_shape_is_one_line():
    objective = Sum({'ac': INNER, 'growing': Growing(LambdaReturn())})
    with pytest.raises(
        CompositionError, match=r'changes with an update, from .*float32\[1\].* to .*float32\[2\]'
    ) as error:
        learner_of(objective, meta_optimiser=Fixed())
    assert '\n' not in str(error.value)


def test_an_objective_that_cannot_be_used_is_refused_when_the_agent_is_composed():
    objective = Sum({'ac': INNER, 'v': MovingAverage(ValueRegression(LambdaReturn()))})
    with pytest.raises(CompositionError, match='ValueRegression, whose targets have no advantages'):
        learner_of(objective, meta_optimiser=Fixed())
