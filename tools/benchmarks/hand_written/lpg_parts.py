"""What the loop of LPG is made of: networks, returns and means along trajectories with masked steps."""

from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import rlax

from components.types import Array

NUM_PREDICTIONS = 8


class Trajectory(NamedTuple):
    """`observations` are `[T+1, B, ...]`, the others `[T, B]`; where an environment restarts, `mask` is 0."""

    observations: Array
    actions: Array
    rewards: Array
    discounts: Array
    mask: Array


def tables(num_actions: int) -> Any:
    """Logits, values and logits of predictions, linear in one-hot observations `[..., S]`."""

    def forward(observations):
        outputs = hk.Linear(num_actions + 1 + NUM_PREDICTIONS, with_bias=False)(observations)
        return outputs[..., :num_actions], outputs[..., num_actions], outputs[..., num_actions + 1 :]

    return forward


def learned_rule(
    rewards: Array, discounts: Array, probabilities: Array, predictions: Array, ends: Array
) -> tuple[Array, Array]:
    """Targets of the policy `[T, B]` and log-targets of the predictions `[T, B, M]`, by an LSTM backwards in time."""
    embedded = hk.Linear(1, name='embedding')(jax.nn.relu(hk.Linear(16, name='hidden')(predictions)))[..., 0]
    inputs = jnp.stack([rewards, discounts, probabilities, embedded[:-1], discounts * embedded[1:]], -1)
    core = hk.ResetCore(hk.LSTM(64))
    hidden, _ = hk.dynamic_unroll(core, (inputs, ends), core.initial_state(rewards.shape[1]), reverse=True)
    predicted = hk.Linear(NUM_PREDICTIONS, name='prediction')(hidden)
    return hk.Linear(1, name='policy')(hidden)[..., 0], jax.nn.log_softmax(predicted)


def returns(values: Array, trajectory: Trajectory) -> Array:
    """Returns with discount 0.99 and lambda 0.95 that end where an environment restarts; no gradient in the values."""
    traces = 0.95 * next_mask(trajectory)
    of_batch = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, 1, None), out_axes=1)
    return of_batch(trajectory.rewards, 0.99 * trajectory.discounts, values[1:], traces, True)


def next_mask(trajectory: Trajectory) -> Array:
    """Mask of the transition after each one; 1 after the last."""
    return jnp.concatenate([trajectory.mask[1:], jnp.ones_like(trajectory.mask[:1])])


def log_probability(logits: Array, actions: Array) -> Array:
    """Log-probability of each action taken, `[T, B]`."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]


def entropy(logits: Array) -> Array:
    """Entropy of a softmax."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def mean(x: Array, trajectory: Trajectory) -> Array:
    """Mean over the transitions that are not masked."""
    return (x * trajectory.mask).sum() / jnp.maximum(trajectory.mask.sum(), 1)
