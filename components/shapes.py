"""Shapes and types at the borders between components, checked against the annotations of their protocols.

The annotations are jaxtyping's: `Float[Array, 'T B']` takes numbers over time and environments, and an axis has the
same length wherever one call names it. Checks read shapes alone, while a program is traced: it has none of them in it.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jaxtyping
import numpy as np

from components.types import CompositionError

P = ParamSpec('P')
R = TypeVar('R')


class _Leaf(NamedTuple):
    """An array, or what stands in its place, by its path in an argument or a result."""

    path: str
    value: Any
    annotation: Any


def checked(method: Callable[P, R]) -> Callable[P, R]:
    """A protocol's method that checks the arrays which an implementation takes and returns.

        loss, parts = checked(Objective.loss)(objective, outputs, targets, trajectory)

    Arrays are found wherever the annotations lead to them: in named tuples, tuples, mappings and pytrees.

    Args:
      method: of a protocol; its first argument is the implementation, and none is passed by name.

    Returns:
      A function that calls the method of the same name.

    Raises:
      CompositionError: from that function, if an array has another shape or type than its annotation says.
    """
    hints = typing.get_type_hints(method, include_extras=True)
    names = list(inspect.signature(method).parameters)

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        assert not kwargs
        where = type(args[0]).__name__ + ('' if method.__name__ == '__call__' else f'.{method.__name__}')
        axes: dict[str, int] = {}
        with jaxtyping.jaxtyped('context'):
            arguments = zip(names[1:], args[1:], strict=False)
            _check(where, [x for name, value in arguments for x in _leaves(name, value, hints.get(name))], axes)
            result = getattr(args[0], method.__name__)(*args[1:])
            _check(where, list(_leaves('what it returns', result, hints.get('return'))), axes)
        return result

    return call


def _leaves(path: str, value: object, annotation: object) -> Iterator[_Leaf]:
    """The arrays in a value that an annotation leads to; a part that has not the form that it should have, as it is."""
    arguments = typing.get_args(annotation)
    if _is_array(annotation):
        yield _Leaf(path, value, annotation)
    elif isinstance(annotation, type(jaxtyping.PyTree)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(value):
            yield from _leaves(path + jax.tree_util.keystr(keys), leaf, getattr(annotation, 'leaftype', None))
    elif hasattr(annotation, '_fields') and isinstance(value, tuple):
        for name, hint in typing.get_type_hints(annotation, include_extras=True).items():
            if getattr(value, name) is not None or _is_array(hint):
                yield from _leaves(f'{path}.{name}', getattr(value, name), hint)
    elif typing.get_origin(annotation) is tuple and isinstance(value, tuple) and len(value) == len(arguments):
        for i, (entry, hint) in enumerate(zip(value, arguments, strict=True)):
            yield from _leaves(f'{path}[{i}]', entry, hint)
    elif typing.get_origin(annotation) in (dict, Mapping) and isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(f'{path}[{key!r}]', entry, arguments[-1])
    elif hasattr(annotation, '_fields') or typing.get_origin(annotation) in (tuple, dict, Mapping):
        yield _Leaf(path, value, annotation)


def _check(where: str, leaves: list[_Leaf], axes: dict[str, int]) -> None:
    """Checks arrays against their annotations, and adds the lengths of the axes that these name to `axes`."""
    # An axis such as `T+1` can be checked once others have said what `T` is.
    for path, value, annotation in sorted(leaves, key=lambda leaf: '+' in getattr(leaf.annotation, 'dim_str', '')):
        if not _fits(value, annotation):
            known = ', '.join(f'{name} = {length}' for name, length in axes.items())
            raise CompositionError(
                f'{where}: {path} is {_shown(value)}, where {_described(annotation)} is expected'
                + (f' with {known}' if known else '')
            )
        names = annotation.dim_str.split()
        axes.update({name: n for name, n in zip(names, value.shape, strict=False) if name.isidentifier()})


def _is_array(annotation: object) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)


def _fits(value: Any, annotation: Any) -> bool:
    if not _is_array(annotation) or not isinstance(value, jax.Array | np.ndarray):
        return False
    return isinstance(value, annotation.dtype[type(value), annotation.dim_str])


def _shown(value: object) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f'{value.dtype}{list(value.shape)}'
    return repr(value) if isinstance(value, float | int | None) else f'a {type(value).__name__}'


def _described(annotation: Any) -> str:
    if _is_array(annotation):
        return f'{annotation.dtype.__name__}[{annotation.dim_str}]'
    if typing.get_origin(annotation) is tuple:
        return f'a tuple of {len(typing.get_args(annotation))}'
    return 'a dictionary' if typing.get_origin(annotation) else f'a {annotation.__name__}'
