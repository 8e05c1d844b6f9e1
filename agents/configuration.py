"""Reads gin configurations, builds what they describe, says clearly what is wrong. Nobody but `provenance` knows gin besides."""

import contextlib
import difflib
import importlib.util  # gin needs it imported when it looks for files.
import inspect
import os
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import gin

assert importlib.util
if not hasattr(gin, 'configurable'):
    raise ImportError("the package that imports as 'gin' is not gin-config: python -m pip install gin-config")

T = TypeVar('T')

ROOT = pathlib.Path(__file__).resolve().parent.parent
"""Root of the checkout, which `include`s are relative to."""


class ConfigurationError(ValueError):
    """A configuration that cannot be read or built; the message is one line that names the thing and the way out."""


def load(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> None:
    """Reads files in order, then bindings; of several values the last wins. Forgets what was read before.

    Args:
      gin_files: paths, relative to the working directory or else to the root of the checkout.
      bindings: lines as in a gin file, which can use the names that the files import.

    Raises:
      ConfigurationError: if a file is missing or wrong, a required macro is not set, or a macro is not used.
    """
    paths = [find_file(path) for path in gin_files]
    gin.clear_config()
    with working_directory(ROOT):
        for path in paths:
            with one_line_errors(path):
                gin.parse_config_file(str(path))
        with one_line_errors():
            if bindings:
                gin.parse_config([*import_lines(), *bindings])
            _check_macros()
            # As a run's config.gin will have it, so that order in dictionaries, say, is the same when it goes on.
            text = gin.config_str()
            gin.clear_config()
            gin.parse_config(text)
            gin.finalize()


def build(cls: type[T]) -> T:
    """Makes an object of a class that the configuration binds, and everything that it refers to.

    Raises:
      ConfigurationError: if a constructor refuses its arguments.
    """
    with one_line_errors():
        return gin.get_configurable(cls)()


def config_str() -> str:
    """Everything that was asked for, as one file that can be run again."""
    return gin.config_str()


def operative_config_str() -> str:
    """Every value that was used so far, defaults included."""
    return gin.operative_config_str()


def bindings_of(gin_file: str | os.PathLike) -> dict[str, str]:
    """`bindings` of a file; forgets what was read before.

    Raises:
      ConfigurationError: if the file is missing or wrong.
    """
    load([gin_file])
    return bindings()


def bindings() -> dict[str, str]:
    """Everything that was asked for: values by the names of macros and of parameters, as in a gin file."""
    flat = {}
    for (scope, selector), parameters in gin.config._CONFIG.items():
        name = scope if selector == 'gin.macro' else f'{scope}/{selector}'.lstrip('/')
        for parameter, value in parameters.items():
            flat[name if selector == 'gin.macro' else f'{name}.{parameter}'] = repr(value)
    return flat


def bindings_without_effect(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> list[str]:
    """Bindings that nothing uses, of those written in these files and lines; to be asked once everything is built.

    What the files include is left out: a base file may bind what only some variants have. A binding is used if its
    configurable was called in the binding's scope or in one inside it.
    """
    text = '\n'.join([*(find_file(path).read_text() for path in gin_files), *bindings])
    written = set(re.findall(r'^(?:([\w/]+)/)?(?:\w+\.)*(\w+)\.(\w+) *=', text, re.MULTILINE))
    used = {(tuple(filter(None, scope.split('/'))), selector) for scope, selector in gin.config._OPERATIVE_CONFIG}
    unused = []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        scopes, name = tuple(filter(None, scope.split('/'))), selector.split('.')[-1]
        if not any(name == selector and called[: len(scopes)] == scopes for called, name in used):
            unused += [f'{scope}/{name}.{p}'.lstrip('/') for p in parameters if (scope, name, p) in written]
    return sorted(unused)


def find_file(path: str | os.PathLike) -> pathlib.Path:
    """A gin file, from the working directory or else from the root of the checkout.

    Raises:
      ConfigurationError: if it is in neither, or cannot be read.
    """
    candidates = [pathlib.Path.cwd() / path, ROOT / path]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.R_OK):
            return candidate.resolve()
    searched = ', '.join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise ConfigurationError(f'gin file {str(path)!r} is missing or cannot be read; searched {searched}')


def import_lines() -> list[str]:
    """The import lines of the files read so far."""
    return re.findall(r'^(?:from|import) .*$', gin.config_str(), re.MULTILINE)


@contextlib.contextmanager
def working_directory(path: pathlib.Path) -> Iterator[None]:
    """Changes to a folder and back."""
    # gin looks for includes in the working directory first: a file of that name there must not win over ours.
    before = pathlib.Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def one_line_errors(path: pathlib.Path | None = None) -> Iterator[None]:
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
        names = sorted(line.split()[-1] for line in import_lines() if '__gin__' not in line)
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
