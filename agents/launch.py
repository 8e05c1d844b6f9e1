"""Starts a run that gin files describe, or goes on with it: what the command lines share."""

import errno
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence

from agents import configuration, workdir
from agents.experiment import Experiment
from components.checkpoints import CheckpointError
from components.types import CompositionError, DivergedError

FAILED, DIVERGED = 2, 3
"""Exit statuses."""


def explained(command: Callable[[], int]) -> int:
    """Calls a command; where it raises an error of ours, or a disk is full, prints one line and returns the status."""
    try:
        return command()
    except DivergedError as error:
        print(f'error: {error}', file=sys.stderr)
        return DIVERGED
    except (configuration.ConfigurationError, CompositionError, CheckpointError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        way_out = ': make room and give the same command again; what was written stands' if full else ''
        print(f'error: {" ".join(str(error).split())}{way_out}', file=sys.stderr)
        return FAILED


def notify(line: str) -> None:
    """Tells a person."""
    print(f'note: {line}', file=sys.stderr, flush=True)


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
      gin_files: as for `configuration.load`.
      bindings: likewise.
      directory: of the run, as `workdir.check` returns it.
      extend: whether a run may become longer than it was planned.
      started: when the command was given, in seconds of `time.monotonic`.

    Returns:
      Exit status: 0, or 128 and the number of the signal by which it was stopped.

    Raises:
      ConfigurationError: if the configuration cannot be read or built, or the folder holds another run.
      CompositionError, DivergedError, CheckpointError, OSError: as `Experiment.run`.
    """
    before = configuration.bindings_of(directory / workdir.CONFIG) if workdir.has_run(directory) else None
    configuration.load(gin_files, bindings)
    experiment = configuration.build(Experiment)
    if before is not None:
        workdir.check_same_run(before, configuration.bindings(), directory, extend)
        if not experiment.checkpoint_every:
            raise configuration.ConfigurationError(
                f'{directory} holds a run without checkpoints (CHECKPOINT_EVERY = 0), which cannot go on; choose another '
                'folder'
            )
    # Of a run's own file nothing is told: it has whatever its variant had.
    written = [file for file in gin_files if pathlib.Path(file).name != workdir.CONFIG]
    for name in configuration.bindings_without_effect(written, bindings):
        notify(f'nothing uses {name}')
    for doubt in experiment.agent.doubts():
        notify(doubt)
    with workdir.locked(directory):
        workdir.write_configuration(directory)
        stop = _StopOnSignal()
        config = configuration.config_str()
        done = experiment.run(directory, config=config, started=started, should_stop=stop, notify=notify)
        workdir.write_configuration(directory)
    is_complete = done == experiment.num_meta_steps
    print(f'{"results" if is_complete else "stopped; results so far"} are in {directory}')
    return 0 if is_complete else 128 + stop.signal


class _StopOnSignal:
    """True once Ctrl-C was pressed or the process was asked to terminate; a second time it ends at once."""

    def __init__(self):
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def __call__(self) -> bool:
        return bool(self.signal)

    def _stop(self, signum, frame) -> None:
        self.signal = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print('stopping after this log period; once more to stop at once', file=sys.stderr, flush=True)
