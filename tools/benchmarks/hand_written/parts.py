"""What the loops written by hand share: environments, acting, losses, and how they are run."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


def policy_loss(logits: Array, actions: Array, advantages: Array, entropy_cost: float | Array) -> Array:
    """Policy gradient and entropy bonus, of logits `[T, B, A]`."""
    log_pi = jax.nn.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
    entropy = -(jnp.exp(log_pi) * log_pi).sum(-1)
    return -(log_prob * advantages).mean() - entropy_cost * entropy.mean()


def episode_totals(trajectory: Trajectory) -> tuple[Array, Array]:
    """Sum of rewards, and number of episodes that ended: what a loop reports of its progress."""
    return trajectory.rewards.sum(), (trajectory.discounts == 0).sum()


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
