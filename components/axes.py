"""Mapping over leading axes (seeds `S`, lifetimes `L`, environments `B`)."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, PyTree

from components.types import Array

T = TypeVar('T')


def tree_where(condition: Bool[Array, ' B'], on_true: T, on_false: T) -> T:
    """Selects between the leaves `[B, ...]` of two trees by a condition `[B]`; `jnp.where` on trees."""
    return jax.tree.map(lambda x, y: jax.vmap(jnp.where)(condition, x, y), on_true, on_false)


def over_axis(function: Callable[..., T], size: int) -> Callable[..., T]:
    """`jax.vmap(function)` over a leading axis of that size; an axis of one is taken off and put back, at no cost."""
    if size != 1:
        return jax.vmap(function, axis_size=size)

    def only(*args: PyTree) -> T:
        return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], args)))

    return only
