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


def in_groups(function: Callable[..., T], num_groups: int) -> Callable[..., T]:
    """A function of trees with a leading axis, called with one group of it after the other, as by `jax.lax.map`.

    Args:
      function: of a group; its results have the axis, too.
      num_groups: that the axis is split into, which divides its size; one is called as it is.
    """
    if num_groups == 1:
        return function

    def mapped(*args: PyTree) -> T:
        groups = jax.tree.map(lambda x: x.reshape(num_groups, x.shape[0] // num_groups, *x.shape[1:]), args)
        results = jax.lax.map(lambda group: function(*group), groups)
        return jax.tree.map(lambda x: x.reshape(num_groups * x.shape[1], *x.shape[2:]), results)

    return mapped
