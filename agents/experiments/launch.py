"""Starts or resumes a run that gin files describe; shared by the command lines."""

import argparse
import errno
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from agents.experiments import gin_config, run_folder
from agents.experiments.experiment import Experiment
from agents.experiments.outputs import is_lost, say, use_open_outputs
from components.types import UserError

FAILED = 2
"""Exit status of an error that does not say another."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What asks a run to end: Ctrl-C, a terminal that closes, and what clusters send before they take a machine back."""

MAX_LENGTH = 500
"""Characters that are shown of a message that was not written for users."""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of a tool's command line, from the tool's docstring; it takes `--traceback`."""
    parser = argparse.ArgumentParser(description=str(description).splitlines()[0])
    parser.add_argument('--traceback', action='store_true', help='show where an error comes from')
    return parser


def run_command(command: Callable[[], int], show_traceback: bool = False) -> int:
    """Calls a command; prints an error in one line and returns the exit status.

    Args:
      command: returns an exit status.
      show_traceback: whether to print where the error comes from before the line.
    """
    use_open_outputs()
    try:
        return command()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_lost(sys.stdout):
            return 0  # The reader has gone, `head` say.
        if show_traceback:
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


def notify(line: str) -> None:
    """Tells a person."""
    say(f'note: {line}', sys.stderr)


def launch(
    gin_files: Sequence[str | os.PathLike],
    bindings: Sequence[str],
    directory: pathlib.Path,
    *,
    extend: bool = False,
    started: float | None = None,
) -> int:
    """Trains in a folder, which is new or that of the same run.

    Args:
      gin_files: as for `gin_config.load`.
      bindings: likewise.
      directory: of the run, as `run_folder.check` returns it.
      extend: whether a run may become longer than it was planned.
      started: when the command was given, in seconds of `time.monotonic`.

    Returns:
      Exit status: 0, or 128 and the number of the signal by which it was stopped.

    Raises:
      ConfigurationError: if the configuration cannot be read or built, or the folder holds another run.
      CompositionError, DivergedError, CheckpointError, EnvironmentFailedError, OSError: as `Experiment.run`.
    """
    before = gin_config.bindings_of(directory / run_folder.CONFIG) if run_folder.has_progress(directory) else None
    gin_config.load(gin_files, bindings)
    gin_config.check_effects(Experiment)
    experiment = gin_config.build(Experiment)
    if before is not None:
        run_folder.check_same_run(before, gin_config.bindings(), directory, extend)
        if not experiment.checkpoint_every:
            raise gin_config.ConfigurationError(
                f'{directory} holds a run without checkpoints (CHECKPOINT_EVERY = 0), which cannot be resumed; choose '
                'another folder'
            )
    for warning in experiment.agent.warnings():
        notify(warning)
    with run_folder.locked(directory, notify):
        run_folder.write_configuration(directory)
        stop = _StopOnSignal()
        config = gin_config.config_str()
        done = experiment.run(directory, config=config, started=started, should_stop=stop, notify=notify)
        run_folder.write_configuration(directory)
    is_complete = done == experiment.num_meta_steps
    say(f'{"results" if is_complete else "stopped; results so far"} are in {directory}', sys.stdout)
    return 0 if is_complete else 128 + stop.signal


class _StopOnSignal:
    """True once the process was asked to end, by Ctrl-C say; asked a second time it ends at once.

    A signal that the process was started to ignore, as `nohup` does, stays ignored.
    """

    def __init__(self):
        self.signal = 0
        self._numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        for number in self._numbers:
            signal.signal(number, self._stop)

    def __call__(self) -> bool:
        return bool(self.signal)

    def _stop(self, signum, frame) -> None:
        self.signal = signum
        for number in self._numbers:
            # Not Python's handler, which would wait for the compiled call that runs.
            signal.signal(number, signal.SIG_DFL)
        say('stopping after this log period; once more to stop at once', sys.stderr)
