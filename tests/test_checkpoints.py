"""Checkpoints: every bit of a state comes back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from components.checkpoints import Checkpointer


class Inner(NamedTuple):
    key: Any
    keys: Any
    count: Any


class Outer(NamedTuple):
    params: Any
    opt_state: Any
    inner: Inner
    core_state: Any


def make_state(seed):
    """A state like a learner's, with the floats that are easiest to lose."""
    params = {'network/linear': {'w': jax.random.normal(jax.random.key(seed), (3, 4)), 'b': jnp.zeros(4)}}
    special = jnp.array([np.nan, -np.inf, -0.0, 1e-45, 3.4e38, 1 / 3, seed], jnp.float32)
    optimiser = optax.chain(optax.scale_by_adam(), optax.identity())
    return {
        'outer': Outer(
            params=params,
            opt_state=jax.tree.map(lambda x: x + seed, optimiser.init(params)),
            inner=Inner(
                key=jax.random.key(seed),
                keys=jax.random.split(jax.random.key(seed + 1), (2, 3)),
                count=jnp.int32(seed),
            ),
            core_state={},
        ),
        'arrays': [special, special.astype(jnp.bfloat16), jnp.array([0, 2**32 - 1, seed], jnp.uint32)],
        'flags': (jnp.array([True, False, seed > 0]), np.arange(3) + seed),
        'env_steps': 10 * seed + 7,
    }


def bits(x):
    is_key = isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    x = np.asarray(jax.random.key_data(x) if is_key else x)
    return x.shape, str(x.dtype), x.tobytes()


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert getattr(a, 'dtype', type(a)) == getattr(e, 'dtype', type(e))
        assert bits(a) == bits(e)


@pytest.fixture
def open_checkpointer(tmp_path):
    """Opens checkpointers in one folder and closes them in the end."""
    opened = []

    def open_one(**kwargs):
        opened.append(Checkpointer(tmp_path / 'checkpoints', **kwargs))
        return opened[-1]

    yield open_one
    for checkpointer in opened:
        checkpointer.close()


def test_round_trip_is_bitwise(open_checkpointer):
    checkpointer = open_checkpointer()
    state = make_state(5)
    checkpointer.save(3, state)
    assert_same(checkpointer.restore(make_state(0)), state)


def test_restored_keys_draw_the_same_numbers(open_checkpointer):
    checkpointer = open_checkpointer()
    state = {
        'key': jax.random.key(7),
        'keys': jax.random.split(jax.random.key(8), 2),
        'rbg': jax.random.key(9, impl='rbg'),
    }
    checkpointer.save(0, state)
    template = {
        'key': jax.random.key(0),
        'keys': jax.random.split(jax.random.key(0)),
        'rbg': jax.random.key(0, impl='rbg'),
    }
    restored = checkpointer.restore(template)
    for name in ('key', 'rbg'):
        assert restored[name].dtype == state[name].dtype
        np.testing.assert_array_equal(jax.random.normal(restored[name], (3,)), jax.random.normal(state[name], (3,)))
    draw = jax.vmap(lambda key: jax.random.normal(key, (3,)))
    np.testing.assert_array_equal(draw(restored['keys']), draw(state['keys']))


def test_another_checkpointer_reads_what_was_written(open_checkpointer):
    writer = open_checkpointer()
    writer.save(3, make_state(5))
    writer.close()
    reader = open_checkpointer()
    assert reader.latest() == 3
    assert_same(reader.restore(make_state(0)), make_state(5))


def test_newest_or_given_step(open_checkpointer):
    checkpointer = open_checkpointer()
    for step in (1, 4, 6):
        checkpointer.save(step, make_state(step))
    assert checkpointer.latest() == 6
    assert_same(checkpointer.restore(make_state(0)), make_state(6))
    for step in (4, 1, 6):
        assert_same(checkpointer.restore(make_state(0), step), make_state(step))


def test_keeps_the_newest(open_checkpointer):
    checkpointer = open_checkpointer(max_to_keep=2)
    for step in range(5):
        checkpointer.save(step, {'x': jnp.float32(step)})
    checkpointer.close()
    checkpointer = open_checkpointer(max_to_keep=2)
    template = {'x': jnp.float32(0)}
    assert checkpointer.latest() == 4
    for step in (3, 4):
        assert checkpointer.restore(template, step)['x'] == step
    for step in (0, 1, 2):
        with pytest.raises(FileNotFoundError):
            checkpointer.restore(template, step)


def test_nothing_to_restore(open_checkpointer):
    checkpointer = open_checkpointer()
    assert checkpointer.latest() is None
    with pytest.raises(FileNotFoundError, match='checkpoints'):
        checkpointer.restore({'x': jnp.zeros(())})


@pytest.mark.parametrize('step', [5, 4])
def test_a_step_is_written_once_and_in_order(open_checkpointer, step):
    checkpointer = open_checkpointer()
    checkpointer.save(5, {'x': jnp.float32(1)})
    with pytest.raises(RuntimeError, match=f'checkpoint {step}'):
        checkpointer.save(step, {'x': jnp.float32(2)})
    assert checkpointer.restore({'x': jnp.float32(0)})['x'] == 1
