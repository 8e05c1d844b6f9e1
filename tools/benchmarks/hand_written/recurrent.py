"""The agent of gin/bandits/independent.gin as one function, with nothing that could be exchanged."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from tools.benchmarks.hand_written.networks import transformed
from tools.benchmarks.hand_written.parts import Run, lambda_returns, policy_loss


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
        (network,) = transformed(_bandit_network)
        optimiser = optax.adam(optax.linear_schedule(3e-3, 0.0, 7_500))
        entropy_cost = optax.linear_schedule(0.2, 0.0, 7_500)
        num_pulls = 100

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
            targets = jax.lax.stop_gradient(lambda_returns(rewards, discounts, after, 1.0, False))
            policy = policy_loss(logits, actions, jax.lax.stop_gradient(targets - values), entropy_cost)
            return policy + 0.25 * jnp.square(targets - values).mean()

        def learn(params, opt_state, num_updates, actions, rewards):
            gradient = jax.grad(loss)(params, actions, rewards, entropy_cost(num_updates))
            updates, opt_state = optimiser.update(gradient, opt_state)
            return optax.apply_updates(params, updates), opt_state

        def update(carry, key):
            params, opt_state, num_updates = carry
            actions, rewards = act(params, key)
            return (*learn(params, opt_state, num_updates, actions, rewards), num_updates + 1), rewards.sum(0).mean()

        zeros = jnp.zeros((num_envs, 48))
        start = hk.LSTMState(zeros, zeros), jnp.zeros((num_envs, 4))
        self.params = network.init(jax.random.key(0), start[1], start[0])
        self.learn = jax.jit(learn)

        def init(key):
            params = network.init(key, start[1], start[0])
            return params, optimiser.init(params), jnp.int32(0)

        self.run = Run(init, update, num_updates)


def _bandit_network(inputs, state):
    """Logits, values and the next state of an LSTM, from one step `[B, 4]` or a sequence of them `[T, B, 4]`."""
    core = hk.LSTM(48)
    hidden, state = hk.dynamic_unroll(core, inputs, state) if inputs.ndim == 3 else core(inputs, state)
    return hk.Linear(2)(hidden), hk.Linear(1)(hidden)[..., 0], state
