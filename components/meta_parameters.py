"""Meta-parameters: numbers and networks in the update rule, named by their paths, that are learned."""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from acme import specs

from components.bijectors import Bijector, Identity
from components.component import component
from components.schedules import Scheduled
from components.types import Array, MetaParams, Values


@runtime_checkable
class HasWeights(Protocol):
    """A component of an update rule that is a network: a field `weights` holds what it computes with, once that is bound."""

    weights: Any

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> Any:
        """New weights, a pytree of arrays, for an environment of that spec.

        Raises:
          ValueError: if the network cannot be had there.
        """
        ...


class MetaParameter(Protocol):
    """One entry of a `MetaParameterSet`."""

    def init(self, key: Array, default: Any) -> Any:
        """Unconstrained value to start from.

        Args:
          key: of what starts at random.
          default: the number that the field holds, or for weights of a network a function of a key that makes them.

        Raises:
          ValueError: if there is no such value.
        """
        ...

    def value(self, meta_param: Any) -> Any:
        """What the field is replaced by, from the unconstrained value."""
        ...


@component
class Scalar:
    """A number.

    Args:
      bijector: keeps it in its bounds.
      initial_value: in the units of the field; None starts from what the field holds.
    """

    bijector: Bijector = Identity()
    initial_value: float | None = None

    def init(self, key: Array, default: Any) -> Array:
        del key
        if callable(default):
            raise ValueError('the field holds weights of a network, not a number; its entry should be Weights')
        value = default if self.initial_value is None else self.initial_value
        low, high = self.bijector.low, self.bijector.high
        if (low is not None and value <= low) or (high is not None and value >= high):
            raise ValueError(
                f'the initial value {value} is not strictly between the bounds of {self.bijector}, where its gradient '
                'would vanish'
            )
        return self.bijector.inverse(jnp.asarray(value, jnp.result_type(float)))

    def value(self, meta_param: Array) -> Array:
        return self.bijector.forward(meta_param)


@component
class Weights:
    """The weights of a network, the field `weights` of a component that has one. They start as the network has it."""

    def init(self, key: Array, default: Any) -> Any:
        if not callable(default):
            raise ValueError(
                f'the field holds the number {default}, not weights of a network; its entry should be Scalar'
            )
        return default(key)

    def value(self, meta_param: Any) -> Any:
        return meta_param


@component
class Frozen:
    """A meta-parameter that starts from a value that was learned before, instead of what the field holds.

    Args:
      entry: the meta-parameter that was learned.
      meta_param: its unconstrained value, a pytree of NumPy arrays.
    """

    entry: MetaParameter
    meta_param: Any

    def init(self, key: Array, default: Any) -> Any:
        del key, default
        return jax.tree.map(jnp.asarray, self.meta_param)

    def value(self, meta_param: Any) -> Any:
        return self.entry.value(meta_param)


@component
class MetaParameterSet:
    """Which fields of an update rule are learned by the outer loop.

    bind(update_rule, meta_params) is the same rule with those fields replaced. Nothing below it knows whether a field
    is constant or learned.

    Args:
      parameters: entries by the path of their field from the update rule, through attributes and dictionary keys:
        `objective.returns.discount`, `objective.terms.outer_critic.cost`, `optimiser.learning_rate`,
        `objective.returns.weights`.
    """

    parameters: Mapping[str, MetaParameter] = dataclasses.field(default_factory=dict)

    def init(self, key: Array, update_rule: Any, spec: specs.EnvironmentSpec) -> dict[str, Any]:
        """Unconstrained values to start from.

        Args:
          key: for entries that start at random.
          update_rule: where the fields are.
          spec: of the environment, for networks.

        Raises:
          ValueError: if a path does not lead to a number or a network, if an initial value is out of bounds, or if a
            network of the update rule is no meta-parameter, as nobody else would make its weights.
        """
        paths = learnable_paths(update_rule)
        meta_params = {}
        for index, (path, entry) in enumerate(self.parameters.items()):
            if path not in paths:
                raise ValueError(f'meta-parameter {path!r}: {_why_not(update_rule, path)}; {describe_paths(paths)}')
            default = paths[path]
            if callable(default):
                default = functools.partial(default, spec=spec)
            try:
                meta_params[path] = entry.init(jax.random.fold_in(key, index), default)
            except ValueError as error:
                raise ValueError(f'meta-parameter {path!r}: {error}') from error
        unmade = [path for path, default in paths.items() if callable(default) and path not in meta_params]
        if unmade:
            raise ValueError(
                f'{", ".join(unmade)}: a learned network, whose weights are no meta-parameter; add to '
                f"MetaParameterSet.parameters {{'{unmade[0]}': @meta_parameters.Weights()}}"
            )
        return meta_params

    def values(self, meta_params: MetaParams) -> dict[str, Any]:
        """Values in the units of the fields, by path."""
        return {path: entry.value(meta_params[path]) for path, entry in self.parameters.items()}

    def frozen(self, meta_params: MetaParams) -> 'MetaParameterSet':
        """The same set, which starts from these unconstrained values."""
        return MetaParameterSet({path: Frozen(entry, meta_params[path]) for path, entry in self.parameters.items()})

    def bind(self, update_rule: Any, meta_params: MetaParams) -> Any:
        """The update rule with its learned fields replaced; nothing is validated again, as values may be traced."""
        return replace_all(update_rule, self.values(meta_params))


def component_at(tree: Any, path: str) -> Any:
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


def replace_all(tree: Any, values: Values) -> Any:
    """A copy of the tree with values where paths lead, which exist. No constructor runs again."""
    for path, value in values.items():
        tree = replace_at(tree, path, value)
    return tree


def replace_at(tree: Any, path: str, component: Any) -> Any:
    """A copy of the tree with something else where a path leads, which exists. No constructor runs again."""
    return _replace(tree, path.split('.'), component)


def learnable_paths(tree: Any, prefix: str = '') -> dict[str, Any]:
    """Every number and network reachable through dataclass fields and dictionary keys, by its path.

    Returns:
      The number, or the network's `init_weights`.
    """
    paths: dict[str, Any] = {}
    for name, child in children(tree).items():
        path = f'{prefix}{name}'
        if name == 'weights' and isinstance(tree, HasWeights):
            paths[path] = tree.init_weights
        elif _is_number(child):
            paths[path] = child
        else:
            paths |= learnable_paths(child, f'{path}.')
    return paths


def schedules_of(tree: Any) -> dict[str, Scheduled]:
    """Every scheduled field below a component, by its path."""
    return {path: part for path, part in components_of(tree).items() if isinstance(part, Scheduled)}


def describe_paths(paths: Mapping[str, Any]) -> str:
    """The paths that exist, for an error message."""
    return 'what can be learned is ' + (', '.join(sorted(paths)) or 'nothing')


def components_of(tree: Any, prefix: str = '') -> dict[str, Any]:
    """Everything that paths lead to from `tree`, by its path."""
    parts: dict[str, Any] = {}
    for name, child in children(tree).items():
        path = f'{prefix}{name}'
        parts |= {path: child, **components_of(child, f'{path}.')}
    return parts


def children(tree: Any) -> Mapping[str, Any]:
    """What a path can lead to next: fields of a dataclass, entries of a dictionary, nothing in anything else."""
    if dataclasses.is_dataclass(tree):
        return {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    return tree if isinstance(tree, Mapping) else {}


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _why_not(tree: Any, path: str) -> str:
    for name in path.split('.'):
        if name not in children(tree):
            return 'no such field'
        tree = children(tree)[name]
    return f'the field is neither a number nor weights of a network ({type(tree).__name__})'


def _replace(tree: Any, names: list[str], value: Any) -> Any:
    """A copy with one descendant replaced. Constructors do not run: they validate what only concrete numbers can be."""
    if not names:
        return value
    child = _replace(children(tree)[names[0]], names[1:], value)
    if isinstance(tree, Mapping):
        return {**tree, names[0]: child}
    tree = copy.copy(tree)
    object.__setattr__(tree, names[0], child)
    return tree
