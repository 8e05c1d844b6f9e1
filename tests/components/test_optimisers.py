"""Inner optimisers against optax's own, and which of them can be differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from components import optimisers
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.optimisers import Optimiser, chain, check_complete, check_descends, check_differentiable
from components.types import CompositionError
from tests.helpers.agents_for_tests import make_agent, meta_gradient, update_rule

LEARNING_RATE = 0.03
WEIGHTS = {
    'network/linear': {'w': jnp.ones((4, 5)), 'b': jnp.ones(5)},
    'network/logits_head': {'w': jnp.ones((5, 3)), 'b': jnp.ones(3)},
}


def is_matrix(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def part(params):
    return {
        module: jax.tree.map(lambda _, m=module: 'head' if 'head' in m else 'torso', p) for module, p in params.items()
    }


def without_biases(params):
    return {module: {name: name != 'b' for name in p} for module, p in params.items()}


@pytest.mark.parametrize(
    ('transform', 'reference'),
    [
        (optax.identity(), optax.sgd(LEARNING_RATE)),
        (optax.trace(0.9), optax.sgd(LEARNING_RATE, momentum=0.9)),
        (optax.scale_by_rms(), optax.rmsprop(LEARNING_RATE)),
        (optax.scale_by_rms(decay=0.99, eps=1e-3), optax.rmsprop(LEARNING_RATE, decay=0.99, eps=1e-3)),
        (optax.scale_by_adam(), optax.adam(LEARNING_RATE)),
        (optax.scale_by_adam(b1=0.0, eps_root=1e-8), optax.adam(LEARNING_RATE, b1=0.0, eps_root=1e-8)),
        (
            chain([optax.add_decayed_weights(0.1)]),
            optax.chain(optax.add_decayed_weights(0.1), optax.sgd(LEARNING_RATE)),
        ),
        (
            chain([optax.clip_by_global_norm(0.5), optax.scale_by_rms()]),
            optax.chain(optax.clip_by_global_norm(0.5), optax.rmsprop(LEARNING_RATE)),
        ),
    ],
    ids=['sgd', 'momentum', 'rmsprop', 'rmsprop_options', 'adam', 'adam_options', 'weight_decay', 'clip_rmsprop'],
)
def test_steps_equal_optax_exactly(transform, reference):
    random = np.random.default_rng(0)
    params = {'w': jnp.asarray(random.normal(size=(4, 3)), jnp.float32), 'b': jnp.zeros(3)}
    optimiser = Optimiser(transform, LEARNING_RATE)
    state = optimiser.init(params)
    expected, expected_state = params, reference.init(params)
    for _ in range(5):
        gradient = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params)
        before = params
        params, state = optimiser.step(gradient, state, params)
        updates, expected_state = reference.update(gradient, expected_state, expected)
        expected = optax.apply_updates(expected, updates)
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        assert all(np.abs(a - b).max() > 0 for a, b in zip(*map(jax.tree.leaves, (params, before)), strict=True))


def test_sgd_by_hand():
    optimiser = Optimiser(optax.identity(), 0.5)
    params = jnp.array([1.0, 2.0])
    moved, _ = optimiser.step(jnp.array([2.0, -4.0]), optimiser.init(params), params)
    np.testing.assert_array_equal(moved, [0.0, 4.0])


def test_chain_applies_in_order():
    # Clipping before the doubling gives norm 2, after it norm 1.
    gradient = jnp.array([3.0, 4.0])
    params = jnp.zeros(2)
    clip, double = optax.clip_by_global_norm(1.0), optax.scale(2.0)
    for transforms, norm in (((clip, double), 2.0), ((double, clip), 1.0)):
        optimiser = Optimiser(chain(transforms), 1.0)
        moved, _ = optimiser.step(gradient, optimiser.init(params), params)
        np.testing.assert_allclose(moved, [-0.6 * norm, -0.8 * norm], rtol=1e-6)


@pytest.mark.parametrize('learning_rate', [0.0, -0.25])
def test_learning_rate_must_be_positive(learning_rate):
    with pytest.raises(ValueError, match=rf'Optimiser\.learning_rate must be in \(0, 1,000\], got {learning_rate}'):
        Optimiser(optax.identity(), learning_rate)
    with pytest.raises(ValueError, match='learning_rate'):
        dataclasses.replace(Optimiser(optax.identity(), 0.1), learning_rate=learning_rate)


@pytest.mark.parametrize(
    'transform',
    [
        optax.identity(),
        optax.trace(0.9),
        optax.trace(0.9, nesterov=True),
        optax.scale_by_rms(),
        optax.scale_by_adam(eps_root=1e-8),
        chain([optax.clip(1.0), optax.scale_by_rms()]),
        optimisers.clip_by_global_norm(0.5),
        chain([optimisers.clip_by_global_norm(0.5), optax.scale_by_adam(eps=1e-5, eps_root=1e-8)]),
        optimisers.clip_by_block_rms(0.5),
        optax.add_decayed_weights(1e-4, mask=without_biases),
        optax.partition({'head': optax.scale(1.0), 'torso': optax.scale(0.1)}, part),
        optax.masked(optax.scale_by_adam(eps_root=1e-8), is_matrix),
    ],
    ids=[
        'sgd',
        'momentum',
        'nesterov',
        'rms',
        'adam',
        'clip_by_value_rms',
        'clip_by_norm',
        'clip_by_norm_adam',
        'clip_by_rms',
        'decay_by_name',
        'partition_by_name',
        'masked_adam',
    ],
)
def test_differentiable_transformations_are_accepted(transform):
    check_differentiable(Optimiser(transform, 0.1), WEIGHTS)


@pytest.mark.parametrize(
    ('transform', 'remedy'),
    [
        (optax.scale_by_adam(eps_root=0.0), 'eps_root > 0'),
        (optax.scale_by_rms(eps_in_sqrt=False), 'eps_in_sqrt = True'),
        (optax.masked(optax.scale_by_adam(), is_matrix), 'eps_root > 0'),
        (optax.partition({'head': optax.scale_by_adam(), 'torso': optax.identity()}, part), 'eps_root > 0'),
        (optax.inject_hyperparams(optax.scale_by_adam)(b1=0.9), 'eps_root > 0'),
        (chain([optax.clip_by_global_norm(1.0), optax.scale_by_adam()]), 'eps_root > 0'),
        (chain([optax.clip_by_global_norm(1.0), optax.identity()]), 'optimisers.clip_by_global_norm'),
        (chain([optax.clip_by_global_norm(1.0), optax.scale_by_rms()]), 'optimisers.clip_by_global_norm'),
        (optax.clip_by_block_rms(1.0), 'optimisers.clip_by_block_rms'),
        (optax.adaptive_grad_clip(0.1), 'optimisers.clip_by_global_norm'),
        (optax.normalize_by_update_norm(), 'optimisers.clip_by_global_norm'),
        (optax.scale_by_trust_ratio(), 'optimisers.clip_by_global_norm'),
    ],
)
def test_transformations_without_a_derivative_at_zero_are_refused_with_the_remedy(transform, remedy):
    with pytest.raises(ValueError, match=f'Optimiser.transform cannot be differentiated .*{remedy}'):
        check_differentiable(Optimiser(transform, 0.1), WEIGHTS)


DIRECTIONS = {
    'sgd': optax.identity(),
    'momentum': optax.trace(0.9, nesterov=True),
    'rms': optax.scale_by_rms(),
    'adam': optax.scale_by_adam(),
    'sign': optax.scale_by_sign(),
    'clip': optax.clip_by_global_norm(1e-3),
    'decay': optax.add_decayed_weights(10.0),
    'decay_by_name': optax.add_decayed_weights(10.0, mask=without_biases),
    'masked': optax.masked(optax.scale_by_adam(), is_matrix),
    'partition': optax.partition({'head': optax.scale(0.1), 'torso': optax.set_to_zero()}, part),
    'warm_up': optax.scale_by_schedule(optax.linear_schedule(0.0, 1.0, 10)),
}
COMPLETE = {
    'sgd': optax.sgd(0.1),
    'momentum': optax.sgd(0.1, momentum=0.9),
    'rms': optax.rmsprop(0.1),
    'adam': optax.adam(1e-3),
    'adamw': optax.adamw(1e-3),
    'lion': optax.lion(1e-3),
    'clip': optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-3)),
    'warm_up': optax.adam(optax.linear_schedule(0.0, 1.0, 10)),
    'scale': chain([optax.scale_by_adam(), optax.scale(-0.1)]),
    'learning_rate': chain([optax.scale_by_adam(), optax.scale_by_learning_rate(0.1)]),
}


@pytest.mark.parametrize('name', DIRECTIONS)
def test_a_direction_is_told_from_a_complete_optimiser(name):
    check_descends(Optimiser(DIRECTIONS[name], 0.1), WEIGHTS)
    with pytest.raises(ValueError, match=r'MetaGradient.optimiser steps up the gradient of .*complete optimiser'):
        check_complete(DIRECTIONS[name], WEIGHTS, 'MetaGradient.optimiser')


@pytest.mark.parametrize('name', COMPLETE)
def test_a_complete_optimiser_is_told_from_a_direction(name):
    check_complete(COMPLETE[name], WEIGHTS, 'MetaGradient.optimiser')
    with pytest.raises(ValueError, match=r'Optimiser.transform steps up the gradient of .*optax.scale_by_adam\(\)'):
        check_descends(Optimiser(COMPLETE[name], 0.1), WEIGHTS)


def test_weights_whose_gradient_is_stepped_up_are_named():
    transform = optax.partition({'head': optax.adam(1e-3), 'torso': optax.scale_by_adam()}, part)
    with pytest.raises(ValueError, match=r'gradient of network/logits_head/b, network/logits_head/w: '):
        check_descends(Optimiser(transform, 0.1), WEIGHTS)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'update_rule': 'adam'}, r'Optimiser.transform steps up the gradient of network/logits_head/b'),
        (
            {'meta_optimiser': 'scale_by_adam'},
            r'MetaGradient.optimiser steps up the gradient of objective.returns.discount',
        ),
        ({'update_rule': 'mask'}, r"Optimiser.transform cannot be used on these weights: KeyError: 'nothing'"),
    ],
)
def test_agents_refuse_optimisers_that_climb_or_do_not_fit(parts, message):
    made = {
        'adam': lambda: dataclasses.replace(update_rule(), optimiser=Optimiser(optax.adam(1e-3), 1.0)),
        'scale_by_adam': lambda: meta_gradient(optimiser=optax.scale_by_adam()),
        'mask': lambda: dataclasses.replace(
            update_rule(), optimiser=Optimiser(optax.masked(optax.identity(), lambda params: params['nothing']), 1.0)
        ),
    }
    with pytest.raises(CompositionError, match=message):
        make_agent(**{name: made[kind]() for name, kind in parts.items()})


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (optimisers.clip_by_global_norm, optax.clip_by_global_norm),
        (optimisers.clip_by_block_rms, optax.clip_by_block_rms),
    ],
)
@pytest.mark.parametrize('bound', [0.5, 100.0])
def test_clipping_equals_optax_exactly_and_leaves_zeros_alone(ours, theirs, bound):
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), WEIGHTS)
    found, expected = (clip(bound).update(gradient, optax.EmptyState())[0] for clip in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    jax.tree.map(np.testing.assert_array_equal, ours(bound).update(zeros, optax.EmptyState())[0], zeros)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('clip', [optimisers.clip_by_global_norm(0.5), optimisers.clip_by_block_rms(0.5)])
@pytest.mark.parametrize('gradient', [jnp.array([3.0, -4.0, 0.0]), jnp.array([0.1, 0.0, -0.2]), jnp.zeros(3)])
def test_derivatives_of_clipping_are_right_and_finite_to_second_order(clip, gradient):
    def clipped(x):
        return clip.update(x, optax.EmptyState())[0] @ jnp.array([1.0, 2.0, 3.0])

    step = 1e-6
    expected = [(clipped(gradient + step * e) - clipped(gradient - step * e)) / (2 * step) for e in jnp.eye(3)]
    np.testing.assert_allclose(jax.grad(clipped)(gradient), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(clipped)(gradient), expected, rtol=1e-6)
    assert np.isfinite(jax.hessian(clipped)(gradient)).all()


def test_failure_at_the_second_step_is_found():
    # Divides by the root of the square that the step before saw, so that the first step is harmless.
    def update(gradient, square, params=None):
        del params
        return gradient / jnp.sqrt(square), gradient**2

    transform = optax.GradientTransformation(jnp.ones_like, update)
    with pytest.raises(ValueError, match='cannot be differentiated'):
        check_differentiable(Optimiser(transform, 0.1), jnp.ones(2))


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
    'transform',
    [optax.identity(), optax.trace(0.9), optax.scale_by_rms(), optax.scale_by_adam(eps_root=1e-8)],
    ids=['sgd', 'momentum', 'rms', 'adam'],
)
def test_derivative_with_respect_to_the_learning_rate(transform):
    curvature, start = jnp.array([1.0, 3.0, 0.5]), jnp.array([1.0, -2.0, 0.3])
    optimiser = Optimiser(transform, 0.1)
    entries = MetaParameterSet({'learning_rate': Scalar()})

    @jax.jit
    def loss_after_steps(learning_rate):
        bound = entries.bind(optimiser, {'learning_rate': learning_rate})
        params, state = start, bound.init(start)
        for _ in range(4):
            params, state = bound.step(curvature * params + jnp.cos(params), state, params)
        return (curvature * params**2).sum()

    step = 1e-6
    expected = (loss_after_steps(0.1 + step) - loss_after_steps(0.1 - step)) / (2 * step)
    assert abs(expected) > 1e-2
    np.testing.assert_allclose(jax.grad(loss_after_steps)(0.1), expected, rtol=1e-6)


@pytest.mark.usefixtures('x64')
def test_derivative_with_respect_to_gradient_state_and_params():
    optimiser = Optimiser(optax.scale_by_rms(), 0.1)
    params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, -0.7])
    _, state = optimiser.step(gradient, optimiser.init(params), params)

    @jax.jit
    def moved(gradient, second_moment, params):
        full_state = jax.tree.unflatten(jax.tree.structure(state), [second_moment])
        return (optimiser.step(gradient, full_state, params)[0] ** 2).sum()

    (second_moment,) = jax.tree.leaves(state)
    arguments = [gradient, second_moment, params]
    step, direction = 1e-6, jnp.array([0.6, 0.8])
    for i, derivative in enumerate(jax.grad(moved, argnums=(0, 1, 2))(*arguments)):
        ahead, behind = ([a + s * (i == j) * direction for j, a in enumerate(arguments)] for s in (step, -step))
        expected = (moved(*ahead) - moved(*behind)) / (2 * step)
        assert abs(expected) > 1e-2
        np.testing.assert_allclose((derivative * direction).sum(), expected, rtol=1e-6)
