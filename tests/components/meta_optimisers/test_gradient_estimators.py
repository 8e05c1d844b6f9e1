import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import recorded_lifetime
from agents.learner import Learner
from components.inner_loop import ActingSource
from components.meta_optimisers.gradient_estimators.evolution_strategies import EvolutionStrategies
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed, MixedModeUpdate
from components.meta_optimisers.gradient_estimators.truncated import Truncated
from components.meta_optimisers.step_weights import Uniform
from components.meta_parameters.bijectors import Exp, Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.networks.cores import GRU
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient, update_rule
from tests.helpers.environments_for_tests import Probe, host_probes
from tests.helpers.trajectories_for_tests import targets_of, without_last

THREE = MetaParameterSet(
    {
        DISCOUNT: Scalar(Sigmoid()),
        'objective.entropy_cost': Scalar(Exp()),
        'optimiser.learning_rate': Scalar(Exp()),
    }
)


def lifetime_of(dtype=jnp.float32, **kwargs):
    parts = {'meta_parameters': THREE, 'meta_optimiser': meta_gradient(num_inner_steps=3, step_weights=Uniform())}
    with jax.enable_x64(False):
        learner = Learner(make_agent(**{**parts, **kwargs}))
    return recorded_lifetime(learner, dtype)


def estimate_of(lifetime, gradient_estimator):
    return jax.jit(lambda meta_params: lifetime.estimate(meta_params, gradient_estimator))(lifetime.meta_params)


def gradient_of(lifetime, gradient_estimator):
    estimate = estimate_of(lifetime, gradient_estimator)
    return np.array([estimate.gradient[path] for path in sorted(estimate.gradient)])


@pytest.mark.parametrize('core', [None, GRU(6)])
@pytest.mark.parametrize('stop_bootstrap_values', [False, True])
def test_the_inner_gradient_in_mixed_mode_has_the_same_derivatives_as_in_reverse_mode(x64, stop_bootstrap_values, core):
    """With respect to weights and meta-parameters, for any cotangent; a recurrent network has one unroll, others two."""
    lifetime = lifetime_of(
        jnp.float64,
        network=Network(MLP((8,)), core),
        update_rule=update_rule(stop_bootstrap_values=stop_bootstrap_values),
    )
    plain, agent = lifetime.inner_loop.update, lifetime.agent
    mixed = MixedModeUpdate.of(plain)
    cotangent = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), agent.params)

    def pulled_back(update):
        @jax.jit
        def run(meta_params, params):
            def gradient(meta_params, params):
                return update.gradient(update.field_values(meta_params, 0), params, (), agent.trajectory)[0]

            direction, pullback = jax.vjp(gradient, meta_params, params)
            return direction, pullback(cotangent)

        return run(lifetime.meta_params, agent.params)

    for ours, expected in zip(*map(jax.tree.leaves, map(pulled_back, (mixed, plain))), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-14)


def test_exact_modes_agree_with_and_without_rematerialisation(x64):
    lifetime = lifetime_of(jnp.float64, network=Network(MLP((8,)), GRU(6)))
    expected = gradient_of(lifetime, Reverse())
    assert np.all(expected != 0)
    for mode in (Mixed(), Mixed(rematerialise=True), Mixed(num_segments=3), Forward()):
        np.testing.assert_allclose(gradient_of(lifetime, mode), expected, rtol=1e-10)
    in_groups = make_agent(network=Network(MLP((8,)), GRU(6), num_groups=5)).network_functions()
    loop = lifetime.inner_loop
    update = dataclasses.replace(loop.update, network=in_groups)
    lifetime = lifetime._replace(inner_loop=dataclasses.replace(loop, network=in_groups, update=update))
    np.testing.assert_allclose(gradient_of(lifetime, Mixed(rematerialise=True)), expected, rtol=1e-10)


def test_segments_and_lifetimes_one_after_the_other_change_no_number(x64):
    def trained(**kwargs):
        at_once = kwargs.pop('lifetimes_at_once', None)
        meta_optimiser = meta_gradient(num_inner_steps=4, step_weights=Uniform())
        meta_optimiser = dataclasses.replace(
            meta_optimiser, gradient_estimator=Mixed(**kwargs), lifetimes_at_once=at_once
        )
        learner = Learner(make_agent(meta_parameters=THREE, meta_optimiser=meta_optimiser, num_lifetimes=2))
        learner.advance(2)
        return jax.device_get((learner.state.meta_params, learner.state.agents.params, learner.state.agents.trajectory))

    expected = trained()
    found = trained(num_segments=2, rematerialise=True, lifetimes_at_once=1)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.slow
def test_a_number_of_segments_keeps_the_memory_of_as_many_updates():
    """Through 16 updates, four segments keep what starts them, and the updates of one."""

    def mebibytes(**kwargs):
        meta_optimiser = dataclasses.replace(meta_gradient(num_inner_steps=16), gradient_estimator=Reverse(**kwargs))
        learner = Learner(make_agent(meta_optimiser=meta_optimiser))
        compiled = jax.jit(learner.meta_step).lower(jax.tree.map(lambda x: x[0], learner.state)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert mebibytes(num_segments=4) < 0.6 * mebibytes()


def test_segments_that_cannot_be_had_are_refused():
    def composed(num_lifetimes=1, estimator=None, lifetimes_at_once=None, **kwargs):
        meta_optimiser = dataclasses.replace(
            meta_gradient(num_inner_steps=6),
            gradient_estimator=estimator or Mixed(),
            lifetimes_at_once=lifetimes_at_once,
        )
        return make_agent(meta_optimiser=meta_optimiser, num_lifetimes=num_lifetimes, **kwargs)

    with pytest.raises(ValueError, match=r'Mixed.num_segments \(4\) must divide the 6 inner steps, as 1, 2, 3, 6 do'):
        composed(estimator=Mixed(num_segments=4))
    with pytest.raises(ValueError, match=r'lifetimes_at_once \(2\) must divide the 3 lifetimes, as 1, 3 do'):
        composed(num_lifetimes=3, lifetimes_at_once=2)
    environment, _ = host_probes(Probe((3,), (0.0,)), 2)
    with pytest.raises(CompositionError, match=r'num_segments.*HostEnvironment'):
        composed(estimator=Reverse(num_segments=2), environment=environment)


def test_what_came_through_each_update_adds_up(x64):
    lifetime = lifetime_of(jnp.float64)
    estimate = estimate_of(lifetime, Mixed())
    for path, gradient in estimate.gradient.items():
        assert np.all(estimate.per_update[path] != 0)
        np.testing.assert_allclose(estimate.per_update[path].sum(), gradient, rtol=1e-10)


def test_truncation_leaves_what_came_through_the_last_update(x64):
    plain = lifetime_of(jnp.float64, meta_optimiser=meta_gradient(num_inner_steps=3))
    whole = estimate_of(plain, Mixed()).per_update
    truncated = gradient_of(plain, Truncated())
    np.testing.assert_allclose(truncated, [whole[path][-1] for path in sorted(whole)], rtol=1e-9)
    one = lifetime_of(jnp.float64, meta_optimiser=meta_gradient())
    np.testing.assert_allclose(gradient_of(one, Truncated()), gradient_of(one, Mixed()), rtol=1e-10)


def test_truncation_of_a_mixture_averages_one_step_meta_gradients(x64):
    """Each from where the agent stood: the derivative of loss_k through update k alone."""
    lifetime = lifetime_of(jnp.float64)
    loop, objective = lifetime.inner_loop, lifetime.meta_optimiser.outer_loss.objective
    agent, expected = lifetime.agent, 0.0

    @jax.jit
    def step(meta_params, agent):
        def loss(meta_params):
            moved, _ = loop.advance(meta_params, agent)
            outputs = loop.network.outputs(moved.params, moved.trajectory)
            targets = targets_of(objective, jax.lax.stop_gradient(outputs), moved.trajectory)
            return objective.loss(without_last(outputs), targets, moved.trajectory)[0].mean(), moved

        return jax.grad(loss, has_aux=True)(meta_params)

    for _ in range(3):
        gradient, agent = step(lifetime.meta_params, agent)
        expected += np.array([gradient[path] for path in sorted(gradient)]) / 3
    np.testing.assert_allclose(gradient_of(lifetime, Truncated()), expected, rtol=1e-8)


@pytest.mark.parametrize('mode', [Mixed(rematerialise=True), Reverse(rematerialise=True), Forward()])
def test_acting_is_never_repeated(mode):
    learner = Learner(make_agent(meta_optimiser=meta_gradient(num_inner_steps=3)))
    meta_params, agent = (jax.tree.map(lambda x: x[0], x) for x in (learner.state.meta_params, learner.state.agents))
    agent = jax.tree.map(lambda x: x[0], agent)
    acted = []

    class Watched(ActingSource):
        def next(self, agent, unroll_length):
            agent, episodes = super().next(agent, unroll_length)
            jax.debug.callback(lambda reward: acted.append(reward), agent.trajectory.reward)
            return agent, episodes

    loop, loss = learner.inner_loop, learner.agent.meta_optimiser.outer_loss
    source = Watched(loop.source.actor, loop.source.on_policy_actor, loop.source.behaviour)
    loop = dataclasses.replace(loop, source=source)
    jax.block_until_ready(jax.jit(lambda m: mode(loss, m, agent, loop, ()).gradient)(meta_params))
    jax.effects_barrier()
    assert len(acted) == 3


def test_evolution_strategies_estimate_the_same_meta_gradient():
    """Without bias where the loss is nearly linear, so the mean over many directions is the derivative."""
    lifetime = lifetime_of()
    exact = gradient_of(lifetime, Mixed())
    strategies = EvolutionStrategies(standard_deviation=0.01)

    @jax.jit
    def estimates(keys):
        def one(key):
            moved = lifetime._replace(agent=lifetime.agent._replace(key=key))
            gradient = moved.estimate(lifetime.meta_params, strategies).gradient
            return jnp.stack([gradient[path] for path in sorted(gradient)])

        return jax.lax.map(one, keys)

    drawn = np.asarray(estimates(jax.random.split(jax.random.key(1), 2_000)), float)
    standard_error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - exact) < 5 * standard_error)
    assert np.linalg.norm(exact) > 5 * np.linalg.norm(standard_error)


def test_evolution_strategies_take_an_optimiser_that_cannot_be_differentiated():
    rule = UpdateRule(ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.scale_by_adam(), 1e-3))
    with pytest.raises(CompositionError, match='eps_root'):
        make_agent(update_rule=rule, num_lifetimes=2)
    optimiser = meta_gradient(gradient_estimator=EvolutionStrategies(0.1))
    learner = Learner(make_agent(update_rule=rule, meta_optimiser=optimiser, num_lifetimes=2))
    learner.advance(5)
    (values,) = learner.get_variables(['meta_parameters'])
    assert 0 < abs(values[DISCOUNT] - 0.9) < 0.1


def test_one_lifetime_is_too_few_for_evolution_strategies():
    with pytest.raises(CompositionError, match='NUM_LIFETIMES'):
        make_agent(meta_optimiser=meta_gradient(gradient_estimator=EvolutionStrategies()))
    with pytest.raises(ValueError, match='standard_deviation must be positive, got 0'):
        EvolutionStrategies(0)


class Many:
    """A meta-parameter that is not one number."""

    def __init__(self, start):
        self.start = start

    def init(self, key, default):
        return self.start

    def value(self, meta_param):
        return jax.tree.leaves(meta_param)[0].mean()


@pytest.mark.parametrize(
    ('start', 'part'), [(jnp.zeros(65), '65 numbers; use Mixed'), ({'w': jnp.zeros(2)}, 'whole network; use Mixed')]
)
def test_forward_mode_refuses_what_would_take_too_many_passes(start, part):
    parameters = MetaParameterSet({DISCOUNT: Many(start)})
    optimiser = meta_gradient(gradient_estimator=Forward())
    with pytest.raises(CompositionError, match=part):
        make_agent(meta_parameters=parameters, meta_optimiser=optimiser)
    make_agent(meta_parameters=parameters, meta_optimiser=meta_gradient())
    make_agent(meta_parameters=MetaParameterSet({DISCOUNT: Many(jnp.zeros(64))}), meta_optimiser=optimiser)
