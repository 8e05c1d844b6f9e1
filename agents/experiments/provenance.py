"""Traces which binding gives each parameter its value, and where it stands.

gin keeps neither. Values are looked up as gin does when it calls a class or a function: of several scopes the innermost
wins, and a reference with a scope of its own leaves that of its surroundings.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin

from agents.experiments.gin_reader import MACRO, Key, Source, name_of, source_of
from components.component import Reference, problem_of_argument
from components.types import ConfigurationError

DEFAULT = 'default'
"""Source of a value that nothing binds."""

_SINGLETON = 'gin.singleton'
_STAND_FOR_VALUES = (MACRO, _SINGLETON)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a parameter is set to, and where.

    Attributes:
      value: as a gin file writes it, `0.5` or `@inner/returns.LambdaReturn()`; `{...}`, `[...]` or `(...)` of a
        container with parts.
      source: `file:line` of the binding, the file relative to the checkout if it is inside; or `COMMAND_LINE`, or
        `DEFAULT`.
      macro: the name that the binding gives instead of the value, `%NUM_ENVS` or `@net/gin.singleton()`; the source is
        then where that is set. Of macros set to macros all are named. Empty for a plain value.
      parts: parameters of a component by name, or entries of a container, `[0]` or by key.
    """

    value: str
    source: str
    macro: str = ''
    parts: Mapping[str, 'Setting'] = dataclasses.field(default_factory=dict)


class UnusedBinding(NamedTuple):
    """A binding that gives no parameter its value.

    Attributes:
      name: as a gin file writes it.
      source: where it stands.
      winners: bindings of the same parameter in scopes inside its own, which take its place; empty if nothing is built
        that it could reach.
    """

    name: str
    source: Source
    winners: Sequence[str]

    def __str__(self) -> str:
        if self.winners:
            return f'{self.name} ({self.source}) has no effect, overridden by {" and ".join(self.winners)}'
        return f'{self.name} ({self.source}) has no effect, as nothing is built that it could reach'


def settings(cls: type) -> dict[str, Setting]:
    """How an object of a class is put together by what was read: its parameters, in turn with theirs.

    What is handed over uncalled and without a scope is taken to be called outside of any.

    Raises:
      ConfigurationError: if something refers to itself.
    """
    return _Trace().parameters(gin.config._inverse_lookup(cls), [])


def problems(cls: type) -> Iterator[str]:
    """What is wrong with the arguments of an object of a class and of all that it is put together from, in lines."""
    return iter(_trace(cls).problems)


def bindable_names(cls: type) -> list[str]:
    """Names of all parameters of an object of a class and of its parts, as a gin file writes them."""
    trace = _trace(cls)
    macros = [scope for scope, selector in gin.config._CONFIG if selector == MACRO]
    return [*macros, *dict.fromkeys(trace.names)]


def unused_bindings(cls: type) -> list[UnusedBinding]:
    """Bindings that nothing uses that an object of a class is put together from.

    A binding in an included file may be of what is not built: a base file serves variants that put another component in
    the place of the one that it binds. It counts if other bindings take its place wherever it could have an effect.
    """
    trace, unused = _trace(cls), []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for name in parameters:
            key = scope, selector, name
            if selector == MACRO or key in trace.used:
                continue  # Every macro is checked where files are loaded.
            winners = sorted(
                name_of(other) for other in trace.used if other[1:] == key[1:] and _is_inside(other[0], scope)
            )
            source = source_of(key) or Source()
            if winners or not source.is_included:
                unused.append(UnusedBinding(name_of(key), source, winners))
    return sorted(unused)


def _trace(cls: type) -> '_Trace':
    trace = _Trace()
    trace.parameters(gin.config._inverse_lookup(cls), [])
    return trace


def _is_inside(scope: str, outer: str) -> bool:
    parts = outer.split('/') if outer else []
    return scope.split('/')[: len(parts)] == parts


class _Bound(NamedTuple):
    """A value, the binding that it comes from, and the source; of a default there is no binding."""

    value: object
    key: Key | None
    source: str


class _Trace:
    """One passage through all that an object is put together from.

    Attributes:
      used: bindings that give a parameter its value.
      problems: what is wrong with arguments, in lines.
      names: of all parameters, bound or not.
    """

    def __init__(self) -> None:
        self.used: set[Key] = set()
        self.problems: list[str] = []
        self.names: list[str] = []
        self._path: list[tuple[str, tuple[str, ...], bool]] = []

    def parameters(
        self, configurable: gin.config.Configurable, scopes: list[str], is_called: bool = True
    ) -> dict[str, Setting]:
        """Those of a class or function in these scopes, without what only its caller gives."""
        here = configurable.selector, tuple(scopes), is_called
        if here in self._path:
            circle = self._path[self._path.index(here) :]
            if not all(called for _, _, called in circle):
                return {}  # It is made later, if ever.
            names = ' -> '.join(_reference(*place) for place in [*circle, here])
            raise ConfigurationError(f'{_reference(*here)} refers to itself: {names}')
        self._path.append(here)
        try:
            bound = _bound(configurable, scopes)
            self.names += [name_of(('/'.join(scopes), configurable.selector, name)) for name in bound]
            found = {
                name: self._argument(configurable, scopes, name, value)
                for name, value in bound.items()
                if value.value is not inspect.Parameter.empty
            }
            if is_called:
                self._check_required(configurable, scopes, bound)
            return found
        finally:
            self._path.pop()

    def _argument(self, configurable: gin.config.Configurable, scopes: list[str], name: str, bound: _Bound) -> Setting:
        value, key, source = bound
        setting, final = self._setting(value, key, source, scopes)
        if key is not None and configurable.selector not in _STAND_FOR_VALUES:
            wrong = problem_of_argument(configurable.wrapped, name, _stand_ins(final))
            if wrong:
                macro = f' (%{setting.macro.lstrip("%")} from {setting.source})' if setting.macro else f' ({source})'
                full_name = '/'.join([*scopes, f'{_class_name(configurable)}.{name}'])
                self.problems.append(f'{full_name} must be {wrong}, got {_shown(final)}{macro}')
        return setting

    def _check_required(
        self, configurable: gin.config.Configurable, scopes: list[str], bound: Mapping[str, _Bound]
    ) -> None:
        for name, value in bound.items():
            if value.value is inspect.Parameter.empty:
                full_name = '/'.join([*scopes, f'{_class_name(configurable)}.{name}'])
                self.problems.append(f'{full_name} is required and not set: add `{full_name} = ...` to a gin file')

    def _setting(
        self, value: object, key: Key | None, source: str, scopes: list[str], macro: str = ''
    ) -> tuple[Setting, Any]:
        """The setting of a value that is bound in these scopes, and the value itself behind macros."""
        if key is not None:
            self.used.add(key)
        if isinstance(value, gin.config.ConfigurableReference):
            # As in gin, a scope of its own replaces that of the surroundings; and a singleton calls what it is handed.
            inner = value.scopes or (scopes if value.evaluate or macro.endswith('.singleton()') else [])
            if value.configurable.selector in _STAND_FOR_VALUES:
                return self._behind(value, inner, f'{macro} {value!r}'.strip())
            parts = self.parameters(value.configurable, inner, value.evaluate)
            return Setting(repr(value), source, macro, parts), value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
            parts = {name: self._setting(field, None, source, [])[0] for name, field in fields.items()}
            return Setting(f'{type(value).__name__}()', source, macro, parts), value
        if isinstance(value, dict | list | tuple) and any(gin.config.iterate_references(value)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            entries = {name: self._setting(entry, None, source, scopes) for name, entry in items}
            parts = {_entry_name(name): setting for name, (setting, _) in entries.items()}
            finals = {name: final for name, (_, final) in entries.items()}
            final = finals if isinstance(value, dict) else type(value)(finals.values())
            return Setting({dict: '{...}', list: '[...]', tuple: '(...)'}[type(value)], source, macro, parts), final
        return Setting(_text(value), source, macro), value

    def _behind(
        self, reference: gin.config.ConfigurableReference, scopes: list[str], macro: str
    ) -> tuple[Setting, Any]:
        """What a macro or a singleton stands for."""
        here = reference.configurable.selector, tuple(scopes), True
        if here in self._path:
            names = ' -> '.join(_reference(*place) for place in [*self._path[self._path.index(here) :], here])
            raise ConfigurationError(f'macro {_reference(*here)} refers to itself: {names}')
        self._path.append(here)
        try:
            ((value, key, source),) = _bound(reference.configurable, scopes).values()
            setting, final = self._setting(value, key, source, scopes, macro)
            is_made = reference.configurable.selector == _SINGLETON
            return setting, Reference(final.configurable.wrapped, True) if is_made else final
        finally:
            self._path.pop()


def _bound(configurable: gin.config.Configurable, scopes: list[str]) -> dict[str, _Bound]:
    """Values of a configurable's parameters; of several scopes the innermost wins."""
    values = {name: _Bound(default, None, DEFAULT) for name, default in _defaults(configurable.wrapped).items()}
    for depth in range(len(scopes) + 1):
        scope = '/'.join(scopes[:depth])
        for name, value in gin.config._CONFIG.get((scope, configurable.selector), {}).items():
            key = scope, configurable.selector, name
            # A module that a file imports might bind what no file does.
            values[name] = _Bound(value, key, str(source_of(key) or 'Python code'))
    return values


def _defaults(function: Callable) -> dict[str, object]:
    """Default of each parameter that has a name; `inspect.Parameter.empty` for none."""
    parameters = inspect.signature(function).parameters.values()
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    defaults = {parameter.name: parameter.default for parameter in parameters if parameter.kind not in unnamed}
    for field in dataclasses.fields(function) if dataclasses.is_dataclass(function) else ():
        if field.init and field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _stand_ins(value: object) -> object:
    """The value with something in the place of each reference that tells what it will be."""
    if isinstance(value, gin.config.ConfigurableReference):
        return Reference(value.configurable.wrapped, value.evaluate)
    if isinstance(value, dict):
        return {name: _stand_ins(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_stand_ins, value))
    return value


def _class_name(configurable: gin.config.Configurable) -> str:
    return configurable.selector.split('.')[-1]


def _reference(selector: str, scopes: Sequence[str], is_called: bool) -> str:
    if selector == MACRO:
        return f'%{"/".join(scopes)}'
    return f'@{"/".join([*scopes, selector.split(".")[-1]])}{"()" if is_called else ""}'


def _entry_name(key: object) -> str:
    return key if isinstance(key, str) and key.isidentifier() else f'[{key!r}]'


def _shown(value: object) -> str:
    """A value in an error: short, whatever it is."""
    text = _text(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


def _text(value: object) -> str:
    """A literal in one line; of a class or function its name."""
    if hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    return ' '.join(re.sub(r' at 0x\w+', '', repr(value)).split())
