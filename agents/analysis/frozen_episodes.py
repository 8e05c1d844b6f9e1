"""Whole episodes of agents with frozen weights, in tasks that baselines can be given too."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from agents.analysis.meta_rl.bandit_policies import episode_keys
from components.acting.action_distributions import select_action
from components.acting.policies import Policy
from components.axes import tree_where
from components.environments.base import Environment
from components.environments.wrappers import unwrapped
from components.networks.network import NetworkFunctions
from components.types import Array, CoreState, Params

_Carry = tuple[PyTree, dm_env.TimeStep, CoreState]
"""State of the environments, their latest timestep, and the network's recurrent state."""


class FrozenEpisodes(NamedTuple):
    """What `N` episodes of `T` steps came to.

    Attributes:
      states: of the innermost environment, before each step and after the last, leaves `[T+1, N, ...]`.
      actions: int32 `[T, N]`.
      rewards: `[T, N]`.
      played: whether a step belongs to the episode, bool `[T, N]`: nothing changes any more once it has ended.
    """

    states: PyTree
    actions: Array
    rewards: Array
    played: Array


class Recorder:
    """Plays episodes of up to `num_steps` steps, each from its own start.

    What an agent has in its recurrent state is reset at that start and nowhere else. Environment `i` is reset with key
    `i` of `meta_rl.bandit_policies.episode_keys`, so that policies that play there with the same key are given the
    same tasks.

    Args:
      environment: wrapped as the network wants it.
      network: of the agent.
      policy: what actions are drawn from.
      num_steps: of the longest episode, `T`.
      greedy: whether to take the most probable action instead of drawing one.
    """

    def __init__(
        self,
        environment: Environment,
        network: NetworkFunctions,
        policy: Policy,
        num_steps: int,
        greedy: bool = False,
    ):
        self._environment, self._network, self._policy = environment, network, policy
        self._num_steps, self._greedy = num_steps, greedy
        self._play = jax.jit(self._episodes, static_argnums=2)

    def __call__(self, params: Params, key: Array, num_episodes: int) -> FrozenEpisodes:
        """Plays `num_episodes`; NumPy arrays."""
        return jax.device_get(self._play(params, key, num_episodes))

    def _episodes(self, params: Params, key: Array, num_episodes: int) -> FrozenEpisodes:
        reset_keys, key = episode_keys(key, num_episodes)
        start, timestep = jax.vmap(self._environment.reset)(reset_keys)

        def step(carry: _Carry, key: Array) -> tuple[_Carry, tuple[PyTree, Array, Array, Array]]:
            state, timestep, core_state = carry
            action_key, step_key = jax.random.split(key)
            outputs, core_state = self._network.step(params, timestep.observation, timestep.first(), core_state)
            action = select_action(self._policy(outputs, (num_episodes,)), action_key, self._greedy)
            played = ~timestep.last()
            stepped = jax.vmap(self._environment.step)(state, action, jax.random.split(step_key, num_episodes))
            state, timestep = tree_where(played, stepped, (state, timestep))
            return (state, timestep, core_state), (self._innermost(state), action, played * timestep.reward, played)

        carry = start, timestep, self._network.initial_state(num_episodes)
        _, (states, *others) = jax.lax.scan(step, carry, jax.random.split(key, self._num_steps))
        states = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), self._innermost(start), states)
        return FrozenEpisodes(states, *others)

    def _innermost(self, state: PyTree) -> PyTree:
        return unwrapped(self._environment, state)[1]
