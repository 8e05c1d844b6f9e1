"""What the forms of Harlow's task share."""

import jax
import jax.numpy as jnp

from components.types import Array

FIXATION_REWARD = 0.2  # On the ring and on the screen.


def object_vectors(numbers: Array, size: int, seed: int) -> Array:
    """Objects of the forms without images, by their numbers, int32 `[N]`: float32 `[N, size]`, standard normal."""
    key = jax.random.key(seed)
    return jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (size,), jnp.float32))(numbers)


def draw_pair(key: Array, first: int, count: int) -> Array:
    """Two different numbers of `first` to `first + count - 1`, all ordered pairs alike. int32 `[2]`."""
    one_key, other_key = jax.random.split(key)
    one = jax.random.randint(one_key, (), 0, count, jnp.int32)
    other = (one + jax.random.randint(other_key, (), 1, count, jnp.int32)) % count
    return first + jnp.stack([one, other])


def left_and_right(pair: Array, rewarded_right: Array) -> Array:
    """A pair, the rewarded one first, in the order of the sides."""
    return jnp.where(rewarded_right, pair[::-1], pair)
