"""Episodes of an agent on the host, played through acme's environment loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import acme
import dm_env
import jax
import numpy as np
from acme import specs
from acme.utils.loggers.dataframe import InMemoryLogger
from jaxtyping import PyTree

from agents.learner import Learner


class Episode(NamedTuple):
    """One episode: its undiscounted return, and its length in environment steps."""

    episode_return: float
    episode_length: int


class SeedVariables(acme.VariableSource):
    """The weights of the first lifetime of any seed of a learner, which itself serves those of the first seed.

    Args:
      learner: whose weights.

    Attributes:
      seed: which seed, counted from 0; can be changed, which actors learn of when they are updated.
    """

    def __init__(self, learner: Learner):
        self._learner, self.seed = learner, 0

    def get_variables(self, names: list[str]) -> list[PyTree]:
        variables = {'params': jax.tree.map(lambda x: x[self.seed, 0], self._learner.state.agents.params)}
        return [variables[name] for name in names]


class TimeLimit(dm_env.Environment):
    """An environment whose episodes end when they do, or else after a number of steps, as truncations.

    Args:
      environment: whose episodes may be longer, or never end.
      max_episode_length: in environment steps.
      watch: called after every reset and step.

    Raises:
      ValueError: if `max_episode_length` < 1.
    """

    def __init__(
        self, environment: dm_env.Environment, max_episode_length: int, watch: Callable[[], None] = lambda: None
    ):
        if max_episode_length < 1:
            raise ValueError(f'max_episode_length must be at least 1, got {max_episode_length}')
        self._environment, self._max_episode_length, self._watch = environment, max_episode_length, watch
        self._length = 0

    def reset(self) -> dm_env.TimeStep:
        return self._watched(self._environment.reset())

    def step(self, action: PyTree) -> dm_env.TimeStep:
        if self._length >= self._max_episode_length:
            return self.reset()
        return self._watched(self._environment.step(action))

    def observation_spec(self) -> PyTree:
        return self._environment.observation_spec()

    def action_spec(self) -> specs.Array:
        return self._environment.action_spec()

    def reward_spec(self) -> specs.Array:
        return self._environment.reward_spec()

    def discount_spec(self) -> specs.Array:
        return self._environment.discount_spec()

    def close(self) -> None:
        self._environment.close()

    def _watched(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        self._watch()
        self._length = 0 if timestep.first() else self._length + 1
        over = self._length >= self._max_episode_length
        return timestep._replace(step_type=dm_env.StepType.LAST) if over else timestep


def rollout(environment: dm_env.Environment, actor: acme.Actor, num_episodes: int) -> list[Episode]:
    """Plays episodes with an actor that is told what happens, but not to update itself."""
    log = InMemoryLogger()
    acme.EnvironmentLoop(environment, actor, logger=log, should_update=False).run(num_episodes)
    return [Episode(float(row['episode_return']), row['episode_length']) for row in log.data]


def summarise(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over episodes, and the standard error of that of the return; NaN for one episode."""
    returns, lengths = np.array(episodes, float).T
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else np.nan
    return {
        'episodes': len(episodes),
        'episode_return': returns.mean(),
        'standard_error': error,
        'episode_length': lengths.mean(),
    }
