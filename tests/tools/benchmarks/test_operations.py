"""Operations of compiled programs."""

import jax
import jax.numpy as jnp

from tools.benchmarks.operations import matrix_operations


def count(function, *args):
    return matrix_operations(jax.jit(function).lower(*args).compile().as_text())


def test_what_is_the_same_counts_once():
    x, w = jnp.ones((8, 16)), jnp.ones((16, 32))
    assert count(lambda x, w: (x @ w) * jnp.sin(x @ w), x, w) == 2 * 8 * 16 * 32


def test_a_loop_of_known_length_counts_as_often_as_it_is_passed_through():
    x, w = jnp.ones((8, 16)), jnp.ones((16, 16))

    def loop(x, w, length):
        def body(_, x):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

        return jax.lax.fori_loop(0, length, body, x)

    assert count(loop, x, w, 3) == 5 * 2 * 8 * 16 * 16


def test_products_of_batches_count_for_each_of_them():
    x, w = jnp.ones((3, 8, 16)), jnp.ones((3, 16, 32))
    assert count(jnp.matmul, x, w) == 3 * 2 * 8 * 16 * 32
