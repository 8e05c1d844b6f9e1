"""The agent of gin/snake/actor_critic.gin as one function, with nothing that could be exchanged."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax

from components.networks.convolutions import Convolution2D


class HandWrittenActorCritic:
    """The agent of gin/snake/actor_critic.gin as one function, with nothing that could be exchanged.

    Args:
      environment: jumanji's Snake.
      num_updates: updates in a `run`.
    """

    def __init__(self, environment: Any, num_updates: int):
        reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)
        network: Any = hk.without_apply_rng(hk.transform(_snake_network))
        optimiser = optax.rmsprop(5e-4, decay=0.9)
        num_envs, unroll_length = 512, 5
        lambda_returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None), out_axes=1)

        def act(params, carry, key):
            state, board = carry
            action_key, reset_key = jax.random.split(key)
            action = jax.random.categorical(action_key, network.apply(params, board)[0])
            stepped, timestep = step(state, action)
            fresh, first = reset(jax.random.split(reset_key, num_envs))

            def select(x, y):
                return jnp.where(timestep.last().reshape(-1, *[1] * (x.ndim - 1)), x, y)

            carry = jax.tree.map(select, (fresh, first.observation.grid), (stepped, timestep.observation.grid))
            ended = timestep.last().sum()
            return carry, (board, action, timestep.reward, timestep.discount, ended)

        def loss(params, boards, actions, rewards, discounts):
            logits, values = jax.tree.map(
                lambda x: x.reshape(unroll_length + 1, num_envs, -1),
                network.apply(params, boards.reshape(-1, *boards.shape[2:])),
            )
            values = values[..., 0]
            targets = jax.lax.stop_gradient(lambda_returns(rewards, 0.8 * discounts, values[1:], 0.95))
            log_pi = jax.nn.log_softmax(logits[:-1])
            log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
            policy = -(log_prob * jax.lax.stop_gradient(targets - values[:-1])).mean()
            value = jnp.square(targets - values[:-1]).mean()
            entropy = -(jnp.exp(log_pi) * log_pi).sum(-1).mean()
            return policy + 0.5 * value - 0.01 * entropy

        def update(carry, key):
            params, opt_state, actor = carry
            actor, (boards, actions, rewards, discounts, ended) = jax.lax.scan(
                lambda actor, key: act(params, actor, key), actor, jax.random.split(key, unroll_length)
            )
            boards = jnp.concatenate([boards, actor[1][None]])
            gradient = jax.grad(loss)(params, boards, actions, rewards, discounts)
            updates, opt_state = optimiser.update(gradient, opt_state)
            return (optax.apply_updates(params, updates), opt_state, actor), (rewards.sum(), ended.sum())

        def run(carry, key):
            carry, (rewards, ended) = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
            return carry, rewards.sum() / ended.sum()

        key = jax.random.key(0)
        state, timestep = reset(jax.random.split(key, num_envs))
        params = network.init(key, timestep.observation.grid)
        carry = (params, optimiser.init(params), (state, timestep.observation.grid))
        self._carry = jax.tree.map(jnp.copy, carry)  # Donated: no buffer may be in it twice.
        self._run = jax.jit(run, donate_argnums=0)
        self._key = key

    def run(self) -> float:
        """Trains for `num_updates`; mean reward per episode."""
        self._key, key = jax.random.split(self._key)
        self._carry, episode_return = self._run(self._carry, key)
        return float(jax.block_until_ready((self._carry, episode_return))[1])


def _snake_network(boards):
    """Logits and values of Snake boards `[N, 6, 6, 5]`."""

    def torso(sizes):
        x = jax.nn.relu(Convolution2D(32, 2, 2, 'SAME')(boards))
        x = jax.nn.relu(Convolution2D(32, 2, 1, 'SAME')(x))
        return hk.nets.MLP(sizes, activate_final=True)(hk.Flatten()(x))

    return hk.Linear(4)(torso((64, 64))), hk.Linear(1)(torso((128, 128)))
