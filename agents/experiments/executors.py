"""Executors of commands: what starts the processes of a sweep, and where.

A run is a command and a folder, and resumes when the command is started again. So an executor is one function.
"""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

from agents.experiments import supervised


class Process(Protocol):
    """A command that was started, as `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """Exit status, minus the number of a signal that killed it; None while it runs."""
        ...

    def terminate(self) -> None:
        """Asks it to end, with a checkpoint."""
        ...


class Executor(Protocol):
    """Where commands run."""

    def submit(self, command: Sequence[str], output: pathlib.Path) -> Process | None:
        """Starts a command; None if there is no room for it yet.

        Args:
          command: path of a program, and arguments.
          output: file for what it prints; its errors go into one beside it, `errors_beside(output)`.
        """
        ...


def errors_beside(output: pathlib.Path) -> pathlib.Path:
    """File of what a command prints to its standard error."""
    return output.with_name(f'{output.stem}.errors.txt')


class LocalExecutor:
    """Processes on this machine, each with its share of the cores.

    They end with this process, however it ends, and are in groups of their own, so that Ctrl-C is for this one alone.

    Args:
      jobs: how many run at once; None for as many as there are cores for.
      cpus: cores of each, where `jobs` is None.
    """

    def __init__(self, jobs: int | None = None, cpus: int = 1):
        cores = _cores()
        jobs = jobs or max(1, len(cores) // cpus)
        self._shares = [cores[i::jobs] or [cores[i % len(cores)]] for i in range(jobs)]
        self._running: list[subprocess.Popen | None] = [None] * jobs

    def submit(self, command: Sequence[str], output: pathlib.Path) -> Process | None:
        for i, process in enumerate(self._running):
            if process is None or process.poll() is not None:
                self._running[i] = process = start(command, output, self._shares[i])
                return process
        return None


def start(command: Sequence[str], output: pathlib.Path, cores: Sequence[int] = ()) -> subprocess.Popen:
    """Starts a command that ends with the thread that starts it.

    Args:
      command: as for `Executor.submit`.
      output: likewise.
      cores: that it may use; all if empty.
    """
    share = ','.join(map(str, cores))
    watched = [sys.executable, '-I', '-S', supervised.__file__, str(os.getpid()), share, *command]
    with output.open('wb') as out, errors_beside(output).open('wb') as err:
        return subprocess.Popen(watched, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def _cores() -> list[int]:
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
