"""What the loops written by hand share: environments and networks of Snake and Catch, acting, and losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import rlax

from components.environments.batch import Batch
from components.environments.catch import Catch
from components.types import Array

lambda_returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None, None), out_axes=1)
"""`(rewards, discounts, next_values, lambda, stop)`, the first three `[T, B]`."""


class Environments(NamedTuple):
    """`B` environments that restart when an episode ends.

    Attributes:
      reset: `(key) -> state, observation [B, ...]`.
      step: `(state, action [B], key) -> (state, observation [B, ...]), reward [B], discount [B]`.
    """

    reset: Callable[..., Any]
    step: Callable[..., Any]


def snake(environment: Any, num_envs: int) -> Environments:
    """Snake of jumanji; what is seen is the grid alone."""
    reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)

    def start(key):
        state, timestep = reset(jax.random.split(key, num_envs))
        return state, timestep.observation.grid

    def step_or_restart(state, action, key):
        stepped, timestep = step(state, action)

        def select(x, y):
            return jnp.where(timestep.last().reshape(-1, *[1] * (x.ndim - 1)), x, y)

        state = jax.tree.map(select, start(key), (stepped, timestep.observation.grid))
        return state, timestep.reward, timestep.discount

    return Environments(start, step_or_restart)


def catch(columns: int, num_envs: int) -> Environments:
    """Catch of 10 rows, in the project's own batch."""
    batch = Batch(Catch(10, columns), num_envs)

    def reset(key):
        state, timestep = batch.reset(key)
        return state, timestep.observation

    def step(state, action, key):
        state, timestep = batch.step(state, action, key)
        return (state, timestep.observation), timestep.reward, timestep.discount

    return Environments(reset, step)


class Trajectory(NamedTuple):
    """`observations` are `[T+1, B, ...]`, the others `[T, B]`."""

    observations: Array
    actions: Array
    rewards: Array
    discounts: Array


def unroll(
    environments: Environments, policy: Callable[[Any, Array], Array], params: Any, actor: Any, keys: Array
) -> tuple[Any, Trajectory]:
    """Acts for a step with each key.

    Args:
      environments: to act in.
      policy: `(params, observation [B, ...]) -> logits [B, A]`.
      params: of the policy.
      actor: states and observations of the environments.
      keys: `[T]`.

    Returns:
      The next states and observations, and the trajectory.
    """

    def step(actor, key):
        state, observation = actor
        action_key, key = jax.random.split(key)
        action = jax.random.categorical(action_key, policy(params, observation)).astype(jnp.int32)
        actor, reward, discount = environments.step(state, action, key)
        return actor, (observation, action, reward, discount)

    actor, (observations, *rest) = jax.lax.scan(step, actor, keys)
    return actor, Trajectory(jnp.concatenate([observations, actor[1][None]]), *rest)


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


def policy_loss(logits: Array, actions: Array, advantages: Array, entropy_cost: float | Array) -> Array:
    """Policy gradient and entropy bonus, of logits `[T, B, A]`."""
    log_pi = jax.nn.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
    entropy = -(jnp.exp(log_pi) * log_pi).sum(-1)
    return -(log_prob * advantages).mean() - entropy_cost * entropy.mean()


def episode_totals(trajectory: Trajectory) -> tuple[Array, Array]:
    """Sum of rewards, and number of episodes that ended: what a loop reports of its progress."""
    return trajectory.rewards.sum(), (trajectory.discounts == 0).sum()


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


class Run:
    """A loop that goes on at each call.

    Args:
      init: `(key) -> carry`; what it starts from.
      step: `(carry, key) -> carry, metrics`; one iteration.
      length: iterations of a call.
    """

    def __init__(self, init: Callable[[Array], Any], step: Callable[..., Any], length: int):
        self._init, self._carry, self._key = jax.jit(init), None, jax.random.key(0)
        self.jitted = jax.jit(
            lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, length)), donate_argnums=0
        )

    def carry(self) -> Any:
        """What the next call starts from; it is used up by it."""
        if self._carry is None:
            self._carry = jax.tree.map(jnp.copy, self._init(self._key))  # Donated: no buffer may be in it twice.
        return self._carry

    def __call__(self) -> Any:
        """Takes the iterations; their metrics, leaves `[length, ...]`."""
        self._key, key = jax.random.split(self._key)
        self._carry, metrics = jax.block_until_ready(self.jitted(self.carry(), key))
        return metrics
