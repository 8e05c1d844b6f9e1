"""Torsos of images: the residual one, pooling, the scale of bytes, and the precision that is computed with."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs

from components.networks.convolutions import Convolution2D, max_pool
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import Convolutional, Residual
from components.types import FieldError

SMALL = Residual((3, 4), 1, (5,))
HEADS = {'logits': (3,), 'value': ()}
assert_close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5))


def pure(torso):
    return hk.without_apply_rng(hk.transform(lambda x: torso(x)))


def random_params(init, *args):
    """Parameters of the shapes that `init` makes, random throughout: biases too."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree.map(lambda s: jnp.asarray(random.normal(scale=0.3, size=s.shape), s.dtype), shapes)


def network_of(torso, shape, dtype=np.uint8, **kwargs):
    spec = specs.EnvironmentSpec(
        specs.Array(shape, dtype), specs.DiscreteArray(3), specs.Array((), np.float32), specs.Array((), np.float32)
    )
    return Network(torso, **kwargs).functions(spec, HEADS)


def shapes_of(torso, shape):
    return jax.tree.map(jnp.shape, jax.eval_shape(pure(torso).init, jax.random.key(0), jnp.zeros((1, *shape))))


def test_sizes_of_the_published_networks():
    def size(torso):
        return sum(int(np.prod(x)) for layer in shapes_of(torso, (84, 84, 4)).values() for x in layer.values())

    # Sections: 592 + 4 x 2,320; 4,640 + 4 x 9,248; 9,248 + 4 x 9,248. Then 11 x 11 x 32 features to 256 units.
    assert size(Residual()) == 97_744 + 256 * (11 * 11 * 32 + 1)
    # 8 x 8 x 4 to 16, 4 x 4 x 16 to 32, and 9 x 9 x 32 features to 256 units.
    assert size(Convolutional((16, 32), (8, 4), (4, 2), (256,), 'VALID')) == 4_112 + 8_224 + 256 * (9 * 9 * 32 + 1)


def test_residual_parameter_names():
    # Checkpoints hold these names: a change of theirs makes the old ones unreadable.
    assert shapes_of(SMALL, (7, 6, 2)) == {
        'section_0': {'w': (3, 3, 2, 3), 'b': (3,)},
        'section_0_block_0_0': {'w': (3, 3, 3, 3), 'b': (3,)},
        'section_0_block_0_1': {'w': (3, 3, 3, 3), 'b': (3,)},
        'section_1': {'w': (3, 3, 3, 4), 'b': (4,)},
        'section_1_block_0_0': {'w': (3, 3, 4, 4), 'b': (4,)},
        'section_1_block_0_1': {'w': (3, 3, 4, 4), 'b': (4,)},
        'linear_0': {'w': (2 * 2 * 4, 5), 'b': (5,)},
    }


@pytest.mark.parametrize('as_patches', [True, False])
def test_residual_equals_haiku_layer_by_layer(as_patches):
    torso = pure(Residual((3, 4), 1, (5,), as_patches=as_patches))
    x = jax.random.normal(jax.random.key(1), (2, 7, 6, 2))
    params = random_params(torso.init, x)

    def reference(x):
        for i, channels in enumerate((3, 4)):
            x = hk.Conv2D(channels, 3, name=f'section_{i}')(x)
            x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
            inside = hk.Conv2D(channels, 3, name=f'section_{i}_block_0_0')(jax.nn.relu(x))
            x = x + hk.Conv2D(channels, 3, name=f'section_{i}_block_0_1')(jax.nn.relu(inside))
        return jax.nn.relu(hk.Linear(5, name='linear_0')(jax.nn.relu(x).reshape(2, -1)))

    def value_and_gradient(network):
        return jax.jit(jax.value_and_grad(lambda params: jnp.sin(network.apply(params, x)).sum()))(params)

    assert_close(value_and_gradient(torso), value_and_gradient(pure(reference)))


@pytest.mark.parametrize('shape', [(7, 6), (8, 5), (1, 2)])
def test_max_pool_is_that_of_haiku(shape):
    x = jax.random.normal(jax.random.key(2), (2, *shape, 3))
    expected, pullback = jax.vjp(lambda x: hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME'), x)
    found, own_pullback = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(found, expected)
    cotangent = jax.random.normal(jax.random.key(3), expected.shape)
    assert_close(own_pullback(cotangent), pullback(cotangent))


def test_max_pool_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1) * jnp.array([1, -1])
    # Windows of rows and columns 0 to 2, or 2 and 3: of even lengths the padding is at the end.
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[10, 11], [14, 15]])
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 1], [[0, -2], [-8, -10]])


@pytest.mark.parametrize('torso', [SMALL, Convolutional((3,), (3,), (2,), (5,))], ids=['residual', 'convolutional'])
def test_bytes_are_scaled_inside(torso):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 7, 6, 2)).astype(np.uint8)
    scaled = pure(type(torso)(**{**vars(torso), 'scale': 1 / 255}))
    params = random_params(scaled.init, pixels)
    expected = pure(torso).apply(params, pixels.astype(np.float32) / 255)
    assert_close(scaled.apply(params, pixels), expected)


@pytest.mark.parametrize('core', [None, LSTM(3)])
def test_groups_are_equal_to_no_groups(core):
    observation = np.random.default_rng(2).integers(0, 256, (3, 4, 7, 6, 2)).astype(np.uint8)
    first = jnp.zeros((3, 4), bool).at[1, 2].set(True)
    results = []
    for num_groups in (1, 2):
        torso = Residual((3,), 1, (5,), scale=1 / 255)
        functions = network_of(torso, (7, 6, 2), core=core, num_groups=num_groups)
        params, state = random_params(functions.init), functions.initial_state(4)

        def loss(params, functions=functions, state=state):
            outputs = functions.unroll(params, observation, first, state)
            return jnp.sin(outputs['logits']).sum() + jnp.square(outputs['value']).sum(), outputs

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
    assert_close(*results)


def test_blocks_that_are_rematerialised_change_no_number():
    image = jax.random.normal(jax.random.key(1), (2, 7, 6, 2))
    plain, repeated = (pure(Residual((3, 4), 1, (5,), rematerialise=x)) for x in (False, True))
    params = jax.jit(plain.init)(jax.random.key(0), image)
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(repeated.init, jax.random.key(0), image))
    gradients = [
        jax.jit(jax.grad(lambda p, f=f: jnp.square(f.apply(p, image)).sum()))(params) for f in (plain, repeated)
    ]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *gradients)
    residuals = [
        sum(x.size for x in jax.tree.leaves(jax.eval_shape(lambda p, f=f: jax.vjp(f.apply, p, image)[1], params)))
        for f in (plain, repeated)
    ]
    assert residuals[1] < 0.5 * residuals[0]


@pytest.mark.parametrize(
    'torso',
    [
        functools.partial(Residual, (3, 4), 1, (5,), scale=1 / 255),
        functools.partial(Convolutional, (3, 4), (3, 2), (2, 1), (5,), scale=1 / 255),
    ],
    ids=['residual', 'convolutional'],
)
@pytest.mark.parametrize('as_patches', [True, False])
def test_half_precision_inside_and_single_precision_outside(torso, as_patches):
    pixels = np.random.default_rng(3).integers(0, 256, (3, 8, 7, 2)).astype(np.uint8)
    half = network_of(torso(as_patches=as_patches, dtype='bfloat16'), (8, 7, 2))
    single = network_of(torso(as_patches=as_patches), (8, 7, 2))
    initial, expected = half.init(jax.random.key(0)), single.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, initial, expected)
    params = random_params(single.init)

    def outputs_and_gradient(functions):
        def loss(params):
            outputs, _ = functions.step(params, pixels, jnp.zeros(3, bool), {})
            return jnp.square(outputs['value']).sum() + jnp.square(outputs['logits']).sum(), outputs

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    found, reference = outputs_and_gradient(half), outputs_and_gradient(single)
    assert {x.dtype for x in jax.tree.leaves((initial, found))} == {jnp.dtype(jnp.float32)}
    errors = [
        np.linalg.norm(x - y) / np.linalg.norm(y)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True)
    ]
    assert 1e-4 < max(errors) < 0.1  # Two or three significant digits; not those of single precision.


def test_operations_inside_are_in_half_precision():
    torso = pure(Residual((3,), 1, (5,), dtype='bfloat16', as_patches=False))
    x = jnp.zeros((2, 6, 6, 2), jnp.uint8)
    jaxpr = jax.make_jaxpr(torso.apply)(jax.eval_shape(torso.init, jax.random.key(0), x), x)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive.name in ('conv_general_dilated', 'dot_general')]
    assert len(products) == 4
    assert {v.aval.dtype for eqn in products for v in eqn.invars} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.usefixtures('x64')
def test_weights_of_half_precision_torsos_are_in_jaxs_own_precision():
    functions = network_of(Residual((3,), 0, (5,), dtype='bfloat16'), (6, 6, 2))
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(functions.init, jax.random.key(0)))} == {
        jnp.dtype(jnp.float64)
    }


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Residual(()), r'Residual\.channels is empty'),
        (lambda: Residual(dtype='float16'), r"Residual\.dtype must be None or 'float32' or 'bfloat16', got 'float16'"),
        (lambda: Convolutional(scale=0), r'Convolutional\.scale must be positive, got 0'),
        (lambda: network_of(SMALL, (5,)), r'Residual takes observations \[H, W, C\], got shape \(5,\)'),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    with pytest.raises((FieldError, ValueError), match=message):
        make()


def test_a_convolution_by_hand():
    """A kernel of ones over bytes: sums of neighbourhoods, zeros outside of the image."""
    layer = hk.without_apply_rng(hk.transform(lambda x: Convolution2D(1, 3, 2, 'SAME', name='c')(x)))
    params = {'c': {'w': jnp.ones((3, 3, 1, 1)), 'b': jnp.array([0.5])}}
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(layer.apply(params, x)[0, :, :, 0], [[8.5, 12.5], [20.5, 24.5]])
