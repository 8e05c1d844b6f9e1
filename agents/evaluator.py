"""Evaluation of a learner on separate environments, compiled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from agents import processes
from agents.learner import Learner
from components.acting.actor import Actor, ActorState
from components.axes import over_axis
from components.environments.base import BatchedEnvironment, human_normalised, named_failures
from components.types import Array, Params

_Carry = tuple[int | Array, ActorState, Array, Array, Array]
"""Steps taken; where acting stands; and of each environment whether it plays on, its return and its length."""


class Evaluator:
    """Plays one episode in each of `B` environments with the weights frozen, drawing actions and then greedily.

    Args:
      learner: whose agents are evaluated.
      max_episode_length: steps after which an episode is cut off and scored as is.
      seed: of the episodes; apart from the seed of training.
      environment: in which; None for the agents' own.

    Raises:
      ValueError: if `max_episode_length` < 1.
    """

    def __init__(
        self, learner: Learner, max_episode_length: int, seed: int, environment: BatchedEnvironment | None = None
    ):
        if max_episode_length < 1:
            raise ValueError(f'max_episode_length must be at least 1, got {max_episode_length}')
        self._learner, self._max_episode_length = learner, max_episode_length
        self._environment = environment or learner.agent.environment
        self._key = jax.random.fold_in(jax.random.key(np.uint32(seed)), 0xE7A1)
        self._evaluate = processes.together(jax.jit(self._all_agents, out_shardings=learner.whole))

    def evaluate(self, number: int) -> dict[str, np.ndarray]:
        """Plays.

        Args:
          number: of this evaluation; another one draws other episodes.

        Returns:
          Mean return and length of an episode, and the share of episodes that were cut off, each an array `[S]`, for
          the `stochastic` and the `greedy` policy; mean human-normalised scores, too, in an environment that has some.
        """
        with named_failures(self._environment):
            states, row = self._evaluate(self._learner.state.agents.params, jax.random.fold_in(self._key, number))
            if not self._environment.is_pure:
                for state in states:
                    self._environment.close(jax.device_get(state))
            row = jax.device_get(row)
        for policy in ('stochastic', 'greedy'):
            scores = human_normalised(self._environment, row[f'{policy}/episode_return'])
            row |= {f'{policy}/{name}': score for name, score in scores.items()}
        return row

    def _all_agents(self, params: Params, key: Array) -> tuple[list[PyTree], dict[str, Array]]:
        row, states = {}, []
        for name, greedy in (('stochastic', False), ('greedy', True)):
            actor = Actor(self._environment, self._learner.network, self._learner.agent.policy, greedy)
            returns, lengths, cut_off, state = self._episodes(actor, params, jax.random.fold_in(key, greedy))
            row[f'{name}/episode_return'] = returns.mean((1, 2))
            row[f'{name}/episode_length'] = lengths.mean((1, 2))
            row[f'{name}/cut_off'] = cut_off.mean((1, 2))
            states.append(() if self._environment.is_pure else state)
        return states, row

    def _episodes(self, actor: Actor, params: Params, key: Array) -> tuple[Array, Array, Array, PyTree]:
        """Return and length of the first episode of each environment, and whether it was cut off, `[S, L, B]`; and the
        environments' last state.
        """
        init_key, key = jax.random.split(key)
        state = self._over_agents(actor.init)(self._keys(init_key))
        step = self._over_agents(actor.step)

        def go_on(carry: _Carry) -> Array:
            t, _, playing, *_ = carry
            return playing.any() & (t < self._max_episode_length)

        def play(carry: _Carry) -> _Carry:
            t, state, playing, returns, lengths = carry
            state, taken = step(params, state, self._keys(jax.random.fold_in(key, t)))
            returns = jnp.where(playing, taken.episode_return, returns)
            lengths = jnp.where(playing, taken.episode_length, lengths)
            return t + 1, state, playing & ~taken.ended, returns, lengths

        playing = jnp.ones(state.episode_return.shape, bool)
        carry: _Carry = (0, state, playing, state.episode_return, state.episode_length)
        _, state, playing, returns, lengths = jax.lax.while_loop(go_on, play, carry)
        return returns, lengths.astype(returns.dtype), playing.astype(returns.dtype), state.environment

    def _over_agents(self, function: Callable) -> Callable:
        return over_axis(over_axis(function, self._learner.agent.num_lifetimes), self._learner.num_replicas)

    def _keys(self, key: Array) -> Array:
        """One for each agent, `[S, L]`."""
        return jax.random.split(key, (self._learner.num_replicas, self._learner.agent.num_lifetimes))
