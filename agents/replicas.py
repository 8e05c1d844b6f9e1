"""Replicas: agents that train in one program, and differ in numbers of their update rules and meta-optimisers.

A number stands at a path from the update rule, or from the agent to its `meta_optimiser`. Where the path is a
meta-parameter's, it is what that starts from. Each variant of numbers trains with the same seeds: replica `i` has
variant `i // num_seeds` and seed `i % num_seeds`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from agents.agent import Agent
from components.component import problem_of_argument
from components.component_tree import Learnable, component_at, learnable_paths, replace_all, why_not_learnable
from components.types import Array, CompositionError, FieldValues
from components.update_rule import UpdateRule

Replicas = Mapping[str, Sequence[float]]
"""By path, a value for each variant."""

META_OPTIMISER = 'meta_optimiser'
"""What paths to its numbers begin with, as those of the agent do."""

_RULE = frozenset(field.name for field in dataclasses.fields(UpdateRule))


def num_variants(replicas: Replicas) -> int:
    """How many variants there are; 1 where nothing is varied.

    Raises:
      CompositionError: if paths have different numbers of values, or none.
    """
    lengths = {path: len(values) for path, values in replicas.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        found = ', '.join(f'{length} for {path}' for path, length in lengths.items())
        raise CompositionError(f'Experiment.replicas must have as many values for each path, at least one; got {found}')
    return next(iter(lengths.values()), 1)


def check(replicas: Replicas, agent: Agent) -> None:
    """Checks that agents can differ in these numbers.

    Raises:
      CompositionError: if a path does not lead to a number, or to one that shapes may depend on, or if a value is out
        of its field's range.
    """
    num_variants(replicas)
    for path, values in replicas.items():
        _check(path, values, agent)


def values_of(replicas: Replicas, num_seeds: int) -> dict[str, Array]:
    """Values of each replica, `[S]`, the seeds of a variant side by side."""
    dtype = jnp.result_type(float)
    return {path: jnp.asarray(np.repeat(np.asarray(x, float), num_seeds), dtype) for path, x in replicas.items()}


def bound(agent: Agent, values: FieldValues) -> Agent:
    """The agent with these numbers, which may be traced: nothing is validated again."""
    learned = agent.meta_parameters.parameters.keys()
    constant = {_from_agent(path): value for path, value in values.items() if path not in learned}
    return replace_all(agent, {**constant, 'meta_parameters': agent.meta_parameters.starting_at(values)})


def numbers(agent: Agent) -> dict[str, float]:
    """What agents can differ in, by path, and what it is; some of it is integers, which `check` refuses."""
    return {path: x for path, x in _learnable(agent).items() if not callable(x)}


def is_path(key: str) -> bool:
    """Whether this is the form of a path: it begins at a field of the update rule, or at the meta-optimiser."""
    first, dot, _ = key.partition('.')
    return '/' not in key and (first in _RULE or bool(first == META_OPTIMISER and dot))


def _from_agent(path: str) -> str:
    return path if path.startswith(f'{META_OPTIMISER}.') else f'update_rule.{path}'


def why_no_number(agent: Agent, path: str) -> str:
    """Why agents cannot differ in what a path leads to, for an error message."""
    is_network = path in _learnable(agent)
    why = 'weights of a network' if is_network else why_not_learnable(agent, _from_agent(path))
    return f'{why}; there is {", ".join(sorted(numbers(agent)))}'


def _learnable(agent: Agent) -> dict[str, Learnable]:
    return learnable_paths(agent.update_rule) | learnable_paths({META_OPTIMISER: agent.meta_optimiser})


def _check(path: str, values: Sequence[float], agent: Agent) -> None:
    if path not in numbers(agent):
        raise CompositionError(f'Experiment.replicas: {path!r}: {why_no_number(agent, path)}')
    parent, _, name = _from_agent(path).rpartition('.')
    part = component_at(agent, parent)
    takes = functools.partial(problem_of_argument, type(part), name) if dataclasses.is_dataclass(part) else _anything
    if takes(0.5) == 'an integer':
        raise CompositionError(
            f'Experiment.replicas: {path!r} is an integer, which shapes may depend on: vary it in runs of their own'
        )
    for value in values:
        if wrong := takes(value):
            raise CompositionError(f'Experiment.replicas: {path!r} must be {wrong}, got {value!r}')
        try:
            agent.meta_parameters.starting_at({path: value})
        except ValueError as error:
            raise CompositionError(f'Experiment.replicas: {error}') from error


def _anything(value: float) -> None:
    """What an entry of a dictionary takes."""
    del value
