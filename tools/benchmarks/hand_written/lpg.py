"""The agents of gin/grid_worlds/lpg.gin and their learned update rule as one function."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from components.environments.batch import Batch
from components.types import Array
from tools.benchmarks.hand_written import lpg_parts, networks, parts


class Agent(NamedTuple):
    """One lifetime, as an update finds it."""

    tables: Any
    num_updates: Array
    actor: Any
    trajectory: lpg_parts.Trajectory


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
        network, rule = networks.transformed(lpg_parts.tables(num_actions), lpg_parts.learned_rule)
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
            return actor, lpg_parts.Trajectory(jnp.concatenate([observations, actor[1].observation[None]]), *rest)

        def targets_of(eta, outputs, trajectory):
            logits, _, predictions = outputs
            probabilities = jnp.exp(lpg_parts.log_probability(logits[:-1], trajectory.actions))
            ends = (trajectory.discounts == 0) | (lpg_parts.next_mask(trajectory) == 0)
            return rule.apply(
                eta, trajectory.rewards, trajectory.discounts, probabilities, jax.nn.softmax(predictions), ends
            )

        def inner_loss(tables, targets, trajectory):
            logits, values, predictions = network.apply(tables, trajectory.observations)
            policy_target, log_prediction_target = targets
            returns = lpg_parts.returns(values, trajectory)
            log_y = jax.nn.log_softmax(predictions[:-1])
            divergence = (jnp.exp(log_y) * (log_y - log_prediction_target)).sum(-1)
            policy = -lpg_parts.log_probability(logits[:-1], trajectory.actions) * policy_target
            critic = jnp.square(returns - values[:-1])
            return lpg_parts.mean(policy + 0.5 * divergence + 0.02 * critic, trajectory)

        def update(eta, tables, trajectory):
            targets = targets_of(eta, network.apply(tables, trajectory.observations), trajectory)
            gradient = jax.grad(inner_loss)(tables, targets, trajectory)
            return jax.tree.map(lambda x, g: x - 40.0 * g, tables, gradient)

        def outer_loss(eta, tables, trajectory):
            logits, values, predictions = outputs = network.apply(tables, trajectory.observations)
            advantages = jax.lax.stop_gradient(lpg_parts.returns(values, trajectory) - values[:-1])
            policy = -lpg_parts.log_probability(logits[:-1], trajectory.actions) * advantages
            loss = policy - 0.05 * lpg_parts.entropy(logits[:-1]) - 0.001 * lpg_parts.entropy(predictions[:-1])
            policy_target, log_prediction_target = targets_of(eta, jax.lax.stop_gradient(outputs), trajectory)
            size = 0.005 * jnp.square(policy_target) + 0.001 * jnp.square(jnp.exp(log_prediction_target)).sum(-1)
            return lpg_parts.mean(loss + size, trajectory)

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
            eta = rule.init(keys[0], one, one, one, jnp.zeros((2, 1, lpg_parts.NUM_PREDICTIONS)), one > 0)
            return eta, outer.init(eta), jax.vmap(new_agent)(keys[1:])._replace(num_updates=ages)

        self.outer, self.meta_step = outer, jax.jit(meta_step, static_argnames='act')
        self.run = parts.Run(init, step, num_meta_steps)
