"""Reads gin files, statement by statement, and keeps the place of each binding, which gin does not.

A binding is the same in both of gin's spellings: a line `inner/returns.LambdaReturn.discount = 0.9`, or an indented
line `discount = 0.9` below the line `inner/returns.LambdaReturn:`. No other module looks at the text of a gin file, so
that no check depends on how a binding is spelled.
"""

import contextlib
import os
import pathlib
import tokenize
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import gin

from agents.experiments.old_names import MOVED_FILES, Binding, ReadsOldNames
from components.types import ConfigurationError

if not hasattr(gin, 'configurable'):
    raise ImportError("the package that imports as 'gin' is not gin-config: python -m pip install gin-config")

ROOT = pathlib.Path(__file__).resolve().parents[2]
"""Root of the checkout."""

COMMAND_LINE = '--gin_bindings'
"""Source of a value bound by a line instead of a file."""

Key = tuple[str, str, str]
"""A binding: scope, registered name of what is configured, parameter."""

MACRO = 'gin.macro'
"""Registered name of a macro, whose name is the scope."""


class Source(NamedTuple):
    """Where a binding stands.

    Attributes:
      file: path of the file; None for a line of the command line.
      line: number of the line in the file.
      is_included: whether another file includes that file.
    """

    file: pathlib.Path | None = None
    line: int = 0
    is_included: bool = False

    def __str__(self) -> str:
        return COMMAND_LINE if self.file is None else f'{_short(self.file)}:{self.line}'


_SOURCES: dict[Key, Source] = {}
"""Source of each binding that was read last, beside gin's own global state."""


def clear() -> None:
    """Forgets what was read."""
    _SOURCES.clear()
    gin.clear_config()


def source_of(key: Key) -> Source | None:
    """Where a binding stands; None for one that no file holds, such as one of a module that a file imports."""
    return _SOURCES.get(key)


def name_of(key: Key) -> str:
    """A binding as a gin file writes it."""
    scope, selector, parameter = key
    if selector == MACRO:
        return scope
    return f'{scope}/{".".join(selector.split(".")[-2:])}.{parameter}'.lstrip('/')


def read_file(path: pathlib.Path, including: Sequence[pathlib.Path] = ()) -> None:
    """Reads a gin file and what it includes; later bindings replace earlier ones.

    Args:
      path: as `find_file` returns it.
      including: the files that include it, outermost first.

    Raises:
      ConfigurationError: if it cannot be read; the message names the file and the line.
    """
    if path in including:
        circle = ' includes '.join(map(_short, [*including[including.index(path) :], path]))
        raise ConfigurationError(f'a gin file includes itself: {circle}')
    try:
        text = path.read_text(encoding='utf-8-sig')  # With or without a byte order mark.
    except UnicodeDecodeError as error:
        raise ConfigurationError(f'{_short(path)} is not a text file in UTF-8: {error.reason}') from error
    _read(text, [*including, path])


def read_lines(lines: Sequence[str]) -> None:
    """Reads lines as of the command line; they can use what the files before them import.

    Raises:
      ConfigurationError: if they cannot be read.
    """
    _read('\n'.join([*import_lines(), *lines]), [])


def import_lines() -> list[str]:
    """Import lines of everything read so far."""
    imports = gin.config.ImportManager(gin.config._IMPORTS).sorted_imports
    return [statement.format() for statement in imports]


def find_file(path: str | os.PathLike, beside: Sequence[pathlib.Path] = ()) -> pathlib.Path:
    """Finds a gin file beside the file that includes it, in the working directory, or in the checkout.

    A file of the checkout finds what it includes in the checkout before the working directory.

    Args:
      path: absolute, or relative to one of these folders.
      beside: the files that include it, outermost first.

    Raises:
      ConfigurationError: if it is in none of them, or cannot be read; of a shipped file that has moved the message
        names the new path.
    """
    folders = [pathlib.Path.cwd(), ROOT]
    if beside and beside[-1].is_relative_to(ROOT):
        folders.reverse()
    folders = [*(including.parent for including in beside[-1:]), *folders]
    candidates = list(dict.fromkeys(folder / path for folder in folders))
    for candidate in candidates:
        with contextlib.suppress(OSError, ValueError):  # A name too long, or with a null character.
            if candidate.is_file() and os.access(candidate, os.R_OK):
                return candidate.resolve()
    for candidate in candidates:
        if moved := MOVED_FILES.get(os.path.relpath(candidate, ROOT)):
            raise ConfigurationError(f'gin file {str(path)!r} has moved: name {moved!r} instead')
    message = f'gin file {str(path)!r} is missing or cannot be read; searched {", ".join(map(str, candidates))}'
    if not (ROOT / 'gin/base/run.gin').is_file():
        message += '; the gin files are not part of an installed package: run from a checkout of the project'
    raise ConfigurationError(message)


def _read(text: str, files: Sequence[pathlib.Path]) -> None:
    """Reads the text of the last of these files, each included by the one before; of the command line if empty."""
    with _parse_scope() as context:
        with _located(files):
            statements = _ConfigParser(text, gin.config.ParserDelegate())
        while True:
            with _located(files):
                statement = next(statements, None)
            if statement is None:
                break
            with _located(files, statement.location.line_num):
                _take(statement, context, files)
        gin.config._IMPORTS.update(context.imports)


class _ConfigParser(gin.config_parser.ConfigParser):
    """gin's parser, which refuses a key that a dictionary has twice: the first would be lost without a word."""

    def __init__(self, text: str, delegate: gin.config_parser.ParserDelegate):
        self._keys: list[set[object]] = []
        super().__init__(text, delegate)

    def _maybe_parse_container(self) -> tuple[bool, object]:
        self._keys.append(set())
        try:
            return super()._maybe_parse_container()
        finally:
            self._keys.pop()

    def _parse_dict_item(self) -> tuple[object, object]:
        key, value = super()._parse_dict_item()
        if isinstance(key, str) and key in self._keys[-1]:
            self._raise_syntax_error(f'the dictionary has the key {key!r} twice; keep one of the two')
        self._keys[-1].add(key if isinstance(key, str) else None)
        return key, value


class _ParseContext(ReadsOldNames, gin.config.ParseContext):
    """gin's context of a file.

    Attributes:
      lines: where the file binds what, by scope and name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[tuple[str, str], int] = {}


@contextlib.contextmanager
def _parse_scope() -> Iterator[_ParseContext]:
    """A context in which a file is parsed, as gin's `_parse_scope`."""
    context = _ParseContext()
    gin.config._PARSE_CONTEXTS.append(context)
    try:
        yield context
    finally:
        gin.config._PARSE_CONTEXTS.pop()


def _take(statement: object, context: _ParseContext, files: Sequence[pathlib.Path]) -> None:
    parser = gin.config_parser
    if isinstance(statement, parser.ImportStatement):
        context.process_import(statement)
    elif isinstance(statement, parser.IncludeStatement):
        try:
            path = find_file(statement.filename, files)
        except ConfigurationError as error:
            raise ConfigurationError(f'{_place(files, statement.location.line_num)}: {error}') from error
        read_file(path, files)
    elif isinstance(statement, parser.BlockDeclaration):
        if not context.get_configurable(statement.selector):
            gin.config._raise_unknown_configurable_error(statement.selector)
    else:
        _bind(statement, context, files)


def _bind(statement: gin.config_parser.BindingStatement, context: _ParseContext, files: Sequence[pathlib.Path]) -> None:
    """Binds what a statement says, one of a block or not."""
    source = Source()
    if files:
        source = Source(files[-1], statement.location.line_num, len(files) > 1)
        _check_bound_once(statement, context, files)
    scope, bindings = statement.scope, [Binding(MACRO, 'value')]
    if statement.arg_name:
        bindings = context.today(statement.selector, statement.arg_name)
    else:
        scope = f'{statement.scope}/{statement.selector}'.lstrip('/')
    for selector, field, part, is_default in bindings:
        key = gin.config.ParsedBindingKey.parse((scope, selector, field)).scope_selector_arg
        if not is_default or field not in gin.config._CONFIG.get(key[:2], {}):
            value = gin.config.ConfigurableReference(part, True) if part else statement.value
            gin.bind_parameter((scope, selector, field), value)
            _SOURCES[key] = source


def _check_bound_once(
    statement: gin.config_parser.BindingStatement, context: _ParseContext, files: Sequence[pathlib.Path]
) -> None:
    """Raises ConfigurationError for what the same file has bound before, which would have no effect.

    Names of older versions count as they stand: two of them may be one today, in a run's own file too.
    """
    line, name = statement.location.line_num, '.'.join(filter(None, [statement.selector, statement.arg_name]))
    first = context.lines.setdefault((statement.scope, context.full_name(name)), line)
    if first != line:
        name = f'{statement.scope}/{name}'.lstrip('/')
        raise ConfigurationError(f'{_place(files, line)}: {name} is bound in line {first} already; keep one of the two')


@contextlib.contextmanager
def _located(files: Sequence[pathlib.Path], line: int | None = None) -> Iterator[None]:
    """Turns what parsing, or an import, raises into a `ConfigurationError` that names the file and the line."""
    try:
        yield
    except ConfigurationError:
        raise
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise ConfigurationError(f'{_place(files, line)}: {message}') from error
    except SyntaxError as error:
        raise ConfigurationError(f'{_place(files, line or error.lineno)}: {_syntax_message(error)}') from error
    except RecursionError as error:
        raise ConfigurationError(f'{_place(files, line)}: nested too deeply') from error
    except (Exception, SystemExit) as error:  # Of a module that is imported, anything.
        raise ConfigurationError(f'{_place(files, line)}: {one_line(error)}') from error


def _place(files: Sequence[pathlib.Path], line: int | None) -> str:
    if not files:
        return COMMAND_LINE
    return f'{_short(files[-1])}, line {line}' if line else _short(files[-1])


def _syntax_message(error: SyntaxError) -> str:
    message, text = ' '.join(str(error.msg).split()), ' '.join((error.text or '').split())
    if 'malformed node' in message:
        message = 'not a Python literal; strings need quotes, references an @ and macros a %'
    return f'{message}: {text[:200]}' if text else message


def one_line(error: BaseException) -> str:
    """An error's message in one line, after its type where the message alone says little."""
    message = ' '.join(str(error).split())
    known = isinstance(error, ValueError | TypeError | NameError | AttributeError | ImportError | OSError)
    return message if known and message else f'{type(error).__name__}: {message}'.rstrip(': ')


def _short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
