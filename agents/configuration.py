"""The only module that knows gin: reads configurations, builds what they describe, says clearly what is wrong."""

import contextlib
import dataclasses
import difflib
import importlib.util  # gin needs it imported when it looks for files.
import inspect
import os
import pathlib
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gin

assert importlib.util
if not hasattr(gin, 'configurable'):
    raise ImportError("the package that imports as 'gin' is not gin-config: python -m pip install gin-config")

T = TypeVar('T')

ROOT = pathlib.Path(__file__).resolve().parent.parent
"""Root of the checkout, which `include`s are relative to."""


DEFAULT = 'default'
"""Source of a value that nothing binds."""

COMMAND_LINE = '--gin_bindings'
"""Source of a value bound by a line instead of a file."""


class ConfigurationError(ValueError):
    """A configuration that cannot be read or built; the message is one line that names the thing and the way out."""


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


def load(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> None:
    """Reads files in order, then bindings; of several values the last wins. Forgets what was read before.

    Args:
      gin_files: paths, relative to the working directory or else to the root of the checkout.
      bindings: lines as in a gin file, which can use the names that the files import.

    Raises:
      ConfigurationError: if a file is missing or wrong, a required macro is not set, or a macro is not used.
    """
    paths = [_find(path) for path in gin_files]
    gin.clear_config()
    with _working_directory(ROOT):
        for path in paths:
            with _one_line_errors(path):
                gin.parse_config_file(str(path))
        with _one_line_errors():
            if bindings:
                gin.parse_config([*_imports(), *bindings])
            _check_macros()
            gin.finalize()


def build(cls: type[T]) -> T:
    """Makes an object of a class that the configuration binds, and everything that it refers to.

    Raises:
      ConfigurationError: if a constructor refuses its arguments.
    """
    with _one_line_errors():
        return gin.get_configurable(cls)()


def config_str() -> str:
    """Everything that was asked for, as one file that can be run again."""
    return gin.config_str()


def operative_config_str() -> str:
    """Every value that was used so far, defaults included."""
    return gin.operative_config_str()


def bindings_without_effect(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> list[str]:
    """Bindings that nothing uses, of those written in these files and lines; to be asked once everything is built.

    What the files include is left out: a base file may bind what only some variants have. A binding is used if its
    configurable was called in the binding's scope or in one inside it.
    """
    text = '\n'.join([*(_find(path).read_text() for path in gin_files), *bindings])
    written = set(re.findall(r'^(?:([\w/]+)/)?(?:\w+\.)*(\w+)\.(\w+) *=', text, re.MULTILINE))
    used = {(tuple(filter(None, scope.split('/'))), selector) for scope, selector in gin.config._OPERATIVE_CONFIG}
    unused = []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        scopes, name = tuple(filter(None, scope.split('/'))), selector.split('.')[-1]
        if not any(name == selector and called[: len(scopes)] == scopes for called, name in used):
            unused += [f'{scope}/{name}.{p}'.lstrip('/') for p in parameters if (scope, name, p) in written]
    return sorted(unused)


def settings(cls: type, gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> dict[str, Setting]:
    """How an object of a class is put together by what was loaded: its parameters, in turn with theirs.

    Scopes are resolved as gin does. What is handed over uncalled and without a scope is taken to be called outside of any.

    Args:
      cls: a class that the configuration binds.
      gin_files: what `load` was given.
      bindings: what `load` was given.
    """
    with _one_line_errors():
        sources = _sources([_find(path) for path in gin_files], bindings)
        return _parameter_settings(gin.config._inverse_lookup(cls), [], sources)


def _find(path: str | os.PathLike) -> pathlib.Path:
    candidates = [pathlib.Path.cwd() / path, ROOT / path]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.R_OK):
            return candidate.resolve()
    searched = ', '.join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise ConfigurationError(f'gin file {str(path)!r} is missing or cannot be read; searched {searched}')


def _imports() -> list[str]:
    """The import lines of the files read so far."""
    return re.findall(r'^(?:from|import) .*$', gin.config_str(), re.MULTILINE)


@contextlib.contextmanager
def _working_directory(path: pathlib.Path) -> Iterator[None]:
    # gin looks for includes in the working directory first: a file of that name there must not win over ours.
    before = pathlib.Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _one_line_errors(path: pathlib.Path | None = None) -> Iterator[None]:
    """Turns what gin, or a constructor that it calls, raises into a `ConfigurationError` of one line."""
    try:
        yield
    except ConfigurationError:
        raise
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise ConfigurationError(f'{f"{path}, line {line}" if path else "--gin_bindings"}: {message}') from error
    except SyntaxError as error:
        raise ConfigurationError(_syntax_error(error, path)) from error
    except (ValueError, TypeError, NameError, AttributeError, ImportError, OSError) as error:
        message = re.sub(r" \(<class '[\w.]+'>\)", '', ' '.join(str(error).split()))
        message = re.sub(r'In bindings string line \d+', 'In --gin_bindings', message)
        message = message.replace("Searched config paths: ['']", f'Searched {ROOT}')
        raise ConfigurationError(message + _nearest_names(message)) from error


def _syntax_error(error: SyntaxError, path: pathlib.Path | None) -> str:
    where = f'{path}, line {error.lineno}' if path else '--gin_bindings'
    message = ' '.join(error.msg.split())
    if 'malformed node' in message:
        message = 'not a Python literal; strings need quotes, references an @ and macros a %'
    return f'{where}: {message}: {(error.text or "").strip()}'


def _nearest_names(message: str) -> str:
    """What an unknown name in one of gin's messages may have been meant to be."""
    if match := re.search(r"selector ([\w.]+); <module '([\w.]+)'.* has no attribute (\w+)", message):
        name, names = match[3], dir(sys.modules[match[2]])
    elif match := re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", message):
        name, names = match[2], _parameters(match[1])
    elif 'was not provided by an import statement' in message:
        if '--gin_bindings' not in message:
            return '; every gin file imports what it names'
        names = sorted(line.split()[-1] for line in _imports() if '__gin__' not in line)
        return f'; --gin_bindings can name what the files import: {", ".join(names)}'
    else:
        return ''
    return _did_you_mean(name, [name for name in names if not name.startswith('_')])


def _parameters(selector: str) -> list[str]:
    """Parameters of a registered configurable, named as in a gin file."""
    for _, configurable in gin.config._REGISTRY.items():
        if configurable.selector.endswith(selector):
            return list(inspect.signature(configurable.wrapped).parameters)
    return []


def _check_macros() -> None:
    """Raises ConfigurationError if a macro is undefined, unused, or required and not set."""
    config = gin.config._CONFIG
    macros = {name for name, selector in config if selector == 'gin.macro'}
    used = set()
    for (scope, selector), parameters in config.items():
        for parameter, value in parameters.items():
            for reference in gin.config.iterate_references(value):
                if reference.configurable.selector == 'gin.macro':
                    used.add('/'.join(reference.scopes))
                elif repr(reference) == '%gin.REQUIRED':
                    name = scope if selector == 'gin.macro' else f'{scope}/{selector}.{parameter}'.lstrip('/')
                    raise ConfigurationError(
                        f'{name} is required and not set: add `{name} = ...` to a gin file, or pass '
                        f"--gin_bindings '{name} = ...'"
                    )
    for name in sorted(used - macros):
        raise ConfigurationError(f'macro %{name} is used but not defined{_did_you_mean(name, macros)}')
    for name in sorted(macros - used):
        raise ConfigurationError(f'macro {name} is defined but nothing uses it{_did_you_mean(name, used)}')


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(nearest)}?' if nearest else f'; there are {", ".join(sorted(names))}'


_Sources = dict[tuple[str, str, str], str]
"""Where a parameter was bound last, by scope, registered name and parameter."""


def _sources(paths: Sequence[pathlib.Path], bindings: Sequence[str]) -> _Sources:
    """Parses once more what was read without complaint, as gin does not keep where a binding stood."""
    sources: _Sources = {}
    with _working_directory(ROOT):
        for path in paths:
            sources |= _sources_in_file(str(path))
        return sources | _sources_in('\n'.join([*_imports(), *bindings]), lambda line: COMMAND_LINE)


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
        inner = value.scopes or (scopes if value.evaluate or macro.endswith('gin.singleton()') else [])
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
