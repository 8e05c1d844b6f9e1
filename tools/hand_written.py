"""Agents as one function each, with nothing that could be exchanged: what tools/benchmark.py compares the learner
with.
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax

from components.environments.batch import Batch
from components.environments.catch import Catch
from components.networks.torsos import Convolution2D


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


class HandWrittenRecurrentActorCritic:
    """The agent of gin/bandits/independent.gin. All episodes start together, and are as long as what an update learns
    from.

    Args:
      num_envs: environments, `B`.
      num_updates: updates in a `run`.

    Attributes:
      learn: `(params, opt_state, num_updates, actions [T, B], rewards [T, B]) -> params, opt_state`, after
        `num_updates` updates.
      params: of the network.
    """

    def __init__(self, num_envs: int, num_updates: int):
        network: Any = hk.without_apply_rng(hk.transform(_bandit_network))
        optimiser = optax.adam(optax.linear_schedule(3e-3, 0.0, 7_500))
        entropy_cost = optax.linear_schedule(0.2, 0.0, 7_500)
        num_pulls = 100
        lambda_returns = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None), out_axes=1)

        def show(action, reward, time):
            """Inputs after a pull: the arm, what it paid, and for how long the episode has lasted."""
            time = jnp.broadcast_to(time / num_pulls, reward.shape)
            return jnp.concatenate([jax.nn.one_hot(action, 2), reward[..., None], time[..., None]], -1)

        def act(params, key):
            def pull(carry, key_and_time):
                state, inputs = carry
                key, time = key_and_time
                action_key, reward_key = jax.random.split(key)
                logits, _, state = network.apply(params, inputs, state)
                action = jax.random.categorical(action_key, logits)
                pays = jnp.take_along_axis(probabilities, action[:, None], 1)[:, 0]
                reward = jax.random.bernoulli(reward_key, pays).astype(jnp.float32)
                return (state, show(action, reward, time)), (action, reward)

            task_key, key = jax.random.split(key)
            probabilities = jax.random.uniform(task_key, (num_envs, 2))
            keys_and_times = jax.random.split(key, num_pulls), 1 + jnp.arange(num_pulls)
            return jax.lax.scan(pull, start, keys_and_times)[1]

        def loss(params, actions, rewards, entropy_cost):
            times = 1 + jnp.arange(num_pulls - 1)[:, None]
            state, first = start
            inputs = jnp.concatenate([first[None], show(actions[:-1], rewards[:-1], times)])
            logits, values, _ = network.apply(params, inputs, state)
            after = jnp.concatenate([values[1:], jnp.zeros((1, num_envs))])
            discounts = jnp.full_like(rewards, 0.8).at[-1].set(0)
            targets = jax.lax.stop_gradient(lambda_returns(rewards, discounts, after, 1.0))
            log_pi = jax.nn.log_softmax(logits)
            log_prob = jnp.take_along_axis(log_pi, actions[..., None], -1)[..., 0]
            policy = -(log_prob * jax.lax.stop_gradient(targets - values)).mean()
            value = jnp.square(targets - values).mean()
            entropy = -(jnp.exp(log_pi) * log_pi).sum(-1).mean()
            return policy + 0.25 * value - entropy_cost * entropy

        def learn(params, opt_state, num_updates, actions, rewards):
            gradient = jax.grad(loss)(params, actions, rewards, entropy_cost(num_updates))
            updates, opt_state = optimiser.update(gradient, opt_state)
            return optax.apply_updates(params, updates), opt_state

        def update(carry, key):
            params, opt_state, num_updates = carry
            actions, rewards = act(params, key)
            return (*learn(params, opt_state, num_updates, actions, rewards), num_updates + 1), rewards.sum(0).mean()

        def run(carry, key):
            carry, returns = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
            return carry, returns.mean()

        zeros = jnp.zeros((num_envs, 48))
        start = hk.LSTMState(zeros, zeros), jnp.zeros((num_envs, 4))
        key = jax.random.key(0)
        self.params = network.init(key, start[1], start[0])
        self.learn = jax.jit(learn)
        self._carry = jax.tree.map(jnp.copy, (self.params, optimiser.init(self.params), jnp.int32(0)))
        self._run = jax.jit(run, donate_argnums=0)
        self._key = key

    def run(self) -> float:
        """Trains for `num_updates`; mean reward per episode."""
        self._key, key = jax.random.split(self._key)
        self._carry, episode_return = self._run(self._carry, key)
        return float(jax.block_until_ready((self._carry, episode_return))[1])


def _bandit_network(inputs, state):
    """Logits, values and the next state of an LSTM, from one step `[B, 4]` or a sequence of them `[T, B, 4]`."""
    core = hk.LSTM(48)
    hidden, state = hk.dynamic_unroll(core, inputs, state) if inputs.ndim == 3 else core(inputs, state)
    return hk.Linear(2)(hidden), hk.Linear(1)(hidden)[..., 0], state


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


ENTROPY_COST = 0.005


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
