"""Components: frozen dataclasses whose fields are checked against their annotations.

    @component
    class LambdaReturn:
        discount: UnitInterval = 0.99
        bootstrap: bool = True

An annotation says which type a field takes, and `Annotated[float, Interval(0, 1)]` which range. The same check serves
constructors, and arguments that a gin file binds to functions and classes of other libraries. Arrays, traced ones above
all, are not checked.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union

import jax
import numpy as np

from components.types import FieldError

T = TypeVar('T')

MAX_INT = 2**31 - 1
"""Largest integer that a compiled program counts with."""

MAX_FLOAT = float(np.finfo(np.float32).max)
"""Largest number in single precision."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Range of a number, as metadata of an annotation.

    Args:
      low: lower bound.
      high: upper bound.
      low_open: whether the lower bound itself is left out.
      high_open: whether the upper bound itself is left out.
    """

    low: float = -MAX_FLOAT
    high: float = MAX_FLOAT
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, x: float) -> bool:
        above = self.low < x if self.low_open else self.low <= x
        return above and (x < self.high if self.high_open else x <= self.high)

    def describe(self, x: float) -> str:
        """What a number outside of the range must be."""
        is_bounded = self.high not in (MAX_INT, MAX_FLOAT, math.inf)
        if not is_bounded and not x > self.high:
            if self.low_open:
                return 'positive' if self.low == 0 else f'above {self.low:g}'
            return 'finite' if self.low == -MAX_FLOAT else f'at least {self.low:g}'
        if self.high == MAX_FLOAT:
            return 'finite'
        return f'in {"(" if self.low_open else "["}{self.low:,}, {self.high:,}{")" if self.high_open else "]"}'


UnitInterval = Annotated[float, Interval(0, 1)]
Positive = Annotated[float, Interval(0, low_open=True)]
NonNegative = Annotated[float, Interval(0)]
LEARNING_RATES = Interval(0, 1_000, low_open=True)
LearningRate = Annotated[float, LEARNING_RATES]
PositiveInt = Annotated[int, Interval(1, MAX_INT)]
AtLeastTwo = Annotated[int, Interval(2, MAX_INT)]
NonNegativeInt = Annotated[int, Interval(0, MAX_INT)]

OPTAX_RANGES: Mapping[str, Interval] = {
    'learning_rate': LEARNING_RATES,
    **dict.fromkeys(('b1', 'b2', 'b3', 'decay', 'momentum', 'decay_rate'), Interval(0, 1)),
    **dict.fromkeys(('eps', 'eps_root', 'weight_decay', 'initial_scale', 'initial_accumulator_value'), Interval(0)),
    **dict.fromkeys(('max_norm', 'max_delta', 'clipping', 'threshold'), Interval(0, low_open=True)),
    **dict.fromkeys(('transition_steps', 'transition_begin', 'decay_steps', 'warmup_steps'), Interval(0, MAX_INT)),
}
"""Ranges of what optax's functions take, by the names of their arguments: optax annotates types alone."""


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def component(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass that checks its fields before its own `__post_init__`.

    Raises:
      FieldError: from the constructor, if a field is not of its annotation's type or range.
    """
    check_rest = getattr(cls, '__post_init__', None)

    def __post_init__(self: Any) -> None:  # noqa: N807 - as dataclasses call it.
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        check_arguments(type(self), values)
        if check_rest is not None:
            check_rest(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


def check_arguments(function: Callable, values: Mapping[str, object]) -> None:
    """Checks arguments of a function, or of a class's constructor, against their annotations.

    Args:
      function: what takes them.
      values: some of its arguments, by name.

    Raises:
      FieldError: if one is not of its annotation's type or range.
    """
    for name, value in values.items():
        wrong = problem_of_argument(function, name, value)
        if wrong:
            raise FieldError(f'{function.__name__}.{name} must be {wrong}, got {value!r}')


def problem_of_argument(function: Callable, name: str, value: object) -> str | None:
    """What an argument of a function, or of a class's constructor, would have to be; None if the value is accepted."""
    return problem(value, annotations(function).get(name, Any))


def check_divides(number: int, whole: int, field: str, what: str) -> None:
    """Checks that a field's number divides another one.

    Args:
      number: of the field.
      whole: that it must divide.
      field: its name, for the message.
      what: the other one counts, in the plural.

    Raises:
      FieldError: if it does not; the message says which numbers do.
    """
    if whole % number:
        divisors = [str(n) for n in range(1, whole + 1) if whole % n == 0]
        shown = divisors if len(divisors) <= 8 else [*divisors[:7], '...']
        raise FieldError(f'{field} ({number}) must divide the {whole} {what}, as {", ".join(shown)} do')


@dataclasses.dataclass(frozen=True)
class Reference:
    """Stands for an object that is not made yet, in a value that is checked.

    Args:
      made_by: a class or a function.
      is_called: whether the object is what `made_by` returns; else it is `made_by` itself.
    """

    made_by: Callable
    is_called: bool

    @property
    def result(self) -> object:
        """Class of the object, `Any` if it is not known."""
        if isinstance(self.made_by, type):
            return self.made_by
        result = annotations(self.made_by).get('return', Any)
        return result if isinstance(result, type) else Any


@functools.cache
def annotations(function: Callable) -> dict[str, object]:
    """Annotation of each argument that has one; of optax's functions with their ranges."""
    try:
        if dataclasses.is_dataclass(function):
            hints = typing.get_type_hints(function, include_extras=True)
        else:
            hints = typing.get_type_hints(
                function.__init__ if inspect.isclass(function) else function,
                include_extras=True,
            )
    except Exception:  # Names that another library imports for type checkers alone.
        return {}
    if str(getattr(function, '__module__', '')).split('.')[0] == 'optax':
        hints = {name: Annotated[hint, OPTAX_RANGES[name]] if name in OPTAX_RANGES else hint
                 for name, hint in hints.items()}  # fmt: skip
    return hints


def problem(value: object, annotation: object, interval: Interval | None = None) -> str | None:
    """What a value would have to be for an annotation to take it; None if it takes it, or does not say.

    Args:
      value: of any type; one that waits to be computed (an array, a schedule) counts as a number.
      annotation: a type, or what `typing` makes of types.
      interval: of numbers.
    """
    if annotation is Any:
        return None
    if isinstance(value, Reference) and not value.is_called:
        value = value.made_by
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ranges = [extra for extra in arguments[1:] if isinstance(extra, Interval)]
        return problem(value, arguments[0], ranges[0] if ranges else interval)
    if origin in (Union, types.UnionType):
        return _union_problem(value, arguments, interval)
    if origin is Literal:
        return None if value in arguments else _either(map(repr, arguments))
    if annotation in (int, float):
        return _number_problem(value, annotation, interval)
    if annotation is None or annotation is type(None):
        return None if value is None else 'None'
    if annotation is bool:
        return None if isinstance(_result(value, bool), bool | np.bool_ | jax.Array) else 'True or False'
    if annotation is str:
        return None if isinstance(_result(value, str), str) and value else 'a string that is not empty'
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return _mapping_problem(value, arguments, interval)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return _tuple_problem(value, arguments, interval)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        return _sequence_problem(value, arguments[0], interval)
    if origin is collections.abc.Callable:
        return None if callable(value) or isinstance(value, Reference) else 'a function'
    if isinstance(annotation, type) and annotation.__module__ != 'builtins':
        return _object_problem(value, annotation)
    return None


def _result(value: object, kind: type) -> object:
    """The value, or what a reference will be if that may be of a type."""
    return kind('x') if isinstance(value, Reference) and value.result in (Any, kind) else value


def _union_problem(value: object, members: Iterable[object], interval: Interval | None) -> str | None:
    members = tuple(members)
    if float in members:  # Of numbers, as other libraries spell them, which take no flag for a number.
        members = tuple(member for member in members if member not in (bool, int, complex) and not _is_array(member))
    problems = [problem(value, member, interval) for member in members]
    if None in problems:
        return None
    if _is_number(value) and (ranges := [text for text in problems if text and _is_range(text)]):
        problems = [*ranges, *(['None'] if type(None) in members else [])]
    return _either(sorted(dict.fromkeys(text for text in problems if text), key=lambda text: text != 'None'))


def _number_problem(value: Any, kind: type, interval: Interval | None) -> str | None:
    if isinstance(value, Reference):
        is_number = value.result is Any or getattr(value.result, 'stands_for_number', value.result in (int, float))
        return None if is_number else 'an integer' if kind is int else 'a number'
    if getattr(value, 'stands_for_number', False):
        with jax.ensure_compile_time_eval():
            value = float(value(0))  # What a schedule starts with.
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return None
    if not _is_number(value) or (kind is int and not isinstance(value, numbers.Integral)):
        return 'an integer' if kind is int else 'a number'
    if kind is float and isinstance(value, numbers.Integral) and abs(int(value)) > MAX_INT:
        return f'at most {MAX_INT:,} where it is written without a decimal point'
    interval = interval or (Interval(-MAX_INT, MAX_INT) if kind is int else Interval())
    return None if value in interval else interval.describe(value)


def _is_range(text: str) -> bool:
    return text.startswith(('at least', 'at most', 'in ', 'above ', 'positive', 'finite'))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _is_array(annotation: object) -> bool:
    return isinstance(annotation, type) and annotation.__module__.split('.')[0] in ('numpy', 'jax', 'jaxlib')


def _sequence_problem(value: object, entry: object, interval: Interval | None) -> str | None:
    if isinstance(value, np.ndarray | jax.Array | Reference):
        return None
    if isinstance(value, str | bytes) or not isinstance(value, collections.abc.Sequence):
        return 'a list or a tuple'
    wrong = [text for text in (problem(x, entry, interval) for x in value) if text]
    return f'a list or a tuple of entries that are each {wrong[0]}' if wrong else None


def _tuple_problem(value: object, entries: tuple[object, ...], interval: Interval | None) -> str | None:
    if isinstance(value, Reference):
        return None
    if isinstance(value, str | bytes) or not isinstance(value, collections.abc.Sequence) or len(value) != len(entries):
        return f'a tuple of {len(entries)}'
    wrong = [text for text in map(problem, value, entries, [interval] * len(entries)) if text]
    return f'a tuple of {len(entries)} whose entries are {wrong[0]}' if wrong else None


def _mapping_problem(value: object, arguments: tuple[object, ...], interval: Interval | None) -> str | None:
    if isinstance(value, Reference):
        return None
    if not isinstance(value, collections.abc.Mapping):
        return 'a dictionary'
    for name, x in value.items():
        if wrong := problem(name, arguments[0]):
            return f'a dictionary whose keys are each {wrong}'
        if wrong := problem(x, arguments[1], interval):
            return f'a dictionary whose entry {name!r} is {wrong}'
    return None


def _object_problem(value: object, cls: type) -> str | None:
    """Whether an object is of a class, or has what a protocol asks for."""
    kind = f'{"an" if cls.__name__[0] in "AEIOU" else "a"} {cls.__name__}'
    if dataclasses.is_dataclass(value) and isinstance(value, type):  # Other classes may be called later.
        return f'{kind}, not a class: write @{value.__name__}() with parentheses'
    if isinstance(value, Reference):
        return _reference_problem(value.result, cls, kind)
    if not getattr(cls, '_is_protocol', False):
        return None if isinstance(value, cls) else kind
    if isinstance(value, bool | numbers.Number | str | bytes | list | tuple | dict | set | None):
        return kind
    missing = [name for name in _methods(cls) if not hasattr(value, name)]
    return f'{kind}, with {", ".join(missing)}' if missing else None


def _reference_problem(result: object, cls: type, kind: str) -> str | None:
    """Whether an object of a class `result` will be of another, or have the methods that a protocol asks for."""
    if not isinstance(result, type):
        return None
    if not getattr(cls, '_is_protocol', False):
        return None if issubclass(result, cls) else kind
    names = {name for base in result.__mro__ for name in vars(base)}
    missing = [name for name in _methods(cls) if name not in names]
    return f'{kind}, with {", ".join(missing)}' if missing else None


def _methods(protocol: type) -> list[str]:
    """Names of the methods that a protocol asks for."""
    names = dict.fromkeys(name for cls in reversed(protocol.__mro__) if cls is not Protocol for name in vars(cls))
    public = (name for name in names if not name.startswith('_') or name == '__call__')
    return [name for name in public if callable(getattr(protocol, name))]


def _either(texts: Iterable[str]) -> str:
    return ' or '.join(texts)
