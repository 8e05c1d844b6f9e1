"""Meta-parameters: numbers and networks in the update rule, named by their paths, that are learned."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import Float, PyTree

from components.component import component
from components.component_tree import describe_paths, learnable_paths, replace_all, replace_at, why_not_learnable
from components.meta_parameters.bijectors import Bijector, Identity
from components.types import Array, FieldValues, MetaParams

T = TypeVar('T')
Default = float | Callable[[Array], PyTree]
"""What a field holds: a number, or for weights of a network the function of a key that makes them."""


class MetaParameter(Protocol):
    """One entry of a `MetaParameterSet`."""

    def init(self, key: Array, default: Default) -> PyTree:
        """Unconstrained value to start from.

        Args:
          key: of what starts at random.
          default: what the field holds.

        Raises:
          ValueError: if there is no such value.
        """
        ...

    def value(self, meta_param: PyTree) -> PyTree:
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

    def init(self, key: Array, default: Default) -> Float[Array, '']:
        del key
        if callable(default):
            raise ValueError('the field holds weights of a network, not a number; its entry should be Weights')
        value: float | Array = default if self.initial_value is None else self.initial_value
        low, high = self.bijector.low, self.bijector.high
        if not isinstance(value, jax.Array) and (
            (low is not None and value <= low) or (high is not None and value >= high)
        ):
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

    def init(self, key: Array, default: Default) -> PyTree:
        if not callable(default):
            raise ValueError(
                f'the field holds the number {default}, not weights of a network; its entry should be Scalar'
            )
        return default(key)

    def value(self, meta_param: PyTree) -> PyTree:
        return meta_param


@component
class MetaParameterSet:
    """Which fields of an update rule are learned by the outer loop.

    bind(update_rule, meta_params) is the same rule with those fields replaced. Nothing below it knows whether a field
    is constant or learned.

    Args:
      parameters: entries by the path of their field from the update rule, through attributes and dictionary keys:
        `objective.returns.discount`, `objective.terms.outer_critic.cost`, `optimiser.learning_rate`,
        `objective.returns.weights`.
      learned: reads unconstrained values that were learned before; a run that starts calls it and starts from them.
        None to start from what the entries say.
    """

    parameters: Mapping[str, MetaParameter] = dataclasses.field(default_factory=dict)
    learned: Callable[[], MetaParams] | None = None

    def init(self, key: Array, update_rule: object, spec: specs.EnvironmentSpec) -> dict[str, PyTree]:
        """Unconstrained values to start from.

        Args:
          key: for entries that start at random.
          update_rule: where the fields are.
          spec: of the environment, for networks.

        Raises:
          ValueError: if a path does not lead to a number or a network, if an initial value is out of bounds, or if a
            network of the update rule is not among the meta-parameters, so that its weights are not initialised.
        """
        paths = learnable_paths(update_rule)
        meta_params = {}
        for index, (path, entry) in enumerate(self.parameters.items()):
            if path not in paths:
                raise ValueError(
                    f'meta-parameter {path!r}: {why_not_learnable(update_rule, path)}; {describe_paths(paths)}'
                )
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
                f'the weights of {", ".join(unmade)} are not initialised: add to MetaParameterSet.parameters '
                f"{{'{unmade[0]}': @meta_parameters.Weights()}}"
            )
        return meta_params

    def starting_at(self, values: FieldValues) -> 'MetaParameterSet':
        """The same set whose entries start from these values, where their path is among them.

        Raises:
          ValueError: if such an entry is not a number, or its value is out of bounds; arrays are not checked.
        """
        entries = dict(self.parameters)
        for path in values.keys() & entries.keys():
            if not isinstance(entries[path], Scalar):
                raise ValueError(f'meta-parameter {path!r} does not start from a number: it is {entries[path]}')
            entries[path] = replace_at(entries[path], 'initial_value', values[path])
            try:
                jax.eval_shape(entries[path].init, jax.random.key(0), 0.0)
            except ValueError as error:
                raise ValueError(f'meta-parameter {path!r}: {error}') from error
        return replace_at(self, 'parameters', entries)

    def values(self, meta_params: MetaParams) -> dict[str, PyTree]:
        """Values in the units of the fields, by path."""
        return {path: entry.value(meta_params[path]) for path, entry in self.parameters.items()}

    def bind(self, update_rule: T, meta_params: MetaParams) -> T:
        """The update rule with its learned fields replaced; nothing is validated again, as values may be traced."""
        return replace_all(update_rule, self.values(meta_params))
