"""The agents of gin/grid_worlds/lpg.gin and their learned update rule as one function."""

from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax

from components.environments.batch import Batch
from components.types import Array
from tools.benchmarks.hand_written import parts

NUM_PREDICTIONS = 8


class Trajectory(NamedTuple):
    """`observations` are `[T+1, B, ...]`, the others `[T, B]`; where an environment restarts, `mask` is 0."""

    observations: Array
    actions: Array
    rewards: Array
    discounts: Array
    mask: Array


class Agent(NamedTuple):
    """One lifetime, as an update finds it."""

    tables: Any
    num_updates: Array
    actor: Any
    trajectory: Trajectory


class HandWrittenLPG:
    """The agents of gin/grid_worlds/lpg.gin: tabular, in lifetimes that end; reverse mode through `K` updates.

    Args:
      environment: a batch of the worlds.
      num_meta_steps: meta-steps in a `run`.
      num_lifetimes: `L`.
      unroll_length: `T`.
      num_inner_steps: `K`.
      lifetime_length: updates of a lifetime.

    Attributes:
      outer: the optimiser of the rule's weights.
      meta_step: `(eta, opt_state, agents [L], xs [L, K], act) -> eta, opt_state, agents, meta-gradient`, where
        `act(tables, actor, x)` gives the next actor and trajectory.
    """

    def __init__(
        self,
        environment: Batch,
        num_meta_steps: int,
        num_lifetimes: int = 32,
        unroll_length: int = 20,
        num_inner_steps: int = 5,
        lifetime_length: int = 500,
    ):
        num_actions = environment.spec().actions.num_values
        network, rule = parts.transformed(_tables(num_actions), _learned_rule)
        outer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3, eps_root=1e-8))

        def act(tables, actor, key):
            def step(actor, key):
                state, before = actor
                action_key, key = jax.random.split(key)
                action = jax.random.categorical(action_key, network.apply(tables, before.observation)[0])
                state, after = environment.step(state, action, key)
                mask = (~before.last()).astype(after.reward.dtype)
                return (state, after), (before.observation, action, after.reward, after.discount, mask)

            actor, (observations, *rest) = jax.lax.scan(step, actor, jax.random.split(key, unroll_length))
            return actor, Trajectory(jnp.concatenate([observations, actor[1].observation[None]]), *rest)

        def targets_of(eta, outputs, trajectory):
            logits, _, predictions = outputs
            probabilities = jnp.exp(_log_probability(logits[:-1], trajectory.actions))
            ends = (trajectory.discounts == 0) | (_next_mask(trajectory) == 0)
            return rule.apply(
                eta, trajectory.rewards, trajectory.discounts, probabilities, jax.nn.softmax(predictions), ends
            )

        def inner_loss(tables, targets, trajectory):
            logits, values, predictions = network.apply(tables, trajectory.observations)
            policy_target, log_prediction_target = targets
            returns = _returns(values, trajectory)
            log_y = jax.nn.log_softmax(predictions[:-1])
            divergence = (jnp.exp(log_y) * (log_y - log_prediction_target)).sum(-1)
            policy = -_log_probability(logits[:-1], trajectory.actions) * policy_target
            critic = jnp.square(returns - values[:-1])
            return _mean(policy + 0.5 * divergence + 0.02 * critic, trajectory)

        def update(eta, tables, trajectory):
            targets = targets_of(eta, network.apply(tables, trajectory.observations), trajectory)
            gradient = jax.grad(inner_loss)(tables, targets, trajectory)
            return jax.tree.map(lambda x, g: x - 40.0 * g, tables, gradient)

        def outer_loss(eta, tables, trajectory):
            logits, values, predictions = outputs = network.apply(tables, trajectory.observations)
            advantages = jax.lax.stop_gradient(_returns(values, trajectory) - values[:-1])
            policy = -_log_probability(logits[:-1], trajectory.actions) * advantages
            loss = policy - 0.05 * _entropy(logits[:-1]) - 0.001 * _entropy(predictions[:-1])
            policy_target, log_prediction_target = targets_of(eta, jax.lax.stop_gradient(outputs), trajectory)
            size = 0.005 * jnp.square(policy_target) + 0.001 * jnp.square(jnp.exp(log_prediction_target)).sum(-1)
            return _mean(loss + size, trajectory)

        def meta_loss(eta, agent, xs, act):
            def step(agent, x):
                tables = update(eta, agent.tables, agent.trajectory)
                actor, trajectory = act(jax.lax.stop_gradient(tables), agent.actor, x)
                return Agent(tables, agent.num_updates + 1, actor, trajectory), None

            agent, _ = jax.lax.scan(step, agent, xs)
            return outer_loss(eta, agent.tables, agent.trajectory), agent

        def meta_step(eta, opt_state, agents, xs, act):
            def mean_loss(eta):
                losses, found = jax.vmap(lambda agent, x: meta_loss(eta, agent, x, act))(agents, xs)
                return losses.mean(), found

            gradient, agents = jax.grad(mean_loss, has_aux=True)(eta)
            updates, opt_state = outer.update(gradient, opt_state)
            return optax.apply_updates(eta, updates), opt_state, agents, gradient

        def new_agent(key):
            keys = jax.random.split(key, 3)
            actor = environment.reset(keys[0])
            tables = network.init(keys[1], actor[1].observation)
            return Agent(tables, jnp.int32(0), *act(tables, actor, keys[2]))

        def renew(agents, key):
            is_over = agents.num_updates >= lifetime_length
            new = jax.vmap(new_agent)(jax.random.split(key, num_lifetimes))
            return jax.tree.map(lambda x, y: jax.vmap(jnp.where)(is_over, x, y), new, agents)

        def step(carry, key):
            eta, opt_state, agents = carry
            act_key, key = jax.random.split(key)
            keys = jax.random.split(act_key, (num_lifetimes, num_inner_steps))
            eta, opt_state, agents, _ = meta_step(eta, opt_state, agents, keys, act)
            is_any_over = (agents.num_updates >= lifetime_length).any()
            agents = jax.lax.cond(is_any_over, lambda: renew(agents, key), lambda: agents)
            return (eta, opt_state, agents), agents.trajectory.rewards.mean()

        def init(key):
            keys = jax.random.split(key, num_lifetimes + 1)
            ages = jnp.arange(num_lifetimes) * lifetime_length // num_lifetimes
            one = jnp.zeros((1, 1))
            eta = rule.init(keys[0], one, one, one, jnp.zeros((2, 1, NUM_PREDICTIONS)), one > 0)
            return eta, outer.init(eta), jax.vmap(new_agent)(keys[1:])._replace(num_updates=ages)

        self.outer, self.meta_step = outer, jax.jit(meta_step, static_argnames='act')
        self.run = parts.Run(init, step, num_meta_steps)


def _tables(num_actions: int) -> Any:
    """Logits, values and logits of predictions, linear in one-hot observations `[..., S]`."""

    def tables(observations):
        outputs = hk.Linear(num_actions + 1 + NUM_PREDICTIONS, with_bias=False)(observations)
        return outputs[..., :num_actions], outputs[..., num_actions], outputs[..., num_actions + 1 :]

    return tables


def _learned_rule(
    rewards: Array, discounts: Array, probabilities: Array, predictions: Array, ends: Array
) -> tuple[Array, Array]:
    """Targets of the policy `[T, B]` and log-targets of the predictions `[T, B, M]`, by an LSTM backwards in time."""
    embedded = hk.Linear(1, name='embedding')(jax.nn.relu(hk.Linear(16, name='hidden')(predictions)))[..., 0]
    inputs = jnp.stack([rewards, discounts, probabilities, embedded[:-1], discounts * embedded[1:]], -1)
    core = hk.ResetCore(hk.LSTM(64))
    hidden, _ = hk.dynamic_unroll(core, (inputs, ends), core.initial_state(rewards.shape[1]), reverse=True)
    predicted = hk.Linear(NUM_PREDICTIONS, name='prediction')(hidden)
    return hk.Linear(1, name='policy')(hidden)[..., 0], jax.nn.log_softmax(predicted)


def _returns(values: Array, trajectory: Trajectory) -> Array:
    """Returns with discount 0.99 and lambda 0.95 that end where an environment restarts; no gradient in the values."""
    traces = 0.95 * _next_mask(trajectory)
    returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, 1, None), out_axes=1)
    return returns(trajectory.rewards, 0.99 * trajectory.discounts, values[1:], traces, True)


def _next_mask(trajectory: Trajectory) -> Array:
    return jnp.concatenate([trajectory.mask[1:], jnp.ones_like(trajectory.mask[:1])])


def _log_probability(logits: Array, actions: Array) -> Array:
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]


def _entropy(logits: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def _mean(x: Array, trajectory: Trajectory) -> Array:
    return (x * trajectory.mask).sum() / jnp.maximum(trajectory.mask.sum(), 1)
