"""The folder of a sweep: what was asked for, what its runs print, and which of them are complete."""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from agents.experiments import run_folder
from agents.experiments.executors import errors_beside
from agents.experiments.experiment import CHECKPOINTS
from agents.experiments.sweeps import SweepRun
from components.types import ConfigurationError

REQUEST = 'sweep.json'
"""What was asked for."""

_LOGS = 'logs'
_BEFORE_REQUEST = {run_folder.LOCK, f'{REQUEST}.new', _LOGS}


class Request(NamedTuple):
    """What was asked for.

    Attributes:
      runs: of the sweep.
      retries: how often a run is started again that was killed, or lost with its machine.
    """

    runs: list[SweepRun]
    retries: int


def read(workdir: pathlib.Path) -> Request | None:
    """What was asked for of the sweep in a folder; None if there is none yet.

    Raises:
      ConfigurationError: if the folder holds something else, or the file is damaged.
    """
    path = workdir / REQUEST
    if not path.exists():
        if workdir.exists() and (
            not workdir.is_dir() or any(child.name not in _BEFORE_REQUEST for child in workdir.iterdir())
        ):
            raise ConfigurationError(f'{workdir} is not empty and holds no sweep; choose another --workdir')
        return None
    try:
        request = json.loads(path.read_text())
        return Request([SweepRun(**run) for run in request['runs']], int(request['retries']))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f'{path} is damaged: put it back, or choose another --workdir') from error


def check_same(before: Sequence[SweepRun], asked: Sequence[SweepRun], workdir: pathlib.Path) -> None:
    """Checks that a sweep is the one in the folder.

    Raises:
      ConfigurationError: if it is another one; the message names the first difference.
    """
    old, new = ({run.name: run._replace(num_meta_steps=0) for run in runs} for runs in (before, asked))
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            where = 'only there' if name not in new else 'only here' if name not in old else 'another one there'
            raise ConfigurationError(
                f'{workdir} holds another sweep: run {name} is {where}; choose another --workdir, or give nothing but '
                '--workdir to go on with it'
            )


def write(workdir: pathlib.Path, request: Request) -> None:
    """Writes what was asked for, to a folder that exists."""
    (workdir / _LOGS).mkdir(exist_ok=True)
    runs = [run._asdict() for run in request.runs]
    text = json.dumps({'retries': request.retries, 'runs': runs}, indent=2)
    (workdir / f'{REQUEST}.new').write_text(f'{text}\n')
    os.replace(workdir / f'{REQUEST}.new', workdir / REQUEST)


def output_of(workdir: pathlib.Path, run: SweepRun) -> pathlib.Path:
    """File of what a run prints."""
    return workdir / _LOGS / f'{run.name}.txt'


def last_error(workdir: pathlib.Path, run: SweepRun) -> str:
    """Last line that a run printed to its standard error; empty if there is none."""
    path = errors_beside(output_of(workdir, run))
    lines = path.read_text(errors='replace').split('\n') if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def mark_complete(workdir: pathlib.Path, run: SweepRun) -> None:
    """Remembers that a run has ended with exit status 0."""
    _mark(workdir, run).touch()


def mark_failed(workdir: pathlib.Path, run: SweepRun, message: str) -> None:
    """Remembers that a run has failed, and why in one line, for those who wait for it; until it is started again."""
    _failure(workdir, run).write_text(f'{message}\n', encoding='utf-8')


def unmark_failed(workdir: pathlib.Path, run: SweepRun) -> None:
    """Forgets that a run has failed."""
    _failure(workdir, run).unlink(missing_ok=True)


def is_complete(workdir: pathlib.Path, run: SweepRun) -> bool:
    """Whether a run has ended, by what the sweep remembers or by its last checkpoint; nothing is built."""
    directory = workdir / run.name
    if not run_folder.has_run(directory):
        return False
    return _mark(workdir, run).exists() or newest_checkpoint(directory) >= run.num_meta_steps


def newest_checkpoint(directory: pathlib.Path) -> int:
    """Meta-updates of a run's newest checkpoint; 0 without one."""
    folder = directory / CHECKPOINTS
    names = os.listdir(folder) if folder.is_dir() else []
    return max((int(name) for name in names if re.fullmatch(r'\d+', name)), default=0)


def _mark(workdir: pathlib.Path, run: SweepRun) -> pathlib.Path:
    return workdir / _LOGS / f'{run.name}.complete'


def _failure(workdir: pathlib.Path, run: SweepRun) -> pathlib.Path:
    return workdir / _LOGS / f'{run.name}.failed'
