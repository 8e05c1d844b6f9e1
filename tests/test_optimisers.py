"""Inner optimisers against optax's own, and which of them can be differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from components.meta_parameters import MetaParameterSet, Scalar
from components.optimisers import Optimiser, chain, check_differentiable

LEARNING_RATE = 0.03


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
    with pytest.raises(ValueError, match=f'Optimiser\\.learning_rate must be positive, got {learning_rate}'):
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
    ],
    ids=['sgd', 'momentum', 'nesterov', 'rms', 'adam', 'clip_by_value_rms'],
)
def test_differentiable_transformations_are_accepted(transform):
    check_differentiable(Optimiser(transform, 0.1))


@pytest.mark.parametrize(
    'transform',
    [
        optax.scale_by_adam(eps_root=0.0),
        chain([optax.clip_by_global_norm(1.0), optax.identity()]),
        chain([optax.clip_by_global_norm(1.0), optax.scale_by_rms()]),
        optax.scale_by_rms(eps_in_sqrt=False),
    ],
    ids=['adam', 'clip_by_norm_sgd', 'clip_by_norm_rms', 'rms_eps_outside'],
)
def test_transformations_without_a_derivative_at_zero_are_refused(transform):
    with pytest.raises(ValueError, match=r'Optimiser\.transform cannot be differentiated where a gradient is zero'):
        check_differentiable(Optimiser(transform, 0.1))


def test_failure_at_the_second_step_is_found():
    # Divides by the root of the square that the step before saw, so that the first step is harmless.
    def update(gradient, square, params=None):
        del params
        return gradient / jnp.sqrt(square), gradient**2

    transform = optax.GradientTransformation(jnp.ones_like, update)
    with pytest.raises(ValueError, match='cannot be differentiated'):
        check_differentiable(Optimiser(transform, 0.1))


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
