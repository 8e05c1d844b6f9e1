"""The agent of gin/catch/frodo.gin as one function, with nothing that could be exchanged."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from tools.benchmarks.hand_written import networks, parts

ENTROPY_COST = 0.005


class HandWrittenFRODO:
    """The agent of gin/catch/frodo.gin.

    Args:
      num_meta_steps: meta-steps in a `run`.
    """

    def __init__(self, num_meta_steps: int):
        num_envs = 64
        environments = parts.catch(9, num_envs)
        network, target_network = networks.transformed(networks.catch_network, _target_network)
        inner = optax.chain(optax.scale_by_adam(eps_root=1e-8), optax.scale(-5e-4))
        outer = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-3, eps_root=1e-8))

        def act(params, actor, key, num_steps):
            keys = jax.random.split(key, num_steps)
            return parts.unroll(environments, lambda *args: network.apply(*args)[0], params, actor, keys)

        def loss(params, targets, advantages, trajectory, entropy_cost):
            boards, actions, *_ = trajectory
            logits, values = network.apply(params, boards[:-1])
            value = 0.5 * jnp.square(targets - values).mean()
            return parts.policy_loss(logits, actions, advantages, entropy_cost) + value

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
            targets = parts.lambda_returns(rewards, discounts, values[1:], 1.0, False)
            outer_loss = loss(params, targets, targets - values[:-1], validation, 0.0)
            return outer_loss, (params, opt_state, actor, trajectory)

        def meta_step(carry, key):
            eta, outer_state, agent = carry
            gradient, agent = jax.grad(meta_loss, has_aux=True)(eta, *agent, key)
            updates, outer_state = outer.update(gradient, outer_state)
            return (optax.apply_updates(eta, updates), outer_state, agent), None

        def init(key):
            actor = environments.reset(key)
            params, one = network.init(key, actor[1]), jnp.zeros((1, num_envs))
            eta = target_network.init(key, one, one, one)
            return eta, outer.init(eta), (params, inner.init(params), *act(params, actor, key, 2))

        self.run = parts.Run(init, meta_step, num_meta_steps)


def _target_network(rewards, discounts, next_values):
    """Targets `[T, B]`, by an LSTM backwards in time."""

    def compress(x):
        return jnp.sign(x) * jnp.log1p(jnp.abs(x))

    core = hk.ResetCore(hk.LSTM(64))
    inputs = jnp.stack([compress(rewards), discounts, compress(next_values)], -1)
    hidden, _ = hk.dynamic_unroll(core, (inputs, discounts == 0), core.initial_state(rewards.shape[1]), reverse=True)
    return hk.Linear(1)(hidden)[..., 0]
