"""Wrappers: environments that change another one."""

import dataclasses
from typing import Any, NamedTuple

import dm_env
import jax.numpy as jnp
from acme import specs

from components.environments.base import Animator, SingleEnvironment, animator_of, restart
from components.types import Array


class DelayedRewardState(NamedTuple):
    """State of a `DelayedReward`.

    Attributes:
      environment: state of the environment itself.
      num_steps: since rewards were last paid, or the episode started. int32 scalar.
      owed: rewards of these steps, added up. Scalar.
    """

    environment: Any
    num_steps: Array
    owed: Array


@dataclasses.dataclass(frozen=True)
class DelayedReward:
    """Another environment whose rewards are held back, and paid as a sum every `delay` steps of an episode and at its end.

    Returns of whole episodes without discount stay what they are. Observations do too: they do not tell when it pays next. What
    outlasts the episodes of an environment that is `Lifelong` still does, and one that is `Drawable` still is.

    Args:
      environment: the other one.
      delay: steps, at least 1, which delays nothing.

    Raises:
      ValueError: if `delay` < 1.

    Source: Zheng et al. (2018), section 4, the MuJoCo tasks with a delay of 20.
    """

    environment: SingleEnvironment
    delay: int = 20

    def __post_init__(self):
        if self.delay < 1:
            raise ValueError(f'DelayedReward.delay must be at least 1, got {self.delay}')

    def spec(self) -> specs.EnvironmentSpec:
        spec = self.environment.spec()
        rewards = spec.rewards  # A sum can be out of bounds that hold for one reward.
        return spec._replace(rewards=specs.Array(rewards.shape, rewards.dtype, rewards.name))

    def reset(self, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        return _owing_nothing(*self.environment.reset(key))

    def restart(self, state: DelayedRewardState, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        return _owing_nothing(*restart(self.environment, state.environment, key))

    def step(self, state: DelayedRewardState, action: Array, key: Array) -> tuple[DelayedRewardState, dm_env.TimeStep]:
        own, timestep = self.environment.step(state.environment, action, key)
        num_steps, owed = state.num_steps + 1, state.owed + timestep.reward
        pays = (num_steps == self.delay) | timestep.last()
        state = DelayedRewardState(own, jnp.where(pays, 0, num_steps), jnp.where(pays, 0, owed))
        return state, timestep._replace(reward=jnp.where(pays, owed, 0))

    def animator(self) -> Animator:
        animate = animator_of(self.environment)
        return lambda states, path: animate([state.environment for state in states], path)


def _owing_nothing(own: Any, timestep: dm_env.TimeStep) -> tuple[DelayedRewardState, dm_env.TimeStep]:
    return DelayedRewardState(own, jnp.int32(0), jnp.zeros_like(timestep.reward)), timestep
