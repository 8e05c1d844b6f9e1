"""The agent of gin/catch/frodo.gin as one function, with nothing that could be exchanged."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax

from components.environments.batch import Batch
from components.environments.catch import Catch

ENTROPY_COST = 0.005


class HandWrittenFRODO:
    """The agent of gin/catch/frodo.gin.

    Args:
      num_meta_steps: meta-steps in a `run`.
    """

    def __init__(self, num_meta_steps: int):
        environment, num_envs = Batch(Catch(10, 9), 64), 64
        network: Any = hk.without_apply_rng(hk.transform(_catch_network))
        target_network: Any = hk.without_apply_rng(hk.transform(_target_network))
        inner = optax.chain(optax.scale_by_adam(eps_root=1e-8), optax.scale(-5e-4))
        outer = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-3, eps_root=1e-8))
        lambda_returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None, None), out_axes=1)

        def act(params, actor, key, num_steps):
            def step(actor, key):
                state, board = actor
                action_key, key = jax.random.split(key)
                action = jax.random.categorical(action_key, network.apply(params, board)[0])
                state, timestep = environment.step(state, action, key)
                return (state, timestep.observation), (board, action, timestep.reward, timestep.discount)

            actor, (boards, *rest) = jax.lax.scan(step, actor, jax.random.split(key, num_steps))
            return actor, (jnp.concatenate([boards, actor[1][None]]), *rest)

        def loss(params, targets, advantages, trajectory, entropy_cost):
            boards, actions, *_ = trajectory
            logits, values = network.apply(params, boards[:-1])
            log_pi = jax.nn.log_softmax(logits)
            log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
            entropy = -(jnp.exp(log_pi) * log_pi).sum(-1)
            return (-log_prob * advantages + 0.5 * jnp.square(targets - values) - entropy_cost * entropy).mean()

        def update(eta, params, opt_state, trajectory):
            boards, _, rewards, discounts = trajectory
            values = network.apply(params, boards)[1]
            targets = target_network.apply(eta, rewards, discounts, discounts * values[1:])
            gradient = jax.grad(loss)(params, targets, targets - values[:-1], trajectory, ENTROPY_COST)
            updates, opt_state = inner.update(gradient, opt_state)
            return optax.apply_updates(params, updates), opt_state

        def meta_loss(eta, params, opt_state, actor, trajectory, key):
            def step(carry, key):
                params, opt_state, actor, trajectory = carry
                params, opt_state = update(eta, params, opt_state, trajectory)
                return (params, opt_state, *act(jax.lax.stop_gradient(params), actor, key, 2)), None

            key, validation_key = jax.random.split(key)
            carry, _ = jax.lax.scan(step, (params, opt_state, actor, trajectory), jax.random.split(key, 5))
            params, opt_state, actor, trajectory = carry
            actor, validation = act(jax.lax.stop_gradient(params), actor, validation_key, 20)
            boards, _, rewards, discounts = validation
            values = jax.lax.stop_gradient(network.apply(params, boards)[1])
            targets = lambda_returns(rewards, discounts, values[1:], 1.0, False)
            outer_loss = loss(params, targets, targets - values[:-1], validation, 0.0)
            return outer_loss, (params, opt_state, actor, trajectory)

        def meta_step(carry, key):
            eta, outer_state, agent = carry
            gradient, agent = jax.grad(meta_loss, has_aux=True)(eta, *agent, key)
            updates, outer_state = outer.update(gradient, outer_state)
            return (optax.apply_updates(eta, updates), outer_state, agent), None

        def run(carry, key):
            return jax.lax.scan(meta_step, carry, jax.random.split(key, num_meta_steps))[0]

        key = jax.random.key(0)
        state, timestep = environment.reset(key)
        params = network.init(key, timestep.observation)
        actor, trajectory = act(params, (state, timestep.observation), key, 2)
        one = jnp.zeros((1, num_envs))
        eta = target_network.init(key, one, one, one)
        carry = eta, outer.init(eta), (params, inner.init(params), actor, trajectory)
        self._carry = jax.tree.map(jnp.copy, carry)
        self._run = jax.jit(run, donate_argnums=0)
        self._key = key

    def run(self) -> None:
        """Takes `num_meta_steps`."""
        self._key, key = jax.random.split(self._key)
        self._carry = jax.block_until_ready(self._run(self._carry, key))


def _catch_network(boards):
    """Logits and values of boards of Catch, `[..., 10, 9]`."""
    x = hk.nets.MLP((64, 64), activate_final=True)(boards.reshape(*boards.shape[:-2], -1))
    return hk.Linear(3)(x), hk.Linear(1)(x)[..., 0]


def _target_network(rewards, discounts, next_values):
    """Targets `[T, B]`, by an LSTM backwards in time."""

    def compress(x):
        return jnp.sign(x) * jnp.log1p(jnp.abs(x))

    core = hk.ResetCore(hk.LSTM(64))
    inputs = jnp.stack([compress(rewards), discounts, compress(next_values)], -1)
    hidden, _ = hk.dynamic_unroll(core, (inputs, discounts == 0), core.initial_state(rewards.shape[1]), reverse=True)
    return hk.Linear(1)(hidden)[..., 0]
