"""Environments of other libraries as `Environment`s.

The adapters take environment objects, so a gin file imports only the library it uses.
"""

import difflib
import importlib
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from acme import specs


def spec_of_reset(reset: Callable, num_actions: int, observations: object = None) -> specs.EnvironmentSpec:
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


def _bounded(spec: specs.Array, described: object) -> specs.Array:
    """The spec of an integer with the bounds that a library gives: `n` of a space, `num_values` of a spec."""
    if not np.issubdtype(spec.dtype, np.integer) or spec.shape != ():
        return spec
    num_values = getattr(described, 'n', getattr(described, 'num_values', None))
    return spec if num_values is None else specs.BoundedArray((), spec.dtype, 0, int(num_values) - 1)


def made_by(environment: object, library: str) -> Any:
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


def _registered(module: types.ModuleType) -> list[str]:
    names = getattr(module, 'registered_environments', getattr(module, 'registered_envs', []))
    return list(names() if callable(names) else names)
