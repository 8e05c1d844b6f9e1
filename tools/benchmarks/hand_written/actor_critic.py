"""The agent of gin/snake/actor_critic.gin as one function, with nothing that could be exchanged."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tools.benchmarks.hand_written import networks, parts


class HandWrittenActorCritic:
    """The agent of gin/snake/actor_critic.gin.

    Args:
      environment: jumanji's Snake.
      num_updates: updates in a `run`.
      outer_critic: whether to train the critic of an outer loss as well, which the agent has no use for. The code of
        Bonnet et al. (2022) does so in the arms without meta-gradients, too.
      bootstrap_apart: see `networks.predict`.
      num_envs: environments, `B`.
      unroll_length: `T`.
    """

    def __init__(
        self,
        environment: Any,
        num_updates: int,
        outer_critic: bool = False,
        bootstrap_apart: bool = False,
        num_envs: int = 512,
        unroll_length: int = 5,
    ):
        environments = parts.snake(environment, num_envs)
        policy, critic = networks.transformed(networks.snake_policy, networks.snake_critic)
        optimiser = optax.rmsprop(5e-4, decay=0.9)

        def predict(params, boards):
            return {name: (critic if name != 'policy' else policy).apply(params[name], boards) for name in params}

        def value_loss(values, rewards, discounts, lambda_):
            targets = parts.lambda_returns(rewards, discounts, values[1:], lambda_, True)
            return jnp.square(targets - values[:-1]).mean(), jax.lax.stop_gradient(targets - values[:-1])

        def loss(params, trajectory):
            boards, actions, rewards, discounts = trajectory
            outputs = networks.predict(predict, params, boards, bootstrap_apart)
            value, advantages = value_loss(outputs['critic'], rewards, 0.8 * discounts, 0.95)
            total = parts.policy_loss(outputs['policy'][:-1], actions, advantages, 0.01) + 0.5 * value
            if outer_critic:
                total += 0.5 * value_loss(outputs['outer_critic'], rewards, discounts, 1.0)[0]
            return total

        def learn(params, opt_state, trajectory):
            updates, opt_state = optimiser.update(jax.grad(loss)(params, trajectory), opt_state)
            return optax.apply_updates(params, updates), opt_state

        def update(carry, key):
            params, opt_state, actor = carry
            keys = jax.random.split(key, unroll_length)
            actor, trajectory = parts.unroll(environments, policy.apply, params['policy'], actor, keys)
            return (*learn(params, opt_state, trajectory), actor), parts.episode_totals(trajectory)

        def init(key):
            keys = jax.random.split(key, 4)
            actor = environments.reset(keys[0])
            params = {'policy': policy.init(keys[1], actor[1]), 'critic': critic.init(keys[2], actor[1])}
            if outer_critic:
                params['outer_critic'] = critic.init(keys[3], actor[1])
            return params, optimiser.init(params), actor

        self.learn = jax.jit(learn)
        self.run = parts.Run(init, update, num_updates)
