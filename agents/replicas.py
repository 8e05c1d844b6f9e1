"""Replicas: agents that train side by side in one program, and differ in numbers of their update rules.

A number stands at a path of the update rule. Where the path is a meta-parameter's, it is what that starts from. Each
variant of numbers trains with the same seeds: replica `i` has variant `i // num_seeds` and seed `i % num_seeds`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from agents.agent import Agent
from components.component import problem_of_argument
from components.component_tree import component_at, describe_paths, learnable_paths, replace_all, why_not_learnable
from components.types import Array, CompositionError, FieldValues

Replicas = Mapping[str, Sequence[float]]
"""By path, a value for each variant."""


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
      CompositionError: if a path of the update rule does not lead to a number, or to one that shapes may depend on, or
        if a value is out of its field's range.
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
    constant = {path: value for path, value in values.items() if path not in learned}
    parts = {
        'update_rule': replace_all(agent.update_rule, constant),
        'meta_parameters': agent.meta_parameters.starting_at(values),
    }
    return replace_all(agent, parts) if values else agent


def _check(path: str, values: Sequence[float], agent: Agent) -> None:
    numbers = {path: x for path, x in learnable_paths(agent.update_rule).items() if not callable(x)}
    if path not in numbers:
        raise CompositionError(
            f'Experiment.replicas: {path!r}: {why_not_learnable(agent.update_rule, path)}; {describe_paths(numbers)}'
        )
    parent, _, name = path.rpartition('.')
    part = component_at(agent.update_rule, parent) if parent else agent.update_rule
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
