"""Networks: shapes, sharing, and the forms of a convolution."""

import dataclasses
import functools
import re
import types

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs

from components.environments.observations import entries_of
from components.networks.convolutions import Convolution2D
from components.networks.cores import GRU, LSTM, StackedLSTM
from components.networks.network import Network
from components.networks.torsos import MLP, Concatenate, Convolutional, OneHot
from components.types import CompositionError, Trajectory
from tests.helpers.agents_for_tests import make_agent

HEADS = {'logits': (3,), 'value': ()}


def environment_spec(shape=(4,), dtype=np.float32, observations=None):
    return specs.EnvironmentSpec(
        observations=specs.Array(shape, dtype) if observations is None else observations,
        actions=specs.DiscreteArray(3),
        rewards=specs.Array((), np.float32),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
    )


def pure(forward):
    return hk.without_apply_rng(hk.transform(lambda x: forward(x)))


def random_params(init, *args):
    """Parameters as `init` makes them, but random throughout: biases too. Cheaper than to compile `init`."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree.map(lambda s: jnp.asarray(random.normal(scale=0.5, size=s.shape), s.dtype), shapes)


def feature_shape(torso, shape):
    x = jnp.zeros(shape)
    params = jax.eval_shape(pure(torso).init, jax.random.key(0), x)
    return jax.eval_shape(pure(torso).apply, params, x).shape, jax.tree.map(jnp.shape, params)


def modules_behind(functions, params, observation, head):
    """Names of the modules whose weights the head's output depends on."""
    first = jnp.zeros(observation.shape[0], bool)
    core_state = functions.initial_state(observation.shape[0])

    def total(params):
        return jnp.sin(functions.step(params, observation, first, core_state)[0][head]).sum()

    gradient = jax.jit(jax.grad(total))(params)
    return {name for name, leaves in gradient.items() if any(np.abs(leaf).max() > 0 for leaf in leaves.values())}


@pytest.mark.parametrize('shape', [(), (5,), (3, 4), (2, 3, 4)])
def test_mlp_flattens_any_observation(shape):
    x = jax.random.normal(jax.random.key(1), (6, *shape))
    params = random_params(pure(MLP((7, 9))).init, x)
    features = pure(MLP((7, 9))).apply(params, x)
    assert features.shape == (6, 9)
    expected = np.asarray(x).reshape(6, -1)
    for i in range(2):
        layer = params[f'linear_{i}']
        expected = np.maximum(expected @ np.asarray(layer['w']) + np.asarray(layer['b']), 0)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('padding', 'strides', 'num_flat'),
    [('SAME', (1, 1), 7 * 6 * 5), ('SAME', (2, 1), 4 * 3 * 5), ('VALID', (1, 1), 3 * 2 * 5), ('VALID', (2, 1), 1 * 5)],
)
def test_convolutional_feature_shapes(padding, strides, num_flat):
    shape = (2, 7, 8, 3) if (padding, strides) == ('VALID', (2, 1)) else (2, 7, 6, 3)  # 8 and then 3 cells down to 1.
    torso = Convolutional((4, 5), (3, 3), strides, hidden_sizes=(), padding=padding)
    assert feature_shape(torso, shape)[0] == (2, num_flat)
    features, params = feature_shape(dataclasses.replace(torso, hidden_sizes=(8, 6)), shape)
    assert features == (2, 6)
    assert params['linear_0']['w'] == (num_flat, 8)


def test_convolutional_equals_haiku_layer_by_layer():
    x = jax.random.normal(jax.random.key(2), (2, 7, 6, 3))
    torso = pure(Convolutional((4, 5), (3, 2), (1, 2), hidden_sizes=(8,)))
    params = random_params(torso.init, x)

    def reference(x):
        x = jax.nn.relu(hk.Conv2D(4, 3, 1, padding='SAME', name='convolution_0')(x))
        x = jax.nn.relu(hk.Conv2D(5, 2, 2, padding='SAME', name='convolution_1')(x))
        return jax.nn.relu(hk.Linear(8, name='linear_0')(x.reshape(2, -1)))

    expected = jax.jit(pure(reference).apply)(params, x)
    np.testing.assert_allclose(jax.jit(torso.apply)(params, x), expected, rtol=1e-5, atol=1e-5)


def test_convolutional_needs_one_entry_per_layer():
    with pytest.raises(ValueError, match=r'\(3, 3, 3\)'):
        Convolutional((4, 5), (3, 3, 3), (1, 1))


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('kernel_size', [1, 2, 3, 4])
def test_convolution_forms_agree_with_haiku(kernel_size, stride, padding):
    def as_patches(x):
        return Convolution2D(5, kernel_size, stride, padding, as_patches=True, name='convolution')(x)

    def as_convolution(x):
        return Convolution2D(5, kernel_size, stride, padding, as_patches=False, name='convolution')(x)

    def haiku(x):
        return hk.Conv2D(5, kernel_size, stride, padding=padding, name='convolution')(x)

    forms = [pure(form) for form in (as_patches, as_convolution, haiku)]
    # Odd and even sides, which leave every remainder when divided by the stride.
    shapes = [(7, 6), (8, 5)] if stride == 3 else [(7, 6)]
    images = [jax.random.normal(jax.random.key(1), (2, *shape, 3)) for shape in shapes]
    params = random_params(forms[2].init, images[0])
    cotangents = [
        jax.random.normal(jax.random.key(9), jax.eval_shape(forms[2].apply, params, image).shape) for image in images
    ]

    @functools.partial(jax.jit, static_argnums=0)
    def outputs_and_gradients(form, params, images, cotangents):
        results = []
        for image, cotangent in zip(images, cotangents, strict=True):
            output, pullback = jax.vjp(form.apply, params, image)
            results.append((output, pullback(cotangent / cotangent.size)))
        return results

    expected = outputs_and_gradients(forms[2], params, images, cotangents)
    for form in forms[:2]:
        shape = jax.eval_shape(form.init, jax.random.key(0), images[0])
        assert jax.tree.map(jnp.shape, shape) == jax.tree.map(jnp.shape, params)
        actual = outputs_and_gradients(form, params, images, cotangents)
        assert jax.tree.map(jnp.shape, actual) == jax.tree.map(jnp.shape, expected)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), actual, expected)
        # Gradients are small after the division above; compare them in units of their own too.
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.abs(e).max()), actual, expected
        )


def test_convolution_starts_as_haiku_has_it():
    x = jnp.ones((1, 6, 6, 3))
    ours = hk.transform(lambda x: Convolution2D(5, 3, 1, 'SAME', name='convolution')(x)).init(jax.random.key(4), x)
    theirs = hk.transform(lambda x: hk.Conv2D(5, 3, name='convolution')(x)).init(jax.random.key(4), x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)


@pytest.mark.parametrize(
    ('network', 'expected'),
    [
        (
            Network(MLP((6, 5))),
            {
                'network/shared/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/shared/linear_1': {'w': (6, 5), 'b': (5,)},
                'network/logits_head': {'w': (5, 3), 'b': (3,)},
                'network/value_head': {'w': (5, 1), 'b': (1,)},
            },
        ),
        (
            Network(MLP((6,)), shared=False),
            {
                'network/logits/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/value/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/logits_head': {'w': (6, 3), 'b': (3,)},
                'network/value_head': {'w': (6, 1), 'b': (1,)},
            },
        ),
        (
            Network(MLP((6,)), head_torsos={'value': MLP((9, 8))}),
            {
                'network/shared/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/value/linear_0': {'w': (4, 9), 'b': (9,)},
                'network/value/linear_1': {'w': (9, 8), 'b': (8,)},
                'network/logits_head': {'w': (6, 3), 'b': (3,)},
                'network/value_head': {'w': (8, 1), 'b': (1,)},
            },
        ),
        (
            Network(MLP((6,)), shared=False, head_torsos={'value': MLP((9,))}),
            {
                'network/logits/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/value/linear_0': {'w': (4, 9), 'b': (9,)},
                'network/logits_head': {'w': (6, 3), 'b': (3,)},
                'network/value_head': {'w': (9, 1), 'b': (1,)},
            },
        ),
        (
            Network(MLP((6,)), core=LSTM(2)),
            {
                'network/shared/linear_0': {'w': (4, 6), 'b': (6,)},
                'network/shared/lstm/linear': {'w': (8, 8), 'b': (8,)},
                'network/logits_head': {'w': (2, 3), 'b': (3,)},
                'network/value_head': {'w': (2, 1), 'b': (1,)},
            },
        ),
    ],
    ids=['shared', 'separate', 'head_torsos', 'separate_and_head_torsos', 'recurrent'],
)
def test_parameter_names_and_shapes(network, expected):
    # Checkpoints hold these names: a change of theirs makes the old ones unreadable.
    functions = network.functions(environment_spec(), HEADS)
    params = jax.eval_shape(functions.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == expected


def test_convolutional_parameter_names():
    functions = Network(Convolutional((2,), (2,), (1,), (7,))).functions(environment_spec((4, 5, 1)), HEADS)
    assert jax.tree.map(jnp.shape, jax.eval_shape(functions.init, jax.random.key(0))) == {
        'network/shared/convolution_0': {'w': (2, 2, 1, 2), 'b': (2,)},
        'network/shared/linear_0': {'w': (40, 7), 'b': (7,)},
        'network/logits_head': {'w': (7, 3), 'b': (3,)},
        'network/value_head': {'w': (7, 1), 'b': (1,)},
    }


@pytest.mark.parametrize(
    ('network', 'in_common'),
    [
        (Network(MLP((6, 5))), {'network/shared/linear_0', 'network/shared/linear_1'}),
        (Network(MLP((6, 5)), shared=False), set()),
        (Network(MLP((6, 5)), head_torsos={'value': MLP((5,))}), set()),
        (Network(MLP((6,)), core=GRU(3)), {'network/shared/linear_0', 'network/shared/gru'}),
        (Network(MLP((6,)), core=GRU(3), shared=False), set()),
    ],
    ids=['shared', 'separate', 'head_torsos', 'shared_recurrent', 'separate_recurrent'],
)
def test_weights_that_value_and_policy_both_read(network, in_common):
    functions = network.functions(environment_spec(), HEADS)
    params = random_params(functions.init)
    observation = jax.random.normal(jax.random.key(1), (8, 4))
    behind_value = modules_behind(functions, params, observation, 'value')
    behind_logits = modules_behind(functions, params, observation, 'logits')
    assert behind_value & behind_logits == in_common
    assert behind_value | behind_logits == set(params)


def test_third_head_without_torso_of_its_own_reads_the_shared_one():
    network = Network(MLP((6,)), head_torsos={'value': MLP((5,))})
    functions = network.functions(environment_spec(), {**HEADS, 'outer_value': ()})
    params = random_params(functions.init)
    observation = jax.random.normal(jax.random.key(1), (8, 4))
    assert 'network/shared/linear_0' in modules_behind(functions, params, observation, 'outer_value')
    assert 'network/value/linear_0' not in modules_behind(functions, params, observation, 'outer_value')


def test_output_shapes_follow_the_heads():
    heads = {'logits': (3,), 'value': (), 'table': (2, 5)}
    functions = Network(MLP((6,))).functions(environment_spec(), heads)
    params = random_params(functions.init)
    outputs, _ = functions.step(params, jnp.ones((7, 4)), jnp.zeros(7, bool), functions.initial_state(7))
    assert jax.tree.map(jnp.shape, outputs) == {'logits': (7, 3), 'value': (7,), 'table': (7, 2, 5)}
    outputs = functions.unroll(params, jnp.ones((9, 7, 4)), jnp.zeros((9, 7), bool), functions.initial_state(7))
    assert jax.tree.map(jnp.shape, outputs) == {'logits': (9, 7, 3), 'value': (9, 7), 'table': (9, 7, 2, 5)}


def test_feed_forward_outputs_by_hand():
    functions = Network(MLP((6,))).functions(environment_spec(), HEADS)
    params = random_params(functions.init)
    observation = np.asarray(jax.random.normal(jax.random.key(1), (5, 4)))
    outputs, _ = functions.step(params, observation, jnp.zeros(5, bool), functions.initial_state(5))
    torso, logits, value = (params[f'network/{name}'] for name in ('shared/linear_0', 'logits_head', 'value_head'))
    features = np.maximum(observation @ torso['w'] + torso['b'], 0)
    np.testing.assert_allclose(outputs['logits'], features @ logits['w'] + logits['b'], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs['value'], (features @ value['w'] + value['b'])[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('network', 'shape'),
    [
        (Network(MLP((6,))), (4,)),
        (Network(MLP((6,)), shared=False, head_torsos={'value': MLP((5, 4))}), (3, 2)),
        (Network(Convolutional((2,), (3,), (2,), (5,))), (5, 4, 2)),
        (Network(MLP((6,)), core=LSTM(3)), (4,)),
        (Network(MLP((6,)), core=GRU(3), shared=False), (4,)),
        (Network(MLP((6,)), core=StackedLSTM((3, 2))), (4,)),
        (Network(MLP((6,)), core=LSTM(3), num_groups=3), (4,)),
        (Network(Convolutional((2,), (3,), (2,), (5,)), num_groups=3), (5, 4, 2)),
    ],
    ids=[
        'mlp',
        'separate',
        'convolutional',
        'lstm',
        'separate_gru',
        'stacked_lstm',
        'lstm_groups',
        'convolutional_groups',
    ],
)
def test_unroll_equals_steps(network, shape):
    # The same parameters serve both. Where there is a core, its state is reset at the firsts and nowhere else.
    functions = network.functions(environment_spec(shape), HEADS)
    params = random_params(functions.init)
    step, unroll = jax.jit(functions.step), jax.jit(functions.unroll)
    num_steps, batch_size = 5, 3
    observations = jax.random.normal(jax.random.key(1), (num_steps, batch_size, *shape))
    first = np.zeros((num_steps, batch_size), bool)
    first[2, 0] = first[0, 1] = first[3, 1] = True
    state = jax.tree.map(lambda x: x + 0.5, functions.initial_state(batch_size))
    unrolled = unroll(params, observations, first, state)
    steps = []
    for t in range(num_steps):
        state = jax.tree.map(
            lambda fresh, old, t=t: jnp.where(first[t][:, None], fresh, old), functions.initial_state(batch_size), state
        )
        # Reset by hand above, so that `first` has nothing left to do.
        outputs, next_state = step(params, observations[t], np.zeros(batch_size, bool), state)
        reset_by_network, _ = step(params, observations[t], first[t], state)
        jax.tree.map(np.testing.assert_array_equal, outputs, reset_by_network)
        steps.append(outputs)
        state = next_state
    for head in HEADS:
        expected = np.stack([outputs[head] for outputs in steps])
        np.testing.assert_allclose(unrolled[head], expected, rtol=1e-5, atol=1e-6)


def test_each_layer_of_a_stack_sees_the_features_and_all_are_seen():
    functions = Network(MLP((6,)), core=StackedLSTM((3, 2))).functions(environment_spec(), HEADS)
    params = random_params(functions.init)
    sizes = {name: params[f'network/shared/{name}/linear']['w'].shape for name in ('lstm_0', 'lstm_1')}
    assert sizes == {'lstm_0': (6 + 3, 4 * 3), 'lstm_1': (6 + 3 + 2, 4 * 2)}
    assert params['network/logits_head']['w'].shape[0] == 3 + 2


def test_entries_of_an_observation_are_joined_in_the_order_of_their_names():
    spec = environment_spec()._replace(
        observations={'view': specs.Array((2, 2), np.float32), 'action': specs.Array((3,), np.int32)}
    )
    functions = Network(Concatenate({'view': MLP((6,))})).functions(spec, HEADS)
    params = random_params(functions.init)
    observation = {'view': np.arange(20.0, dtype=np.float32).reshape(5, 2, 2), 'action': np.eye(5, 3, dtype=np.int32)}
    outputs, _ = functions.step(params, observation, jnp.zeros(5, bool), functions.initial_state(5))
    torso, value = params['network/shared/linear_0'], params['network/value_head']
    seen = np.maximum(observation['view'].reshape(5, 4) @ torso['w'] + torso['b'], 0)
    features = np.concatenate([observation['action'], seen], -1)
    np.testing.assert_allclose(outputs['value'], (features @ value['w'] + value['b'])[:, 0], rtol=1e-5)
    sequence = jax.tree.map(lambda x: jnp.stack([x, x]), observation)
    unrolled = functions.unroll(params, sequence, jnp.zeros((2, 5), bool), functions.initial_state(5))
    np.testing.assert_allclose(unrolled['value'], [outputs['value']] * 2, rtol=1e-5)


def test_entries_that_are_not_there_are_named():
    with pytest.raises(
        ValueError, match=r'Concatenate.torsos are for view, which the observation lacks; it has no entries'
    ):
        Network(Concatenate({'view': MLP()})).functions(environment_spec(), HEADS)
    with pytest.raises(ValueError, match=r'StackedLSTM\.hidden_sizes is empty'):
        StackedLSTM(())


def test_integer_and_boolean_observations_are_cast():
    values = np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    outputs = {}
    for dtype in (np.float32, np.int32, np.uint8, bool):
        functions = Network(MLP((6,))).functions(environment_spec(dtype=dtype), HEADS)
        params = functions.init(jax.random.key(0))
        outputs[dtype], _ = functions.step(params, values.astype(dtype), jnp.zeros(2, bool), {})
        assert all(output.dtype == jnp.float32 for output in outputs[dtype].values())
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
        jax.tree.map(np.testing.assert_array_equal, outputs[dtype], outputs[np.float32])


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('dtype', [np.float64, np.int32])
@pytest.mark.parametrize(
    ('torso', 'shape'), [(MLP((6,)), (4,)), (Convolutional((2,), (2,), (1,), (5,), as_patches=True), (4, 5, 2))]
)
def test_double_precision_in_double_precision_out(torso, shape, dtype):
    functions = Network(torso).functions(environment_spec(shape, dtype), HEADS)
    params = jax.eval_shape(functions.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(functions.step, params, np.ones((2, *shape), dtype), jnp.zeros(2, bool), {})
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves((params, outputs)))


@pytest.mark.parametrize('torso', [MLP((6,)), Convolutional((2,), (2,), (1,))])
def test_structured_observation_is_refused_with_its_shapes(torso):
    observations = {'board': specs.Array((4, 5, 2), np.float32), 'score': specs.Array((3,), np.float32)}
    with pytest.raises(ValueError, match=r'\(4, 5, 2\).*\(3,\)'):
        Network(torso).functions(environment_spec(observations=observations), HEADS)


@pytest.mark.parametrize('shape', [(), (7,), (7, 5), (2, 7, 5, 1)])
def test_wrong_rank_is_refused_with_the_shape(shape):
    network = Network(Convolutional((2,), (2,), (1,)))
    with pytest.raises(ValueError, match=re.escape(f'got shape {shape}')):
        network.functions(environment_spec(shape), HEADS)


def test_unknown_head_is_refused():
    network = Network(MLP((6,)), head_torsos={'reward': MLP((5,))})
    with pytest.raises(ValueError, match=r'reward.*logits, value'):
        network.functions(environment_spec(), HEADS)


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match='does not fit'):
        hk.transform(lambda x: Convolution2D(3, 4, 1, 'VALID')(x)).init(jax.random.key(0), jnp.zeros((1, 2, 2, 5)))


def trajectory_of(functions):
    """Of four steps in two environments."""
    observation = jax.random.normal(jax.random.key(1), (5, 2, 4))
    first = jnp.zeros((5, 2), bool).at[3, 0].set(True)
    return Trajectory(observation, first, *[jnp.zeros((4, 2))] * 4, (), functions.initial_state(2))


@pytest.mark.parametrize('core', [None, LSTM(3)])
@pytest.mark.parametrize('num_groups', [1, 2])
def test_predictions_are_all_outputs_but_the_last(core, num_groups):
    functions = Network(MLP((6,)), core, num_groups=num_groups).functions(environment_spec(), HEADS)
    params, trajectory = random_params(functions.init), trajectory_of(functions)
    whole = functions.unroll(params, trajectory.observation, trajectory.first, trajectory.core_state)
    predictions, bootstrap = functions.predictions(params, trajectory)
    for name, expected in whole.items():
        np.testing.assert_allclose(predictions[name], expected[:-1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(bootstrap[name], expected[-1:], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(functions.outputs(params, trajectory)[name], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('num_groups', [1, 2])
def test_an_update_takes_no_reverse_pass_through_the_observation_to_bootstrap_from(num_groups):
    """A reverse pass would multiply it with zeros, which are not zero if it is not a number."""
    functions = Network(MLP((6,)), num_groups=num_groups).functions(environment_spec(), HEADS)
    params, trajectory = random_params(functions.init), trajectory_of(functions)
    trajectory = trajectory._replace(observation=trajectory.observation.at[-1].set(jnp.nan))

    def loss(params):
        predictions, bootstrap = functions.predictions(params, trajectory)
        return sum(x.sum() for x in predictions.values()), bootstrap

    gradient, bootstrap = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert all(np.isnan(x).all() for x in bootstrap.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_groups_of_environments():
    with pytest.raises(ValueError, match='num_groups must be at least 1, got 0'):
        Network(MLP((6,)), num_groups=0)
    with pytest.raises(CompositionError, match=r'num_groups \(2\) must divide the 5 environments, as 1, 5 do'):
        make_agent(network=Network(MLP((6,)), num_groups=2))


@pytest.mark.parametrize('rematerialise_core', [True, False])
def test_a_reverse_pass_through_a_core_is_that_of_haiku(rematerialise_core):
    """It may compute steps anew instead of keeping them; what comes out is the same."""
    network = Network(MLP((6,)), core=LSTM(3), rematerialise_core=rematerialise_core)
    functions = network.functions(environment_spec(), HEADS)
    params = random_params(functions.init)
    observations = jax.random.normal(jax.random.key(1), (5, 2, 4))
    first = jnp.zeros((5, 2), bool).at[3, 0].set(True)

    def by_hand(x, first, state):
        hidden = jax.nn.relu(hk.Linear(6, name='linear_0')(x))
        core = hk.ResetCore(hk.LSTM(3, name='lstm'))
        return hk.Linear(3, name='logits')(hk.dynamic_unroll(core, (hidden, first), state)[0])

    plain = hk.without_apply_rng(hk.transform(by_hand))
    names = {'linear_0': 'network/shared/linear_0', 'lstm/linear': 'network/shared/lstm/linear'}
    names |= {'logits': 'network/logits_head'}
    state = hk.LSTMState(jnp.ones((2, 3)), jnp.ones((2, 3)))

    def loss(params):
        return jnp.square(functions.unroll(params, observations, first, {'shared': state})['logits']).sum()

    def plain_loss(params):
        mine = {name: params[other] for name, other in names.items()}
        return jnp.square(plain.apply(mine, observations, first, state)).sum()

    found, expected = jax.jit(jax.grad(loss))(params), jax.jit(jax.grad(plain_loss))(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)


def test_integers_as_one_hot_vectors():
    network = hk.without_apply_rng(hk.transform(OneHot(3)))
    found = network.apply({}, jnp.array([[0, 2], [1, 7]]))
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]])


def test_entries_of_any_structure_are_joined_by_path():
    observation = {'b': jnp.ones((2, 3)), 'a': (jnp.array([1, 2]), {'c': jnp.zeros((2, 2, 2), bool)})}
    assert list(entries_of(observation)) == ['a', 'a/0', 'a/1', 'a/1/c', 'b']
    network = hk.without_apply_rng(hk.transform(Concatenate({'a/0': OneHot(3)})))
    found = network.apply({}, observation)
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0, 0, 1, 1, 1]])
    missing = hk.without_apply_rng(hk.transform(Concatenate({'a/2': OneHot(3)})))
    with pytest.raises(ValueError, match=r'for a/2, which the observation lacks; it has a, a/0, a/1, a/1/c, b'):
        missing.apply({}, observation)


@pytest.mark.parametrize(
    ('observations', 'torso', 'doubt'),
    [
        (specs.BoundedArray((), np.int32, 0, 15), MLP(), 'num_values = 16'),
        (specs.Array((2,), np.int32), MLP(), 'int32'),
        (specs.BoundedArray((), np.int32, 0, 15), OneHot(16), None),
        (specs.Array((84, 84, 3), np.uint8), Convolutional(), None),
        (specs.Array((4,), bool), MLP(), None),
        (specs.Array((4,), np.float32), MLP(), None),
        ({'cell': specs.BoundedArray((), np.int32, 0, 4)}, Concatenate(), 'the observation cell is an integer'),
        ({'cell': specs.BoundedArray((), np.int32, 0, 4)}, Concatenate({'cell': OneHot(5)}), None),
    ],
)
def test_an_integer_that_is_read_as_a_number_is_a_doubt(observations, torso, doubt):
    agent = make_agent()
    spec = agent.environment.spec()._replace(observations=observations)
    environment = types.SimpleNamespace(spec=lambda: spec)
    object.__setattr__(agent, 'environment', environment)
    object.__setattr__(agent, 'network', Network(torso))
    warnings = agent.warnings()
    assert len(warnings) == (doubt is not None)
    assert doubt is None or doubt in warnings[0]
