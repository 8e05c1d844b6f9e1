"""jumanji's environments."""

import os
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
from acme import specs
from jaxtyping import PyTree

from components.component import component
from components.environments.adapters.common import made_by, spec_of_reset
from components.environments.base import Animator, make_timestep
from components.environments.observations import entry_at
from components.types import Array


@component
class JumanjiEnvironment:
    """Any jumanji environment with a scalar reward and one discrete action.

    Args:
      environment: a `jumanji.Environment`, or the name of a registered one, `Snake-v1` say.
      observation: path of what the agent sees of the observation, for example `grid` of Snake, which leaves the
        action mask out, or `agent_position/row` of Maze. None hands over the observation whole.

    Raises:
      ValueError: if there is no such environment, the actions are not discrete, or the observation has no such entry.
    """

    environment: Any
    observation: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'environment', made_by(self.environment, 'jumanji'))
        for name in ('reset', 'step', 'action_spec'):
            if not hasattr(self.environment, name):
                raise ValueError(
                    f'JumanjiEnvironment.environment is no jumanji environment: a {type(self.environment).__name__} '
                    f'has no {name}'
                )
        if not hasattr(self.environment.action_spec, 'num_values') or self.environment.action_spec.shape != ():
            raise ValueError(f'JumanjiEnvironment: {self.environment.action_spec} is not one discrete action')
        observation = jax.eval_shape(self.environment.reset, jax.random.key(0))[1].observation
        if self.observation is not None:
            entry_at(observation, self.observation, 'JumanjiEnvironment.observation')

    def spec(self) -> specs.EnvironmentSpec:
        described = (
            None if self.observation is None else getattr(self.environment.observation_spec, self.observation, None)
        )
        return spec_of_reset(self.reset, int(self.environment.action_spec.num_values), described)

    def reset(self, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        state, timestep = self.environment.reset(key)
        return state, self._timestep(timestep)

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        del key  # A jumanji state carries its own.
        state, timestep = self.environment.step(state, action)
        return state, self._timestep(timestep)

    def animator(self) -> Animator:
        if not hasattr(self.environment, 'animate'):
            raise ValueError(f'jumanji has no drawing of {type(self.environment).__name__}')
        import matplotlib  # Imported here: only drawing needs it.

        matplotlib.use('Agg')

        def animate(states: Sequence[PyTree], path: str | os.PathLike) -> None:
            with matplotlib.rc_context({'animation.writer': 'pillow', 'savefig.dpi': 50}):
                self.environment.animate(states, save_path=str(path))

        return animate

    def _timestep(self, timestep: Any) -> dm_env.TimeStep:
        observation = timestep.observation
        if self.observation is not None:
            observation = entry_at(observation, self.observation, 'JumanjiEnvironment.observation')
        return make_timestep(
            observation, timestep.reward, timestep.discount, first=timestep.first(), last=timestep.last()
        )
