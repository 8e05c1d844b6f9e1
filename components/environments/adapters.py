"""Environments of other libraries as `SingleEnvironment`s.

The adapters take environment objects, so a gin file imports only the library it uses.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.environments.base import Animator, make_timestep
from components.types import Array


def _spec(reset, num_actions: int) -> specs.EnvironmentSpec:
    """Spec of an environment whose observations are best known by looking at what its reset returns."""
    _, timestep = jax.eval_shape(reset, jax.random.key(0))
    return specs.EnvironmentSpec(
        observations=jax.tree.map(lambda leaf: specs.Array(leaf.shape, leaf.dtype), timestep.observation),
        actions=specs.DiscreteArray(num_actions, name='action'),
        rewards=specs.Array((), np.float32, 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )


@dataclasses.dataclass(frozen=True)
class JumanjiEnvironment:
    """Any jumanji environment with a scalar reward and one discrete action.

    Args:
      environment: a `jumanji.Environment`.
      observation: name of the observation's field that the agent sees, for example `grid` of Snake, which leaves the
        action mask out. None hands over the observation whole.

    Raises:
      ValueError: if the actions are not discrete, or the observation has no such field.
    """

    environment: Any
    observation: str | None = None

    def __post_init__(self):
        if not hasattr(self.environment.action_spec, 'num_values') or self.environment.action_spec.shape != ():
            raise ValueError(f'JumanjiEnvironment: {self.environment.action_spec} is not one discrete action')
        if self.observation is not None:
            fields = jax.eval_shape(self.environment.reset, jax.random.key(0))[1].observation._fields
            if self.observation not in fields:
                raise ValueError(
                    f'JumanjiEnvironment.observation: no field {self.observation!r}, there are {", ".join(fields)}'
                )

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.reset, int(self.environment.action_spec.num_values))

    def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
        state, timestep = self.environment.reset(key)
        return state, self._timestep(timestep)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, dm_env.TimeStep]:
        del key  # A jumanji state carries its own.
        state, timestep = self.environment.step(state, action)
        return state, self._timestep(timestep)

    def animator(self) -> Animator:
        if not hasattr(self.environment, 'animate'):
            raise ValueError(f'jumanji has no drawing of {type(self.environment).__name__}')
        import matplotlib  # Imported here as only who draws should wait for it.

        matplotlib.use('Agg')

        def animate(states: Sequence[Any], path: str | os.PathLike) -> None:
            with matplotlib.rc_context({'animation.writer': 'pillow', 'savefig.dpi': 50}):
                self.environment.animate(states, save_path=str(path))

        return animate

    def _timestep(self, timestep) -> dm_env.TimeStep:
        observation = timestep.observation
        if self.observation is not None:
            observation = getattr(observation, self.observation)
        return make_timestep(
            observation, timestep.reward, timestep.discount, first=timestep.first(), last=timestep.last()
        )


@dataclasses.dataclass(frozen=True)
class GymnaxEnvironment:
    """Any gymnax environment (1.0 or newer) with discrete actions; its time limit is a truncation.

    Args:
      environment: a `gymnax.environments.environment.Environment`.
      params: its parameters; None takes `environment.default_params`.

    Raises:
      ValueError: if the actions are not discrete.
    """

    environment: Any
    params: Any = None

    def __post_init__(self):
        if not hasattr(self.environment.action_space(self._params), 'n'):
            raise ValueError(f'GymnaxEnvironment: {self.environment.name} has no discrete actions')

    @property
    def _params(self):
        return self.environment.default_params if self.params is None else self.params

    def spec(self) -> specs.EnvironmentSpec:
        return _spec(self.reset, int(self.environment.action_space(self._params).n))

    def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
        # `reset_env` and `step_env`, not `reset` and `step`: the latter restart episodes by themselves.
        observation, state = self.environment.reset_env(key, self._params)
        return state, make_timestep(observation, first=True)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, dm_env.TimeStep]:
        observation, state, reward, terminated, _ = self.environment.step_env(key, state, action, self._params)
        last = terminated | self.environment.is_truncated(state, self._params)
        return state, make_timestep(observation, reward, jnp.where(terminated, 0, 1), last=last)

    def animator(self) -> Animator:
        import matplotlib  # Imported here as only who draws should wait for it.

        matplotlib.use('Agg')
        from gymnax.visualize import Visualizer
        from matplotlib import pyplot

        trial = Visualizer(self.environment, self._params, [self.reset(jax.random.key(0))[0]])
        try:
            trial.init()
        except Exception as error:  # Of any library that gymnax draws with.
            raise ValueError(f'gymnax cannot draw {self.environment.name}: {error}') from error
        finally:
            pyplot.close(trial.fig)
        if not hasattr(trial, 'im'):  # gymnax leaves out in silence what it does not know.
            raise ValueError(f'gymnax has no drawing of {self.environment.name}')

        def animate(states: Sequence[Any], path: str | os.PathLike) -> None:
            Visualizer(self.environment, self._params, states).animate(str(path))

        return animate
