"""Trains the runs of a sweep: skips those that are complete, starts others, retries those that were killed."""

import dataclasses
import enum
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from agents.experiments import sweep_folder
from agents.experiments.executors import Executor, Process
from agents.experiments.gin_config import ROOT
from agents.experiments.supervised import LOST
from agents.experiments.sweeps import SweepRun

POLL_SECONDS = 0.1


class State(enum.StrEnum):
    """Of a run."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()
    STOPPED = enum.auto()


@dataclasses.dataclass
class Progress:
    """How a run is getting on.

    Attributes:
      run: which.
      state: of it.
      process: that trains it, None while there is none.
      num_starts: how often it was started.
      message: why it failed, in one line.
    """

    run: SweepRun
    state: State = State.WAITING
    process: Process | None = None
    num_starts: int = 0
    message: str = ''


class Display(Protocol):
    """What tells a person how a sweep gets on."""

    def notify(self, line: str) -> None:
        """Tells of a change."""
        ...

    def show(self) -> None:
        """Brings what is shown up to date; called often."""
        ...


class SweepScheduler:
    """Runs of a sweep in a folder.

    Args:
      workdir: the sweep's folder, absolute.
      runs: of the sweep.
      executor: what starts processes.
      retries: how often a run is started again that was killed, or lost with its machine.
      command: what trains a run in a folder.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        runs: Sequence[SweepRun],
        executor: Executor,
        *,
        retries: int = 1,
        command: Callable[[SweepRun, pathlib.Path], Sequence[str]] | None = None,
    ):
        self._workdir, self._executor, self._retries = workdir, executor, retries
        self._command = command or command_of
        self._notify: Callable[[str], None] = print
        self.progress = [Progress(run) for run in runs]

    def train(self, should_stop: Callable[[], bool], display: Display) -> None:
        """Trains until every run is complete or has failed.

        Args:
          should_stop: asked all the time; True asks the runs that are under way to end, and waits for them.
          display: told of changes, and to show all the time.
        """
        self._notify = display.notify
        self._skip_complete()
        while not should_stop() and self.of(State.WAITING, State.RUNNING):
            self._start_waiting()
            self._collect(self._retries)
            display.show()
            time.sleep(POLL_SECONDS)
        for progress in self.of(State.RUNNING):
            if progress.process is not None:
                progress.process.terminate()
        while self.of(State.RUNNING):
            self._collect(0, stopping=True)
            display.show()
            time.sleep(POLL_SECONDS)
        for progress in self.of(State.WAITING):
            progress.state = State.STOPPED
        display.show()

    def of(self, *states: State) -> list[Progress]:
        """Runs in one of these states."""
        return [progress for progress in self.progress if progress.state in states]

    def _skip_complete(self) -> None:
        for progress in self.progress:
            sweep_folder.unmark_failed(self._workdir, progress.run)
            if sweep_folder.is_complete(self._workdir, progress.run):
                progress.state = State.COMPLETE
        if skipped := len(self.of(State.COMPLETE)):
            self._notify(f'{skipped} of {len(self.progress)} runs are complete already')

    def _start_waiting(self) -> None:
        for progress in self.of(State.WAITING):
            run = progress.run
            output = sweep_folder.output_of(self._workdir, run)
            process = self._executor.submit(self._command(run, self._workdir / run.name), output)
            if process is None:
                return
            progress.state, progress.process = State.RUNNING, process
            progress.num_starts += 1
            self._notify(f'{run.name}: started')

    def _collect(self, retries: int, stopping: bool = False) -> None:
        """Takes note of processes that have ended.

        Args:
          retries: as of the constructor; a run that has used them up has failed.
          stopping: whether processes were asked to end.
        """
        for progress in self.of(State.RUNNING):
            status = progress.process.poll() if progress.process else None
            if status is None:
                continue
            progress.process = None
            error = sweep_folder.last_error(self._workdir, progress.run)
            if status == 0:
                sweep_folder.mark_complete(self._workdir, progress.run)
                progress.state, progress.message = State.COMPLETE, ''
            elif _is_interruption(status) and stopping:
                progress.state, progress.message = State.STOPPED, ''
            elif _is_interruption(status) and progress.num_starts <= retries:
                progress.state, progress.message = State.WAITING, f'{_reason(status)}, retried'
            else:
                progress.state, progress.message = State.FAILED, f'{_reason(status)}: {error}'.rstrip(': ')
                sweep_folder.mark_failed(self._workdir, progress.run, progress.message)
            self._notify(f'{progress.run.name}: {progress.message or progress.state}')


def command_of(run: SweepRun, directory: pathlib.Path) -> list[str]:
    """The command line that trains a run in a folder, or resumes it."""
    options = [('--gin_file', file) for file in run.gin_files] + [('--gin_bindings', line) for line in run.lines]
    tool = str(ROOT / 'tools' / 'run.py')
    return [sys.executable, tool, '--workdir', str(directory), *(part for option in options for part in option)]


def _is_interruption(status: int) -> bool:
    """Whether a run may well go on if it is started again: it was killed, stopped, or lost with its machine."""
    return status < 0 or status == LOST or status > 128


def _reason(status: int) -> str:
    number = -status if status < 0 else status - 128
    if status == LOST:
        return 'lost'
    if status < 0 or status > 128:
        names = {int(entry): entry.name for entry in signal.Signals}
        return f'ended by {names.get(number, f"signal {number}")}'
    return f'exit status {status}'
