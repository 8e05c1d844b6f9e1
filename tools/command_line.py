"""The frame of the command-line tools: options that several of them take, and errors in one line with a status."""

import argparse
import errno
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from agents.experiments.outputs import is_lost, say, use_open_outputs
from agents.experiments.restore import BEST
from agents.experiments.run_folder import CONFIG
from components.types import ConfigurationError, UserError
from tools.option_types import integers

FAILED = 2
"""Exit status of an error that does not say another."""

MAX_LENGTH = 500
"""Characters that are shown of a message that was not written for users."""


class Parser(argparse.ArgumentParser):
    """The parser of a tool's command line; it takes `--traceback`.

    Args:
      description: the tool's docstring, of which `--help` shows the first line.
    """

    def __init__(self, description: str | None):
        super().__init__(description=str(description).splitlines()[0])
        self.add_argument('--traceback', action='store_true', help='show where an error comes from')

    def add_gin_file(self, about: str = 'read in order; repeatable', *, required: bool = False) -> None:
        """Adds `--gin_file`, a list; None if it is not given."""
        self.add_argument('--gin_file', action='append', metavar='FILE', required=required, help=about)

    def add_gin_bindings(self, about: str = 'repeatable') -> None:
        """Adds `--gin_bindings`, a list, which is empty if it is not given."""
        self.add_argument('--gin_bindings', action='append', default=[], metavar='LINE', help=about)

    def add_checkpoint(self) -> None:
        """Adds `--checkpoint`, as `restore.restore_learner` takes it."""
        about = f'meta-updates, or {BEST}; default: the newest'
        self.add_argument('--checkpoint', type=_checkpoint, metavar='N', help=about)

    def add_checkpoints(self, *, newest: bool) -> None:
        """Adds `--checkpoints`, as `restore.restore_learners` takes them.

        Args:
          newest: whether the default is the newest one; else all that there are.
        """
        about = f'meta-updates, such as 100,200, or all; default: {"the newest" if newest else "all"}'
        default = [None] if newest else None
        self.add_argument('--checkpoints', type=_checkpoints, default=default, metavar='N,N', help=about)

    def add_environment(self) -> None:
        """Adds `--environment` and `--gin_bindings`, as `restore.in_environment` takes them."""
        value = "a value for agent.Agent.environment such as '@batch.Batch()'"
        about = f"a gin file, read after the run's, or {value}; default: the run's own"
        self.add_argument('--environment', metavar='E', help=about)
        self.add_gin_bindings('read last, of the environment; repeatable')

    def error(self, message: str) -> NoReturn:
        """Raises ConfigurationError, in the place of argparse's several lines."""
        raise ConfigurationError(message.removeprefix('argument ').replace(': must', ' must', 1))


def run_command(
    parser: Parser, command: Callable[[argparse.Namespace], int], arguments: list[str] | None = None
) -> int:
    """Calls a command with its arguments; prints an error in one line and returns the exit status.

    Args:
      parser: of the arguments.
      command: returns an exit status.
      arguments: those of the command line if None.
    """
    use_open_outputs()
    if str(pathlib.Path.cwd()) not in sys.path:  # Gin files can import what lies there.
        sys.path.append(str(pathlib.Path.cwd()))
    args = argparse.Namespace(traceback=False)
    try:
        args = parser.parse_args(arguments)
        return command(args)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_lost(sys.stdout):
            return 0  # The reader has gone, `head` say.
        if args.traceback:
            say(traceback.format_exc().rstrip(), sys.stderr)
        say(f'error: {_in_one_line(error)}', sys.stderr)
        return error.exit_status if isinstance(error, UserError) else FAILED


def _in_one_line(error: Exception) -> str:
    # gin adds where it was called to what a constructor says.
    message = re.sub(r" In call to configurable '.*$", '', ' '.join(str(error).split()))
    if isinstance(error, UserError):
        return message
    if isinstance(error, OSError):
        full = ': make room and give the same command again; what was written stands'
        return f'{message}{full if error.errno == errno.ENOSPC else ""}'
    if len(message) > MAX_LENGTH:
        message = f'{message[:MAX_LENGTH]}...'
    return f'{type(error).__name__}: {message}; --traceback shows where it comes from'


def configuration(args: argparse.Namespace) -> list[str | pathlib.Path]:
    """The gin files that are asked for: `--gin_file`, or the configuration of the run in `--workdir`.

    Raises:
      ConfigurationError: if neither is given.
    """
    if args.gin_file:
        return args.gin_file
    if not args.workdir:
        raise ConfigurationError('give --gin_file, or the --workdir of a run')
    return [args.workdir / CONFIG]


def _checkpoint(text: str) -> int | str:
    if text != BEST and not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be a number or {BEST}, got {text}')
    return text if text == BEST else int(text)


def _checkpoints(text: str) -> list[int] | None:
    return None if text == 'all' else integers(text)
