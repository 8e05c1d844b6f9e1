"""Bijectors: round trips, derivatives, and that nothing reaches a bound or freezes there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.meta_parameters.bijectors import Exp, Identity, Sigmoid, Softplus

BIJECTORS = {
    'identity': Identity(),
    'exp': Exp(),
    'softplus': Softplus(),
    'sigmoid': Sigmoid(),
    'sigmoid_narrow': Sigmoid(0.9, 1.0),
    'sigmoid_symmetric': Sigmoid(-1.0, 1.0),
    'sigmoid_negative': Sigmoid(-2.0, 0.0),
    'sigmoid_wide': Sigmoid(0.0, 100.0),
}
SIGMOIDS = [name for name in BIJECTORS if name.startswith('sigmoid')]
EXTREMES = np.array([-80, -40, -17, 17, 40, 80], np.float32)


def bounds(bijector):
    low = -np.inf if bijector.low is None else bijector.low
    high = np.inf if bijector.high is None else bijector.high
    return np.float32(low), np.float32(high)


@pytest.mark.parametrize(
    ('name', 'function'),
    [
        ('identity', lambda x: x),
        ('exp', np.exp),
        ('softplus', lambda x: np.log1p(np.exp(x))),
        ('sigmoid', lambda x: 1 / (1 + np.exp(-x))),
        ('sigmoid_narrow', lambda x: 0.9 + 0.1 / (1 + np.exp(-x))),
        ('sigmoid_symmetric', lambda x: np.tanh(x / 2)),
        ('sigmoid_negative', lambda x: -2 / (1 + np.exp(x))),
        ('sigmoid_wide', lambda x: 100 / (1 + np.exp(-x))),
    ],
)
def test_forward_equals_its_formula(name, function):
    x = np.linspace(-6, 6, 25)
    actual = BIJECTORS[name].forward(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(actual, function(x), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('name', BIJECTORS)
def test_round_trip_from_the_unconstrained_side(name):
    x = jnp.linspace(-12.0, 12.0, 49)
    np.testing.assert_allclose(BIJECTORS[name].inverse(BIJECTORS[name].forward(x)), x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize('name', BIJECTORS)
def test_round_trip_from_the_constrained_side(name):
    low, high = bounds(BIJECTORS[name])
    if np.isfinite(high):
        y = low + (high - low) * np.array([1e-3, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999], np.float32)
    elif np.isfinite(low):
        y = np.array([1e-4, 1e-2, 0.5, 1.0, 3.0, 20.0], np.float32)
    else:
        y = np.array([-20.0, -1e-3, 0.0, 0.5, 20.0], np.float32)
    x = BIJECTORS[name].inverse(jnp.asarray(y))
    assert np.isfinite(x).all()
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(BIJECTORS[name].forward(x), y, rtol=2e-5, atol=1e-6)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('name', BIJECTORS)
def test_derivative_by_finite_differences(name):
    forward = BIJECTORS[name].forward
    x, step = jnp.linspace(-9.0, 9.0, 37), 1e-5
    expected = (forward(x + step) - forward(x - step)) / (2 * step)
    assert (np.asarray(expected) > 0).all()
    np.testing.assert_allclose(jax.vmap(jax.grad(forward))(x), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('name', BIJECTORS)
def test_extremes_stay_strictly_inside(name):
    bijector = BIJECTORS[name]
    low, high = bounds(bijector)
    for forward in (bijector.forward, jax.jit(bijector.forward)):
        y = np.asarray(forward(jnp.asarray(EXTREMES)))
        assert y.dtype == np.float32
        assert np.isfinite(y).all()
        assert (low < y).all()
        assert (y < high).all()
        assert (np.diff(y) >= 0).all()
        # Compiled programs take anything smaller for zero, which is a bound of many.
        assert (np.abs(y) >= np.finfo(np.float32).tiny).all()


@pytest.mark.parametrize('name', BIJECTORS)
def test_derivatives_at_extremes_are_finite_and_do_not_vanish(name):
    # Out to 80 each way the true derivative is a normal float32 number: e^-80 is about 2e-35.
    derivative = jax.vmap(jax.grad(BIJECTORS[name].forward))
    for compiled in (derivative, jax.jit(derivative)):
        d = np.asarray(compiled(jnp.asarray(EXTREMES)))
        assert np.isfinite(d).all()
        assert (d > 0).all()


@pytest.mark.parametrize('name', SIGMOIDS)
def test_sigmoid_derivative_far_out(name):
    # The derivative is (high - low) e^-|x| to within e^-|x| there.
    bijector = BIJECTORS[name]
    derivative = jax.vmap(jax.grad(bijector.forward))(jnp.asarray(EXTREMES))
    expected = (bijector.high - bijector.low) * np.exp(-np.abs(EXTREMES.astype(np.float64)))
    np.testing.assert_allclose(derivative, expected, rtol=1e-4)


@pytest.mark.parametrize('name', BIJECTORS)
def test_compiled_and_eager_agree(name):
    bijector = BIJECTORS[name]
    x = jnp.concatenate([jnp.linspace(-10, 10, 41), jnp.asarray(EXTREMES)])
    for function in (bijector.forward, jax.vmap(jax.grad(bijector.forward))):
        np.testing.assert_allclose(jax.jit(function)(x), function(x), rtol=2e-6)
    y = bijector.forward(jnp.linspace(-5, 5, 21))
    np.testing.assert_allclose(jax.jit(bijector.inverse)(y), bijector.inverse(y), rtol=1e-5, atol=1e-5)


def test_narrow_sigmoid_stays_between_its_bounds():
    sigmoid = Sigmoid(0.9, 1.0)
    y = np.asarray(sigmoid.forward(jnp.linspace(-200.0, 200.0, 401)))
    assert y.min() > np.float32(0.9)
    assert y.max() < 1
    np.testing.assert_allclose(sigmoid.forward(jnp.zeros(())), 0.95, rtol=1e-6)
    np.testing.assert_allclose(sigmoid.inverse(jnp.asarray(0.95)), 0.0, atol=1e-5)


def test_sigmoid_defaults_to_the_unit_interval():
    assert (Sigmoid().low, Sigmoid().high) == (0.0, 1.0)
    assert Sigmoid().forward(jnp.zeros(())) == 0.5


@pytest.mark.parametrize(('low', 'high'), [(1.0, 1.0), (1.0, 0.9), (0.0, -1.0)])
def test_sigmoid_bounds_must_be_in_order(low, high):
    with pytest.raises(ValueError, match=f'low < high, got low={low}, high={high}'):
        Sigmoid(low, high)


@pytest.mark.usefixtures('x64')
def test_precision_follows_the_argument():
    for bijector in BIJECTORS.values():
        for dtype in (jnp.float32, jnp.float64):
            x = jnp.asarray([-50.0, 0.5, 50.0], dtype)
            y = bijector.forward(x)
            assert y.dtype == dtype
            assert bijector.inverse(y).dtype == dtype
