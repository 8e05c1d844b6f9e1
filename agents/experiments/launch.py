"""Starts or resumes a run that gin files describe, and ends it on a signal."""

import os
import pathlib
import signal
import sys
import types
from collections.abc import Sequence
from typing import Any, Self

from agents import processes
from agents.experiments import gin_config, run_folder
from agents.experiments.experiment import Experiment
from agents.experiments.outputs import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What asks a run to end: Ctrl-C, a terminal that closes, and what clusters send before they take a machine back."""


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
    resumes = processes.is_first() and run_folder.has_progress(directory)
    before = gin_config.bindings_of(directory / run_folder.CONFIG) if resumes else None
    gin_config.load(gin_files, bindings)
    processes.check_equal(gin_config.bindings())
    gin_config.check_effects(Experiment)
    experiment = gin_config.build(Experiment)
    if before is not None:
        run_folder.check_same_run(before, gin_config.bindings(), directory, extend)
        if not experiment.checkpoint_every:
            raise gin_config.ConfigurationError(
                f'{directory} holds a run without checkpoints (CHECKPOINT_EVERY = 0), which cannot be resumed; choose '
                'another folder'
            )
    if not processes.is_first():
        with StopOnSignal() as stop:
            done = experiment.run(directory, should_stop=stop, notify=lambda line: None)
        return 0 if done == experiment.num_meta_steps else 128 + stop.signal
    for warning in experiment.agent.warnings():
        notify(warning)
    with run_folder.locked(directory, notify):
        run_folder.write_configuration(directory)
        config = gin_config.config_str()
        with StopOnSignal() as stop:
            done = experiment.run(directory, config=config, started=started, should_stop=stop, notify=notify)
        run_folder.write_configuration(directory)
    is_complete = done == experiment.num_meta_steps
    say(f'{"results" if is_complete else "stopped; results so far"} are in {directory}', sys.stdout)
    return 0 if is_complete else 128 + stop.signal


class StopOnSignal:
    """True once the process was asked to end, by Ctrl-C say; asked a second time it ends at once.

    A signal that the process was started to ignore, as `nohup` does, stays ignored. The handlers that it had, those of
    a notebook say, are back afterwards.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in self._numbers:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
            signal.signal(number, self._before[number])

    def __call__(self) -> bool:
        agreed = processes.largest(self.signal)  # It may have reached one process and not the others yet.
        if agreed:  # One that has come meanwhile is for the next time.
            self.signal = agreed
        return bool(agreed)

    @property
    def _numbers(self) -> list[signal.Signals]:
        return [number for number, handler in self._before.items() if handler != signal.SIG_IGN]

    def _stop(self, signum: int, frame: types.FrameType | None) -> None:
        self.signal = signum
        for number in self._numbers:
            # Not Python's handler, which would wait for the compiled call that runs.
            signal.signal(number, signal.SIG_DFL)
        say('stopping after this log period; once more to stop at once', sys.stderr)
