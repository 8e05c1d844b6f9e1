"""Reads gin configurations, checks and builds what they describe, and explains errors in one line."""

import contextlib
import difflib
import importlib.util  # gin needs it imported when it looks for files.
import inspect
import math
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import gin

from agents.experiments import gin_reader, provenance
from agents.experiments.gin_reader import MACRO, find_file, name_of, one_line
from components.types import ConfigurationError, UserError

assert importlib.util

T = TypeVar('T')

ROOT = gin_reader.ROOT
"""Root of the checkout."""

SAVED = 'config.gin'
"""Name of the file in which a run keeps its configuration."""


def load(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> None:
    """Reads files in order, then bindings; of several values the last wins. Forgets what was read before.

    Args:
      gin_files: paths, relative to the working directory or else to the root of the checkout.
      bindings: lines as in a gin file, imports and includes among them; they can use the names that the files import.

    Raises:
      ConfigurationError: if a file is missing or wrong, a required macro is not set, a macro is not used, or a value
        cannot be written to a gin file.
    """
    paths = [find_file(path) for path in gin_files]
    gin_reader.clear()
    with _readable_errors():
        for path in paths:
            gin_reader.read_file(path)
        gin_reader.read_lines(bindings)
        _check_macros()
        _check_values()
        # As a run's config.gin will have it, so that the order of dictionaries, say, is the same when it resumes.
        text = config_str()
        gin.clear_config()
        gin.parse_config(text)
        gin.finalize()


def build(cls: type[T]) -> T:
    """Makes an object of a class that the configuration binds, and everything that it refers to.

    Arguments are checked before anything is made.

    Raises:
      ConfigurationError: if an argument is missing, or not of its annotation's type or range; or if a constructor
        refuses its arguments.
    """
    for problem in provenance.problems(cls):
        raise ConfigurationError(problem)
    with _readable_errors():
        return gin.get_configurable(cls)()


def check_effects(cls: type) -> None:
    """Checks that every binding has an effect on what is built; those of a run's own file are not checked.

    Raises:
      ConfigurationError: if one has none; the message names the bindings that take its place.
    """
    unused = unused_bindings(cls)
    if unused:
        raise ConfigurationError('; '.join(map(str, unused)))


def unused_bindings(cls: type) -> list[provenance.UnusedBinding]:
    """Bindings that have no effect on what is built; those that a run's own file holds are left out."""
    return [
        binding
        for binding in provenance.unused_bindings(cls)
        if binding.source.file is None or binding.source.file.name != SAVED
    ]


def config_str() -> str:
    """Everything that was asked for, as one file that can be run again."""
    return gin.config._config_str(_writable(gin.config._CONFIG))


def operative_config_str() -> str:
    """Every value that was used so far, defaults included."""
    return gin.config._config_str(_writable(gin.config._OPERATIVE_CONFIG))


def bindings_of(gin_file: str | os.PathLike) -> dict[str, str]:
    """`bindings` of a file; forgets what was read before.

    Raises:
      ConfigurationError: if the file is missing or wrong.
    """
    load([gin_file])
    return bindings()


def bindings_of_run(directory: pathlib.Path, name: str = SAVED) -> dict[str, str]:
    """`bindings` of a run's own file, which is read once: a run has written it, so that it is as gin writes it.

    Args:
      directory: of the run.
      name: of the file: what was asked for, or every value used.

    Raises:
      ConfigurationError: if the file is missing or wrong.
    """
    gin_reader.clear()
    with _readable_errors():
        gin_reader.read_file(find_file(directory / name))
    return bindings()


def bindings() -> dict[str, str]:
    """Everything that was asked for: values by the names of macros and of parameters.

    Classes are named by their modules, whatever a file calls these.
    """
    flat = {}
    for (scope, selector), parameters in gin.config._CONFIG.items():
        name = '/'.join(filter(None, [scope, _full_name(gin.config._REGISTRY[selector].wrapped)]))
        for parameter, value in parameters.items():
            flat[scope if selector == MACRO else f'{name}.{parameter}'] = repr(_named(value))
    return flat


class _Name(str):
    """A reference in a value, which prints as in a gin file."""

    def __repr__(self) -> str:
        return str(self)


def _named(value: object) -> object:
    """The value with references named by the modules of what they refer to."""
    if isinstance(value, dict):
        return {name: _named(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_named, value))
    if not isinstance(value, gin.config.ConfigurableReference) or repr(value).startswith('%'):
        return value
    name = '/'.join([*value.scopes, _full_name(value.configurable.wrapped)])
    return _Name(f'@{name}()' if value.evaluate else f'@{name}')


def _full_name(function: Callable) -> str:
    return f'{function.__module__}.{function.__qualname__}'


class _Infinity(float):
    """An infinite number as Python's literals have it: gin leaves out what they cannot say."""

    def __repr__(self) -> str:
        return '1e999' if self > 0 else '-1e999'


def _writable(value: object) -> object:
    """The value, a container of values among them, in a form that gin writes as it reads it."""
    if isinstance(value, dict):
        return {name: _writable(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_writable, value))
    return _Infinity(value) if isinstance(value, float) and math.isinf(value) else value


def _check_values() -> None:
    """Raises ConfigurationError for a value that no gin file could hold, which would be lost when the run resumes."""
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for parameter, value in parameters.items():
            if not _is_literal(value):
                name = name_of((scope, selector, parameter))
                raise ConfigurationError(f'{name} = {value!r} cannot be written to a gin file: bind a plain value')


def _is_literal(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_literal, value)) and all(map(_is_literal, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_literal, value))
    if isinstance(value, float | complex):
        return value == value  # Not a NaN.
    return value is None or isinstance(value, bool | int | str | bytes | gin.config.ConfigurableReference)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turns what gin, or a constructor that it calls, raises into a `ConfigurationError` of one line."""
    try:
        yield
    except UserError as error:
        raise ConfigurationError(_readable(str(error))) from error
    except RecursionError as error:
        raise ConfigurationError('the configuration is nested too deeply') from error
    except (Exception, SystemExit) as error:  # Of a constructor, anything.
        raise ConfigurationError(_readable(one_line(error))) from error


def _readable(message: str) -> str:
    """One of gin's messages without its own terms, and with the names that may have been meant."""
    message = ' '.join(message.split())
    message = re.sub(r" \(<class '[\w.]+'>\)", '', message)
    built = re.findall(r" In call to configurable '([\w.]+)'", message)
    message = re.sub(r" In call to configurable '[\w.]+'( in scope '[\w/]*')?", '', message)
    if built and built[0] not in message and not re.match(r'[\w/]+\.\w+', message):
        message = f'{built[0]}: {message}'
    return message + _nearest_names(message)


def _nearest_names(message: str) -> str:
    """What an unknown name in one of gin's messages may have been meant to be."""
    if match := re.search(r"selector ([\w.]+); <module '([\w.]+)'.* has no attribute (\w+)", message):
        name, names = match[3], _own_names(sys.modules[match[2]])
    elif match := re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", message):
        name, names = match[2], _parameters(match[1])
    elif 'was not provided by an import statement' in message:
        if not message.startswith(gin_reader.COMMAND_LINE):
            return '; every gin file imports what it names'
        names = sorted(line.split()[-1] for line in gin_reader.import_lines() if '__gin__' not in line)
        return f'; --gin_bindings can name what the files import: {", ".join(names)}; or pass an import line first'
    else:
        return ''
    return _did_you_mean(name, [name for name in names if not name.startswith('_')])


def _own_names(module: types.ModuleType) -> list[str]:
    """What a module defines, or its package; not what it imports from elsewhere, such as types."""
    package = module.__name__.partition('.')[0]
    objects = vars(module).items()
    return [name for name, value in objects if str(getattr(value, '__module__', '')).partition('.')[0] == package]


def _parameters(selector: str) -> list[str]:
    """Parameters of a registered configurable, named as in a gin file."""
    for _, configurable in gin.config._REGISTRY.items():
        if configurable.selector.endswith(selector):
            return list(inspect.signature(configurable.wrapped).parameters)
    return []


def _check_macros() -> None:
    """Raises ConfigurationError if a macro is undefined, unused, or required and not set."""
    config = gin.config._CONFIG
    macros = {name for name, selector in config if selector == MACRO}
    used = set()
    for (scope, selector), parameters in config.items():
        for parameter, value in parameters.items():
            for reference in gin.config.iterate_references(value):
                if reference.configurable.selector == MACRO:
                    used.add('/'.join(reference.scopes))
                elif repr(reference) == '%gin.REQUIRED':
                    name = name_of((scope, selector, parameter))
                    raise ConfigurationError(
                        f'{name} is required and not set: add `{name} = ...` to a gin file, or pass '
                        f"--gin_bindings '{name} = ...'"
                    )
    for name in sorted(used - macros):
        raise ConfigurationError(f'macro %{name} is used but not defined{_did_you_mean(name, macros)}')
    for name in sorted(macros - used):
        raise ConfigurationError(f'macro {name} is defined but nothing uses it{_did_you_mean(name, used)}')


def _did_you_mean(name: str, names: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if nearest:
        return f'; did you mean {" or ".join(nearest)}?'
    return f'; there are {", ".join(sorted(names))}' if names else ''
