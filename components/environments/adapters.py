"""Environments of other libraries as `SingleEnvironment`s.

The adapters take environment objects, so a gin file imports only the library it uses.
"""

import difflib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import component
from components.environments.base import Animator, entry_at, make_timestep
from components.types import Array


def _spec(reset: Callable, num_actions: int, observations: Any = None) -> specs.EnvironmentSpec:
    """Spec of an environment whose observations are best known by looking at what its reset returns.

    Args:
      reset: of the adapter.
      num_actions: of one discrete action.
      observations: specs or spaces of the library, of the same structure; bounds of integers are taken from there.
    """
    _, timestep = jax.eval_shape(reset, jax.random.key(0))
    found = jax.tree.map(lambda leaf: specs.Array(leaf.shape, leaf.dtype), timestep.observation)
    if len(jax.tree.leaves(found)) == 1:
        found = jax.tree.map(lambda spec: _bounded(spec, observations), found)
    return specs.EnvironmentSpec(
        observations=found,
        actions=specs.DiscreteArray(num_actions, name='action'),
        rewards=specs.Array((), np.float32, 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )


def _bounded(spec: specs.Array, described: Any) -> specs.Array:
    """The spec of an integer with the bounds that a library gives: `n` of a space, `num_values` of a spec."""
    if not np.issubdtype(spec.dtype, np.integer) or spec.shape != ():
        return spec
    num_values = getattr(described, 'n', getattr(described, 'num_values', None))
    return spec if num_values is None else specs.BoundedArray((), spec.dtype, 0, int(num_values) - 1)


def _made(environment: Any, library: str) -> Any:
    """What `make` of a library gives for a name; anything else as it is.

    Raises:
      ValueError: if the library has no environment of that name.
    """
    if not isinstance(environment, str):
        return environment
    module = importlib.import_module(library)
    try:
        return module.make(environment)
    except Exception as error:  # Each library has errors of its own.
        names = _registered(module)
        nearest = difflib.get_close_matches(environment, names, n=3, cutoff=0.4) or sorted(names)
        raise ValueError(
            f'{library} has no environment {environment!r}; did you mean {" or ".join(nearest[:5])}?'
        ) from error


def _registered(module: Any) -> list[str]:
    names = getattr(module, 'registered_environments', getattr(module, 'registered_envs', []))
    return list(names() if callable(names) else names)


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

    def __post_init__(self):
        object.__setattr__(self, 'environment', _made(self.environment, 'jumanji'))
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
        return _spec(self.reset, int(self.environment.action_spec.num_values), described)

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
            observation = entry_at(observation, self.observation, 'JumanjiEnvironment.observation')
        return make_timestep(
            observation, timestep.reward, timestep.discount, first=timestep.first(), last=timestep.last()
        )


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

    def __post_init__(self):
        made = _made(self.environment, 'gymnax')
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
    def _params(self):
        return self.environment.default_params if self.params is None else self.params

    def spec(self) -> specs.EnvironmentSpec:
        space = (
            self.environment.observation_space(self._params) if hasattr(self.environment, 'observation_space') else None
        )
        return _spec(self.reset, int(self.environment.action_space(self._params).n), space)

    def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
        # `reset_env` and `step_env`, not `reset` and `step`: the latter restart episodes by themselves.
        observation, state = self.environment.reset_env(key, self._params)
        return state, make_timestep(observation, first=True)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, dm_env.TimeStep]:
        observation, state, reward, terminated, _ = self.environment.step_env(key, state, action, self._params)
        terminated = jnp.asarray(terminated, bool)
        last = terminated
        if hasattr(self.environment, 'is_truncated'):
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
            raise ValueError(f'gymnax cannot draw {self._name}: {error}') from error
        finally:
            pyplot.close(trial.fig)
        if not hasattr(trial, 'im'):  # gymnax leaves out in silence what it does not know.
            raise ValueError(f'gymnax has no drawing of {self._name}')

        def animate(states: Sequence[Any], path: str | os.PathLike) -> None:
            Visualizer(self.environment, self._params, states).animate(str(path))

        return animate
