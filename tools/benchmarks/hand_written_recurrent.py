"""The agent of gin/bandits/independent.gin as one function, with nothing that could be exchanged."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
import rlax


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
