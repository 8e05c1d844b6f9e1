"""Optimisers: an optax transformation and a learning rate that is a field, and their checks."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike

from components.component import LearningRate, Positive, component
from components.run_once import jit_to_run_once
from components.types import Array, OptState, Params

MAX_STEPS = 16
"""Steps by which the sign of a transformation is judged, at most: the first ones of some are zero."""


def chain(transforms: Sequence[optax.GradientTransformation]) -> optax.GradientTransformation:
    """`optax.chain` with its transformations as one argument, which a gin file can bind."""
    return optax.chain(*transforms)


def clip_by_global_norm(max_norm: Positive) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with a derivative where the gradient is zero, for inner optimisers.

    Args:
      max_norm: norm of all entries together above which they are scaled down to it.

    Gradients: those of clipping; of a gradient of zeros, which is left alone, the identity's.
    """

    def update(
        updates: Params, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Params, optax.EmptyState]:
        del params
        norm, is_zero = _norm(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(updates)))
        is_left = is_zero | (norm < max_norm)
        clipped = jax.tree.map(lambda x: jnp.where(is_left, x, (x / norm.astype(x.dtype)) * max_norm), updates)
        return clipped, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_by_block_rms(threshold: Positive) -> optax.GradientTransformation:
    """`optax.clip_by_block_rms` with a derivative where a block is zero, for inner optimisers.

    Args:
      threshold: root mean square of an array's entries above which they are scaled down to it.

    Gradients: those of clipping; of an array of zeros, which is left alone, the identity's.
    """

    def clip(x: Array) -> Array:
        rms, is_zero = _norm(jnp.mean(jnp.square(x)))
        return jnp.where(is_zero | (rms < threshold), x, x / rms * threshold)

    def update(
        updates: Params, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Params, optax.EmptyState]:
        del params
        return jax.tree.map(clip, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _norm(squared: ArrayLike) -> tuple[Array, Array | bool]:
    """Square root, 1 in the place of 0 where it has no derivative, and whether it is in its place."""
    is_zero = squared == 0
    return jnp.sqrt(jnp.where(is_zero, 1, squared)), is_zero


@component
class Optimiser:
    """Steps of `-learning_rate * transform(gradient)`.

    Args:
      transform: from a gradient to a direction, *without* a learning rate: `optax.scale_by_rms()`,
        `optax.scale_by_adam(eps_root=1e-8)`, `optax.identity()` for SGD, or a `chain` of such. `optax.adam()` is not
        one: it has a learning rate and a sign of its own (`check_descends`).
      learning_rate: positive, at most 1,000.
    """

    transform: optax.GradientTransformation
    learning_rate: LearningRate

    def init(self, params: Params) -> OptState:
        """State before the first step."""
        return self.transform.init(params)

    def update(self, gradient: Params, state: OptState, params: Params) -> tuple[Params, OptState]:
        """What a step adds to the parameters, and the next state; as of a complete optimiser of optax."""
        direction, state = self.transform.update(gradient, state, params)
        return jax.tree.map(lambda d: -self.learning_rate * d, direction), state

    def step(self, gradient: Params, state: OptState, params: Params) -> tuple[Params, OptState]:
        """Takes one step, differentiable in all arguments and in `learning_rate`.

        Args:
          gradient: of the loss, as `params`.
          state: of the transformation.
          params: to move.

        Returns:
          The moved parameters and the next state.
        """
        updates, state = self.update(gradient, state, params)
        return jax.tree.map(jnp.add, params, updates), state


CompleteOptimiser: TypeAlias = optax.GradientTransformation | Optimiser
"""What updates come from that are added to parameters: `optax.adam(...)`, or an `Optimiser`."""


def check_descends(optimiser: Optimiser, params: Params, name: str = 'Optimiser.transform') -> None:
    """Checks that an inner optimiser steps down a gradient, by the transformation's first steps along a constant one.

    Args:
      optimiser: of an update rule.
      params: the weights that it is for, or their shapes; transformations may look at names and numbers of axes.
      name: of the transformation, for the message.

    Raises:
      ValueError: if it steps up the gradient of some weights, as a complete optimiser does, or cannot be used on them.
    """
    climbed = _weights_with(optimiser.transform, params, name, sign=-1)
    if climbed:
        raise ValueError(
            f'{name} steps up the gradient of {climbed}: it takes a direction without a learning rate and a sign, '
            'such as optax.scale_by_adam() in the place of optax.adam(), optax.identity() of optax.sgd(), or '
            'optax.scale_by_rms() of optax.rmsprop(); the learning rate is Optimiser.learning_rate'
        )


def check_complete(optimiser: CompleteOptimiser, params: Params, name: str) -> None:
    """Checks that a complete optimiser, whose updates are added to parameters, steps down a gradient.

    Args:
      optimiser: such as `optax.adam(1e-3)`, or an `Optimiser`.
      params: what it is for, or their shapes.
      name: of the field that holds it, for the message.

    Raises:
      ValueError: if it steps up the gradient of some of them, as a transformation without a learning rate does, or
        cannot be used.
    """
    climbed = _weights_with(optimiser, params, name, sign=1)
    if climbed:
        raise ValueError(
            f'{name} steps up the gradient of {climbed}: it takes a complete optimiser, such as an Optimiser, '
            'optax.adam(), or a chain that ends with one or with optax.scale_by_learning_rate()'
        )


def check_differentiable(optimiser: Optimiser, params: Params) -> None:
    """Checks that meta-gradients through an inner optimiser are finite where gradients are zero.

    A dead unit has a gradient of exactly zero, and the derivative of a square root or of a norm there makes a whole
    meta-gradient NaN. So two steps are differentiated, once with one zero entry in each array and once with nothing but
    zeros.

    Args:
      optimiser: of an update rule.
      params: the weights that it is for, or their shapes.

    Raises:
      ValueError: if the derivative is not finite; the message tells roots from norms.
    """
    params = _miniature(params)
    one_zero = jax.tree.map(
        lambda x: np.where((np.arange(x.size).reshape(x.shape) == 0) & (x.size > 1), 0, 1).astype(x.dtype), params
    )
    gradients = jax.tree.map(lambda x: np.stack([x, np.zeros_like(x)]), one_zero)

    def moved(gradient: Params) -> Array:
        moving, state = params, optimiser.transform.init(params)
        for _ in range(2):
            direction, state = optimiser.transform.update(gradient, state, moving)
            moving = jax.tree.map(jnp.subtract, moving, direction)
        return sum((jnp.sum(x) for x in jax.tree.leaves(moving)), start=jnp.zeros(()))

    derivatives = jax.tree.leaves(jax.device_get(jit_to_run_once(jax.vmap(jax.grad(moved)))(gradients)))
    one_zero_is_finite, zeros_are_finite = (all(np.isfinite(x[i]).all() for x in derivatives) for i in range(2))
    if not one_zero_is_finite:
        raise ValueError(
            'Optimiser.transform cannot be differentiated where an entry of a gradient is zero, so meta-gradients '
            'would be NaN: give Adam-like transformations eps_root > 0 (1e-8, say), optax.scale_by_rms '
            'eps_in_sqrt = True'
        )
    if not zeros_are_finite:
        raise ValueError(
            'Optimiser.transform cannot be differentiated where a gradient is zero throughout, as a norm has no '
            'derivative there, so meta-gradients would be NaN: clip with optimisers.clip_by_global_norm, '
            'optimisers.clip_by_block_rms or optax.clip'
        )


_Steps: TypeAlias = tuple[Array, OptState, Params, Params]
"""How many were taken, the state after them, their sum, and the product of each of its arrays with the gradient."""


def _weights_with(transform: CompleteOptimiser, params: Params, name: str, sign: int) -> str:
    """Names of the arrays whose first steps have a product of this sign with a constant gradient."""
    params = jax.tree.map(np.zeros_like, _miniature(params))  # So that weight decay does nothing.
    random = np.random.default_rng(0)
    gradient = jax.tree.map(
        lambda x: (random.choice([-1, 1], x.shape) * (0.5 + random.random(x.shape))).astype(x.dtype), params
    )

    def step(carry: _Steps) -> _Steps:
        num_steps, state, total, _ = carry
        direction, state = transform.update(gradient, state, params)
        total = jax.tree.map(jnp.add, total, direction)
        return num_steps + 1, state, total, jax.tree.map(jnp.vdot, total, gradient)

    def is_undecided(carry: _Steps) -> Array:
        num_steps, _, _, found = carry
        is_zero = jnp.stack([x == 0 for x in jax.tree.leaves(found)]).any()
        return (num_steps < 2) | ((num_steps < MAX_STEPS) & is_zero)

    def products(params: Params) -> Params:
        zeros = jax.tree.map(lambda x: jnp.zeros((), x.dtype), params)
        return jax.lax.while_loop(is_undecided, step, (jnp.int32(0), transform.init(params), params, zeros))[-1]

    try:
        found = jax.device_get(jit_to_run_once(products)(params))
    except Exception as error:  # Of a function that is not ours, such as a mask by name, anything.
        raise ValueError(f'{name} cannot be used on these weights: {type(error).__name__}: {error}') from error
    leaves, _ = jax.tree_util.tree_flatten_with_path(found)
    names = [
        jax.tree_util.keystr(path, simple=True, separator='/') or 'the parameters' for path, x in leaves if x * sign > 0
    ]
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def _miniature(params: Params) -> Params:
    """Ones in the place of weights, of as many axes with at most two entries each, so that trying takes no time."""
    return jax.tree.map(lambda x: np.ones([min(n, 2) for n in x.shape], x.dtype), params)
