"""Precision of what a torso computes with; its weights stay in single precision."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import haiku as hk
import jax.numpy as jnp

from components.types import Array

ComputeType = Literal['float32', 'bfloat16'] | None
"""Floating-point type that a torso computes with; None for that of the weights."""


def dtype_of(compute_type: ComputeType) -> jnp.dtype:
    """The type as JAX has it."""
    return jnp.dtype(compute_type) if compute_type else jnp.result_type(float)


@contextlib.contextmanager
def full_precision_weights() -> Iterator[None]:
    """Haiku modules called inside make their weights in JAX's default precision, and see them in that of their input.

    A module asks for weights of its input's type. Made in half of the precision, they would be in the optimiser's state
    too, and small updates would be lost.
    """
    with hk.custom_creator(_make), hk.custom_getter(_see):
        yield


def _make(next_creator: Callable[..., Array], shape: Sequence[int], dtype: Any, init: Any, context: Any) -> Array:
    del dtype, context
    return next_creator(shape, jnp.result_type(float), init)


def _see(next_getter: Callable[[Array], Array], value: Array, context: Any) -> Array:
    return next_getter(value.astype(context.original_dtype))
