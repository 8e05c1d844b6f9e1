"""Recorded episodes of networks that do what a function says."""

import jax
import jax.numpy as jnp

from agents.analysis.frozen_episodes import Recorder
from components.acting.policies import Softmax
from components.networks.network import NetworkFunctions

KEY = jax.random.key(3)


def scripted(choose, initial, num_actions):
    """A network whose logits are those that `choose(state, observation, first) -> action, state` asks for, with
    certainty."""

    def step(params, observation, first, core_state):
        state = jax.tree.map(lambda s, x: jnp.where(first.reshape(-1, *[1] * (x.ndim - 1)), s, x), initial, core_state)
        action, state = jax.vmap(choose)(state, observation)
        return {'logits': 1e9 * jax.nn.one_hot(action, num_actions)}, state

    def initial_state(batch_size):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *x.shape)), initial)

    return NetworkFunctions(lambda key: (), initial_state, step, None)


def record(environment, choose, initial, num_actions, num_steps, num_episodes):
    network = scripted(choose, initial, num_actions)
    return Recorder(environment, network, Softmax(), num_steps)((), KEY, num_episodes)


def win_stay(arm, observation):
    """Repeats what paid, else takes the other arm; starts with arm 0."""
    paid, pulled = observation['previous_reward'][0] > 0, observation['previous_action'].sum() > 0
    arm = jnp.where(pulled & ~paid, 1 - arm, arm)
    return arm, arm
