"""Mapping over axes (seeds `S`, lifetimes `L`, environments `B`), and dividing the last among devices."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Bool, PyTree

from components.types import Array

T = TypeVar('T')

ENVIRONMENTS = 'environments'
"""Axis of a mesh of devices among which environments are divided."""


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


def num_parts() -> int:
    """Among how many devices the program that is traced divides environments."""
    return jax.sharding.get_abstract_mesh().shape.get(ENVIRONMENTS, 1)


def by_environment(
    function: Callable[..., T], in_axes: Sequence[int | None], out_axes: PyTree[int]
) -> Callable[..., T]:
    """A function that treats each environment by itself, called on each device with that device's environments.

    The compiler divides means, losses and draws over `B` by itself. It cannot divide what merges `[T, B]` into one
    axis, as a network over a sequence does, and would have every device compute all of it.

    Where environments are not divided, or so many cannot be, this calls the function as it is.

    Args:
      function: pure; no result depends on another environment's arguments.
      in_axes: which axis of each argument's leaves is `B`; None for what all environments share.
      out_axes: likewise of the results, a prefix of their structure.
    """

    def call(*args: PyTree) -> T:
        divided = [(arg, axis) for arg, axis in zip(args, in_axes, strict=True) if axis is not None]
        sizes = {x.shape[axis] for arg, axis in divided for x in jax.tree.leaves(arg)}
        if num_parts() == 1 or any(size % num_parts() for size in sizes):
            return function(*args)
        specs = tuple(map(_spec, in_axes)), jax.tree.map(_spec, out_axes)
        # Without the check of varying axes, which searchsorted and LSTMs fail in jax 0.10.
        return jax.shard_map(
            function, in_specs=specs[0], out_specs=specs[1], axis_names={ENVIRONMENTS}, check_vma=False
        )(*args)

    return call


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, ENVIRONMENTS)
