"""Agents whose discount is learned by meta-gradients, as one function each: on Snake with an outer critic, on Catch.

One inner update, then an outer loss on the trajectory that the next update learns from; in reverse mode through it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from components.types import Array
from tools.benchmarks.hand_written import networks, parts


class Agent(NamedTuple):
    """What an update starts from."""

    params: Any
    opt_state: Any
    actor: Any
    trajectory: parts.Trajectory


class Carry(NamedTuple):
    """What a meta-step starts from.

    `eta` is the discount's logit. The outer critic has learned from the agent's trajectory already.
    """

    eta: Array
    eta_state: Any
    critic: Any
    critic_state: Any
    agent: Agent


class HandWrittenMetaDiscount:
    """An actor-critic and its learned discount.

    The outer critic has one forward pass on a trajectory, which serves the outer loss and its own gradient.

    Args:
      environments: to act in.
      network: `(observations [N, ...]) -> logits, values`, of haiku.
      outer_critic: `(observations [N, ...]) -> values`, of haiku. None: the outer loss bootstraps from the agent's own.
      outer_value_cost: of the squared error in the outer loss: of the outer critic, which learns from it, or of the
        agent's own.
      num_meta_steps: meta-steps in a `run`.
      unroll_length: `T`.
      bootstrap_apart: see `networks.predict`.

    Attributes:
      start: `(params, critic_params, actor, trajectory) -> Carry`, of weights that have learned nothing.
      meta_step: `(Carry, x, act) -> Carry, meta-gradient`, where `act(params, actor, x)` gives the next actor and
        trajectory.
    """

    def __init__(
        self,
        environments: parts.Environments,
        network: Callable[[Array], Any],
        outer_critic: Callable[[Array], Array] | None,
        outer_value_cost: float,
        num_meta_steps: int,
        unroll_length: int,
        bootstrap_apart: bool = False,
    ):
        net, critic = networks.transformed(network, outer_critic or (lambda x: x))
        inner = optax.rmsprop(5e-4, decay=0.9)
        outer = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(3e-3, eps_root=1e-8))

        def inner_loss(params, discount, trajectory):
            observations, actions, rewards, discounts = trajectory
            logits, values = networks.predict(net.apply, params, observations, bootstrap_apart)
            fixed = jax.lax.stop_gradient(values)
            targets = parts.lambda_returns(rewards, discount * discounts, fixed[1:], 0.95, False)
            value = jnp.square(targets - values[:-1]).mean()
            return parts.policy_loss(logits[:-1], actions, targets - fixed[:-1], 0.01) + 0.5 * value

        def outer_loss(params, critic_params, trajectory):
            observations, actions, rewards, discounts = trajectory
            logits, values = networks.predict(net.apply, params, observations, bootstrap_apart)
            if outer_critic:
                values = networks.predict(critic.apply, critic_params, observations, bootstrap_apart)
            targets = parts.lambda_returns(rewards, discounts, values[1:], 1.0, True)
            value = jnp.square(targets - values[:-1]).mean()
            advantages = jax.lax.stop_gradient(targets - values[:-1])
            return parts.policy_loss(logits[:-1], actions, advantages, 0.0) + outer_value_cost * value

        def meta_loss(eta, critic_params, agent, x, act):
            gradient = jax.grad(inner_loss)(agent.params, jax.nn.sigmoid(eta), agent.trajectory)
            updates, opt_state = inner.update(gradient, agent.opt_state)
            params = optax.apply_updates(agent.params, updates)
            actor, trajectory = act(jax.lax.stop_gradient(params), agent.actor, x)
            return outer_loss(params, critic_params, trajectory), Agent(params, opt_state, actor, trajectory)

        def meta_step(carry, x, act):
            gradients, agent = jax.grad(meta_loss, (0, 1), has_aux=True)(carry.eta, carry.critic, carry.agent, x, act)
            updates, eta_state = outer.update(gradients[0], carry.eta_state)
            critic_updates, critic_state = inner.update(gradients[1], carry.critic_state)
            critic_params = optax.apply_updates(carry.critic, critic_updates)
            eta = optax.apply_updates(carry.eta, updates)
            return Carry(eta, eta_state, critic_params, critic_state, agent), gradients[0]

        def start(params, critic_params, actor, trajectory):
            critic_state = inner.init(critic_params)
            gradient = jax.grad(outer_loss, argnums=1)(params, critic_params, trajectory)
            updates, critic_state = inner.update(gradient, critic_state)
            critic_params = optax.apply_updates(critic_params, updates)
            eta = jnp.asarray(math.log(4), jnp.result_type(float))  # A discount of 0.8.
            agent = Agent(params, inner.init(params), actor, trajectory)
            return Carry(eta, outer.init(eta), critic_params, critic_state, agent)

        def act(params, actor, key):
            keys = jax.random.split(key, unroll_length)
            return parts.unroll(environments, lambda *args: net.apply(*args)[0], params, actor, keys)

        def step(carry, key):
            carry, _ = meta_step(carry, key, act)
            return carry, parts.episode_totals(carry.agent.trajectory)

        def init(key):
            keys = jax.random.split(key, 4)
            actor = environments.reset(keys[0])
            params, critic_params = net.init(keys[1], actor[1]), critic.init(keys[2], actor[1])
            return start(params, critic_params, *act(params, actor, keys[3]))

        self.start, self.meta_step = jax.jit(start), jax.jit(meta_step, static_argnames='act')
        self.run = parts.Run(init, step, num_meta_steps)


def on_snake(environment: Any, num_meta_steps: int, **options: Any) -> HandWrittenMetaDiscount:
    """gin/snake/meta_discount_outer_critic.gin, of jumanji's Snake."""
    critic = networks.snake_critic

    def network(boards: Array) -> tuple[Array, Array]:
        return networks.snake_policy(boards), critic(boards)

    return HandWrittenMetaDiscount(parts.snake(environment, 512), network, critic, 0.5, num_meta_steps, 5, **options)


def on_catch(num_meta_steps: int, **options: Any) -> HandWrittenMetaDiscount:
    """gin/catch/meta_discount.gin."""
    catch = parts.catch(5, 64)
    return HandWrittenMetaDiscount(catch, networks.catch_network, None, 0.25, num_meta_steps, 10, **options)
