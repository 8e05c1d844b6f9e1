"""gymnax's environments."""

import os
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.component import component
from components.environments.adapters.common import made_by, spec_of_reset
from components.environments.base import Animator, make_timestep
from components.types import Array


@component
class GymnaxEnvironment:
    """Any environment of gymnax's interface (1.0 or newer, or one without its `is_truncated`) with discrete actions.

    gymnax's time limit is a truncation. An environment without `is_truncated` says nothing of time limits: every end is
    a termination.

    Args:
      environment: a `gymnax.environments.environment.Environment`, the name of a registered one, `CartPole-v1` say, or
        the pair of an environment and its parameters that `gymnax.make` returns.
      params: its parameters; None takes those of the pair, or `environment.default_params`.

    Raises:
      ValueError: if there is no such environment, it has not the methods that are called, or its actions are not
        discrete.
    """

    environment: Any
    params: Any = None

    def __post_init__(self) -> None:
        made = made_by(self.environment, 'gymnax')
        if isinstance(made, tuple):
            made, params = made
            object.__setattr__(self, 'params', params if self.params is None else self.params)
        object.__setattr__(self, 'environment', made)
        params = ('default_params',) if self.params is None else ()
        missing = [name for name in ('reset_env', 'step_env', 'action_space', *params) if not hasattr(made, name)]
        if missing:
            raise ValueError(
                f"GymnaxEnvironment.environment has not gymnax's {', '.join(missing)}: it is a {type(made).__name__}"
            )
        if not hasattr(made.action_space(self._params), 'n'):
            raise ValueError(f'GymnaxEnvironment: {self._name} has no discrete actions')

    @property
    def _name(self) -> str:
        return str(getattr(self.environment, 'name', type(self.environment).__name__))

    @property
    def _params(self) -> PyTree:
        return self.environment.default_params if self.params is None else self.params

    def spec(self) -> specs.EnvironmentSpec:
        space = (
            self.environment.observation_space(self._params) if hasattr(self.environment, 'observation_space') else None
        )
        return spec_of_reset(self.reset, int(self.environment.action_space(self._params).n), space)

    def reset(self, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        # `reset_env` and `step_env`, not `reset` and `step`: the latter restart episodes by themselves.
        observation, state = self.environment.reset_env(key, self._params)
        return state, make_timestep(observation, first=True)

    def step(self, state: PyTree, action: Array, key: Array) -> tuple[PyTree, dm_env.TimeStep]:
        observation, state, reward, terminated, _ = self.environment.step_env(key, state, action, self._params)
        terminated = jnp.asarray(terminated, bool)
        last = terminated
        if hasattr(self.environment, 'is_truncated'):
            last = terminated | self.environment.is_truncated(state, self._params)
        return state, make_timestep(observation, reward, jnp.where(terminated, 0, 1), last=last)

    def animator(self) -> Animator:
        import matplotlib  # Imported here: only drawing needs it.

        matplotlib.use('Agg')
        from gymnax.visualize import Visualizer
        from matplotlib import pyplot

        trial = Visualizer(self.environment, self._params, [self.reset(jax.random.key(0))[0]])
        try:
            trial.init()
        except Exception as error:  # Of any library that gymnax draws with.
            raise ValueError(f'gymnax cannot draw {self._name}: {error}') from error
        finally:
            pyplot.close(trial.fig)
        if not hasattr(trial, 'im'):  # gymnax leaves out in silence what it does not know.
            raise ValueError(f'gymnax has no drawing of {self._name}')

        def animate(states: Sequence[PyTree], path: str | os.PathLike) -> None:
            Visualizer(self.environment, self._params, states).animate(str(path))

        return animate
