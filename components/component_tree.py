"""Paths into a tree of components: fields of dataclasses and entries of dictionaries, read and replaced."""

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

from acme import specs
from jaxtyping import PyTree

from components.types import Array, FieldValues

T = TypeVar('T')
Learnable = float | Callable[..., PyTree]
"""A number, or a network's `init_weights`."""


@runtime_checkable
class HasWeights(Protocol):
    """A component of an update rule that is a network: a field `weights` holds what it computes with, once that is
    bound.
    """

    weights: PyTree

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        """New weights, a pytree of arrays, for an environment of that spec.

        Raises:
          ValueError: if the network cannot be had there.
        """
        ...


def component_at(tree: object, path: str) -> Any:
    """What a path leads to.

    Raises:
      ValueError: if it leads nowhere.
    """
    for name in path.split('.'):
        if name not in children(tree):
            raise ValueError(
                f'the path {path!r} ends before {name!r}: there is {", ".join(children(tree)) or "nothing"}'
            )
        tree = children(tree)[name]
    return tree


def replace_all(tree: T, values: FieldValues) -> T:
    """A copy of the tree with values where paths lead, which exist. No constructor runs again."""
    for path, value in values.items():
        tree = replace_at(tree, path, value)
    return tree


def replace_at(tree: T, path: str, component: object) -> T:
    """A copy of the tree with something else where a path leads, which exists. No constructor runs again."""
    return _replace(tree, path.split('.'), component)


def learnable_paths(tree: object, prefix: str = '') -> dict[str, Learnable]:
    """Every number and network reachable through dataclass fields and dictionary keys, by its path.

    Returns:
      The number, or the network's `init_weights`.
    """
    paths: dict[str, Learnable] = {}
    for name, child in children(tree).items():
        path = f'{prefix}{name}'
        if name == 'weights' and isinstance(tree, HasWeights):
            paths[path] = tree.init_weights
        elif _is_number(child):
            paths[path] = child
        else:
            paths |= learnable_paths(child, f'{path}.')
    return paths


def describe_paths(paths: Collection[str]) -> str:
    """The paths that exist, for an error message."""
    return 'what can be learned is ' + (', '.join(sorted(paths)) or 'nothing')


def components_of(tree: object, prefix: str = '') -> dict[str, object]:
    """Everything that paths lead to from `tree`, by its path."""
    parts: dict[str, object] = {}
    for name, child in children(tree).items():
        path = f'{prefix}{name}'
        parts |= {path: child, **components_of(child, f'{path}.')}
    return parts


def children(tree: object) -> Mapping[str, object]:
    """What a path can lead to next: fields of a dataclass, entries of a dictionary, nothing in anything else."""
    if dataclasses.is_dataclass(tree):
        return {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    return tree if isinstance(tree, Mapping) else {}


def _is_number(x: object) -> TypeGuard[float]:
    return isinstance(x, int | float) and not isinstance(x, bool)


def why_not_learnable(tree: object, path: str) -> str:
    """Why a path leads to nothing that can be learned, for an error message."""
    for name in path.split('.'):
        if name not in children(tree):
            return 'no such field'
        tree = children(tree)[name]
    return f'the field is neither a number nor weights of a network ({type(tree).__name__})'


def _replace(tree: Any, names: list[str], value: object) -> Any:
    """A copy with one descendant replaced. Constructors do not run: they validate what only concrete numbers can be."""
    if not names:
        return value
    child = _replace(children(tree)[names[0]], names[1:], value)
    if isinstance(tree, Mapping):
        return {**tree, names[0]: child}
    tree = copy.copy(tree)
    object.__setattr__(tree, names[0], child)
    return tree
