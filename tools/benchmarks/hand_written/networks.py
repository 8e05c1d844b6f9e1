"""Networks of the loops written by hand, on Snake and Catch."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from components.types import Array


def transformed(*functions: Callable[..., Any]) -> list[Any]:
    """Networks that draw no random numbers, from functions of haiku."""
    return [hk.without_apply_rng(hk.transform(function)) for function in functions]


def predict(apply: Callable[[Any, Array], Any], params: Any, observations: Array, bootstrap_apart: bool) -> Any:
    """Outputs `[T+1, B, ...]` of a network on a trajectory's observations `[T+1, B, ...]`.

    Args:
      apply: `(params, observations [N, ...]) -> outputs [N, ...]`.
      params: the weights.
      observations: of the trajectory.
      bootstrap_apart: whether the last observation, which only bootstraps, goes through the network by itself, with its
        gradient stopped, so that no reverse pass is wasted on it.
    """

    def batched(x):
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), apply(params, x.reshape(-1, *x.shape[2:])))

    if not bootstrap_apart:
        return batched(observations)
    last = jax.lax.stop_gradient(batched(observations[-1:]))
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), batched(observations[:-1]), last)


def snake_policy(boards: Array) -> Array:
    """Logits of boards `[N, 6, 6, 5]`."""
    return hk.Linear(4, name='head')(_snake_torso(boards, (64, 64)))


def snake_critic(boards: Array) -> Array:
    """Values of boards `[N, 6, 6, 5]`."""
    return hk.Linear(1, name='head')(_snake_torso(boards, (128, 128)))[..., 0]


def catch_network(boards: Array) -> tuple[Array, Array]:
    """Logits and values of boards of Catch, `[..., 10, columns]`."""
    x = hk.nets.MLP((64, 64), activate_final=True)(boards.reshape(*boards.shape[:-2], -1))
    return hk.Linear(3)(x), hk.Linear(1)(x)[..., 0]


def _snake_torso(boards: Array, sizes: tuple[int, ...]) -> Array:
    x = jax.nn.relu(_convolution(boards, 32, 2))
    x = jax.nn.relu(_convolution(x, 32, 1))
    return hk.nets.MLP(sizes, activate_final=True)(hk.Flatten()(x))


def _convolution(images: Array, channels: int, stride: int) -> Array:
    """A convolution of 2 x 2 cells, padded below and to the right, with a stride that divides the image's sides.

    It is patches times a matrix, as gradients of XLA's own convolutions in a loop are slow on CPU.
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (0, 2 - stride), (0, 2 - stride), (0, 0)))
    cells = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(2) for j in range(2)]
    return hk.Linear(channels)(jnp.concatenate(cells, -1))
