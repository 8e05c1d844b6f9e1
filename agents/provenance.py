"""Where each value of a configuration comes from, which gin does not keep."""

import dataclasses
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from agents.configuration import ROOT, find_file, import_lines, one_line_errors, working_directory

DEFAULT = 'default'
"""Source of a value that nothing binds."""

COMMAND_LINE = '--gin_bindings'
"""Source of a value bound by a line instead of a file."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a parameter is set to, and where.

    Attributes:
      value: as a gin file writes it, `0.5` or `@inner/returns.LambdaReturn()`; `{...}`, `[...]` or `(...)` of a container with
        parts.
      source: `file:line` of the binding, the file relative to the checkout if it is inside; or `COMMAND_LINE`, or `DEFAULT`.
      macro: the name that the binding gives instead of the value, `%NUM_ENVS` or `@net/gin.singleton()`; the source is then
        where that is set. Of macros set to macros all are named. Empty for a plain value.
      parts: parameters of a component by name, or entries of a container, `[0]` or by key.
    """

    value: str
    source: str
    macro: str = ''
    parts: Mapping[str, 'Setting'] = dataclasses.field(default_factory=dict)


def settings(cls: type, gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> dict[str, Setting]:
    """How an object of a class is put together by what was loaded: its parameters, in turn with theirs.

    Scopes are resolved as gin does. What is handed over uncalled and without a scope is taken to be called outside of any.

    Args:
      cls: a class that the configuration binds.
      gin_files: what `load` was given.
      bindings: what `load` was given.
    """
    with one_line_errors():
        sources = _sources([find_file(path) for path in gin_files], bindings)
        return _parameter_settings(gin.config._inverse_lookup(cls), [], sources)


_Sources = dict[tuple[str, str, str], str]
"""Where a parameter was bound last, by scope, registered name and parameter."""


def _sources(paths: Sequence[pathlib.Path], bindings: Sequence[str]) -> _Sources:
    """Parses once more what was read without complaint, as gin does not keep where a binding stood."""
    sources: _Sources = {}
    with working_directory(ROOT):
        for path in paths:
            sources |= _sources_in_file(str(path))
        return sources | _sources_in('\n'.join([*import_lines(), *bindings]), lambda line: COMMAND_LINE)


def _sources_in_file(path: str) -> _Sources:
    absolute = pathlib.Path(path).resolve()
    name = absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else absolute
    read = next(read for read, exists in gin.config._FILE_READERS if exists(path))
    with read(path) as file:
        return _sources_in(file, lambda line: f'{name}:{line}')


def _sources_in(text: Any, where: Callable[[int], str]) -> _Sources:
    """Those of a string or an open file, includes included; `where` says what a line of it is called."""
    sources: _Sources = {}
    with gin.config._parse_scope() as context:
        for statement in gin.config_parser.ConfigParser(text, gin.config.ParserDelegate()):
            if isinstance(statement, gin.config_parser.ImportStatement):
                context.process_import(statement)
            elif isinstance(statement, gin.config_parser.IncludeStatement):
                sources |= _sources_in_file(statement.filename)
            elif isinstance(statement, gin.config_parser.BindingStatement):
                key = statement.scope, statement.selector, statement.arg_name
                if not statement.arg_name:
                    key = f'{statement.scope}/{statement.selector}'.lstrip('/'), 'gin.macro', 'value'
                key = gin.config.ParsedBindingKey.parse(key).scope_selector_arg
                sources[key] = where(statement.location.line_num)
    return sources


def _parameter_settings(configurable: Any, scopes: list[str], sources: _Sources) -> dict[str, Setting]:
    """Those of a class or function that is called in these scopes, without what only its caller gives."""
    values = _bound(configurable, scopes, sources)
    return {
        name: _setting(value, source, scopes, sources)
        for name, (value, source) in values.items()
        if value is not inspect.Parameter.empty
    }


def _bound(configurable: Any, scopes: list[str], sources: _Sources) -> dict[str, tuple[Any, str]]:
    """Values of a configurable's parameters and their sources; of several scopes the innermost wins."""
    values = {name: (default, DEFAULT) for name, default in _defaults(configurable.wrapped).items()}
    for depth in range(len(scopes) + 1):
        scope = '/'.join(scopes[:depth])
        for name, value in gin.config._CONFIG.get((scope, configurable.selector), {}).items():
            # A module that a file imports might bind what no file does.
            values[name] = value, sources.get((scope, configurable.selector, name), 'Python code')
    return values


def _defaults(function: Callable) -> dict[str, Any]:
    """Default of each parameter that has a name; `inspect.Parameter.empty` for none."""
    parameters = inspect.signature(function).parameters.values()
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    defaults = {parameter.name: parameter.default for parameter in parameters if parameter.kind not in unnamed}
    for field in dataclasses.fields(function) if dataclasses.is_dataclass(function) else ():
        if field.init and field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _setting(value: Any, source: str, scopes: list[str], sources: _Sources, macro: str = '') -> Setting:
    """A value that is bound to a parameter of what is called in these scopes."""
    if isinstance(value, gin.config.ConfigurableReference):
        # As in gin, a scope of its own replaces that of the surroundings; and a singleton calls what it is handed.
        inner = value.scopes or (scopes if value.evaluate or macro.endswith('.singleton()') else [])
        if value.configurable.selector in ('gin.macro', 'gin.singleton'):
            ((named, named_source),) = _bound(value.configurable, inner, sources).values()
            return _setting(named, named_source, inner, sources, f'{macro} {value!r}'.strip())
        return Setting(repr(value), source, macro, _parameter_settings(value.configurable, inner, sources))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        parts = {name: _setting(field, source, [], sources) for name, field in fields.items()}
        return Setting(f'{type(value).__name__}()', source, macro, parts)
    if isinstance(value, dict | list | tuple) and any(gin.config.iterate_references(value)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = {_entry_name(key): _setting(entry, source, scopes, sources) for key, entry in items}
        return Setting({dict: '{...}', list: '[...]', tuple: '(...)'}[type(value)], source, macro, parts)
    return Setting(_text(value), source, macro)


def _entry_name(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else f'[{key!r}]'


def _text(value: Any) -> str:
    """A literal in one line; of a class or function its name."""
    if hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    return ' '.join(re.sub(r' at 0x\w+', '', repr(value)).split())
