"""Loggers: sinks behind acme's interface, made for a run.

A row is a mapping from column to a number, or to an array `[S]` with one entry per seed. Values are NumPy's or
Python's by the time they get here: they left the device once, for all loggers.

An experiment makes each of its loggers by `logger(label, run)`, once for every label. A logger that is also an
`acme.core.Saveable` is asked for its position with each checkpoint, and given it back when a run resumes from there, or
None when the run starts (again) from the beginning; it then truncates later rows. Any other keeps appending.
"""

import csv
import io
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from acme import core as acme_core
from acme.utils import loggers

from components.types import UserError

Row = Mapping[str, Any]

_WAY_OUT = 'put the file back, or start another run in another folder'


class LogError(UserError, ValueError):
    """A file that rows were written to is not as it was left; the message says which and how."""


class Run(NamedTuple):
    """What a logger may know of the run.

    Attributes:
      directory: where its files are; it exists.
      config: what was asked for, as the text of a gin file.
      num_meta_updates: of the whole training.
      started: when the command was given, in seconds of `time.monotonic`; None if that is not known.
      seed: of the first replica; the others have the seeds that follow.
      num_seeds: replicas of each variant.
      num_replicas: in all.
    """

    directory: pathlib.Path
    config: str = ''
    num_meta_updates: int = 0
    started: float | None = None
    seed: int = 0
    num_seeds: int = 1
    num_replicas: int = 1


class CSVLogger(loggers.Logger, acme_core.Saveable):
    """Appends to `<directory>/<label>.csv`, one line per row and seed, complete on disk after every write.

    Columns may appear later: the file is then rewritten, with empty cells before. Entries that are not a
    number are left empty.

    Args:
      label: name of the file.
      run: where it is.
    """

    def __init__(self, label: str, run: Run):
        self._path, self._seed = run.directory / f'{label}.csv', run.seed
        self._num_seeds = run.num_seeds if run.num_replicas > run.num_seeds else None
        self._columns, rows = self._read()
        self._num_rows = len(rows)
        if rows and rows[0].get('seed', '').isdigit():
            self._seed = int(rows[0]['seed'])  # As the table began: earlier versions counted from 0.

    def write(self, data: Row) -> None:
        rows = [
            {name: _cell(value) for name, value in row.items()} for row in per_seed(data, self._seed, self._num_seeds)
        ]
        new = [column for column in ('seed', *data) if column not in self._columns]
        if new:
            self._columns += new
            self._write_anew(self._read()[1])
        with self._path.open('a', newline='') as file:
            file.write(_lines(self._columns, rows))  # At once, so that hardly anything can come in between.
        self._num_rows += len(rows)

    def save(self) -> dict[str, int]:
        """Position: how many lines there are below the header."""
        return {'rows': self._num_rows}

    def restore(self, position: dict[str, int] | None) -> None:
        """Takes back what was written after a position.

        Raises:
          LogError: if there is less than that in the file, or it is no table.
        """
        if position is None:
            self._path.unlink(missing_ok=True)
            self._columns, self._num_rows = [], 0
            return
        columns, rows = self._read()
        if len(rows) < position['rows']:
            raise LogError(
                f'{self._path} has {len(rows)} of the {position["rows"]} rows that the checkpoint resumes from: '
                f'{_WAY_OUT}'
            )
        self._columns, self._num_rows = columns, position['rows']
        if columns:
            self._write_anew(rows[: self._num_rows])

    def close(self) -> None:
        pass

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self._path.exists():
            return [], []
        try:
            with self._path.open(newline='', encoding='utf-8') as file:
                reader = csv.DictReader(file, strict=True)
                columns, rows = list(reader.fieldnames or []), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise LogError(
                f'{self._path} is not a table that this software has written: {error}; {_WAY_OUT}'
            ) from error
        if any(None in row for row in rows):
            raise LogError(f'{self._path} has lines that are longer than its header: {_WAY_OUT}')
        return columns, rows

    def _write_anew(self, rows: Sequence[Row]) -> None:
        # Written beside it and moved over it, so that a crash leaves one complete file or the other.
        beside = self._path.with_suffix('.csv.new')
        header = _lines(self._columns, [dict(zip(self._columns, self._columns, strict=True))])
        beside.write_text(header + _lines(self._columns, rows), newline='')
        os.replace(beside, self._path)


class TensorBoardLogger(loggers.Logger, acme_core.Saveable):
    """Writes scalars to `<directory>/tensorboard/<label>`, means over seeds, by environment steps; the config as text.

    Args:
      label: name of the folder, which TensorBoard shows as a run.
      run: where it is, and its config.
    """

    def __init__(self, label: str, run: Run):
        # Imported here as only runs that log there should wait for it. Not its SummaryWriter: on a full disk that one's
        # thread ends, and the program waits for it forever.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary, self._proto, self._open = summary, event_pb2, event_file_writer.EventsWriter
        self._directory, self._config = run.directory / 'tensorboard' / label, run.config
        self._last_step = 0
        self._writer: Any = None

    def write(self, data: Row) -> None:
        means = seed_means(data)
        self._last_step = int(means['env_steps'])
        for name, value in means.items():
            if math.isfinite(value):
                self._add(summary=self._summary.scalar(name, value))
        self._writer.flush()

    def save(self) -> dict[str, int]:
        """Position: environment steps of the last row."""
        return {'step': self._last_step}

    def restore(self, position: dict[str, int] | None) -> None:
        """TensorBoard hides what was written after a position."""
        self._last_step = position['step'] if position else 0
        if any(self._directory.glob('events.*')):
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            self._add(step=self._last_step + 1, session_log=start)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int | None = None, **what: object) -> None:
        if self._writer is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._writer = self._open(str(self._directory / 'events'), f'.{time.time_ns()}')
            verbatim = ''.join(f'    {line}\n' for line in self._config.splitlines())
            self._add(summary=self._summary.text('config', verbatim))
        step = self._last_step if step is None else step
        self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **what))


class WandbLogger(loggers.Logger):
    """Logs means over seeds to Weights & Biases, all labels in one run; `pip install -e '.[wandb]'`.

    A resumed run keeps its name there; rows that it repeats are kept twice.

    Args:
      label: prefix of the names.
      run: its config is handed over whole, under `gin`.
      project: as Weights & Biases calls it.
      mode: `online`, `offline` (files to be synchronised later) or `disabled`.

    Raises:
      ValueError: if wandb is not installed.
    """

    def __init__(self, label: str, run: Run, project: str = 'meta-gradients', mode: str = 'online'):
        try:
            import wandb  # Imported here as it is optional.
        except ImportError as error:
            raise ValueError("WandbLogger needs wandb: python -m pip install -e '.[wandb]'") from error
        self._label = label
        self._run = wandb.init(
            project=project,
            mode=mode,
            dir=str(run.directory),
            name=run.directory.name,
            id=_identifier(run.directory / 'wandb_id'),
            resume='allow',
            config={'gin': run.config},
            reinit='return_previous',
        )
        self._run.define_metric(f'{label}/*', step_metric=f'{label}/env_steps')

    def write(self, data: Row) -> None:
        means = {f'{self._label}/{name}': value for name, value in seed_means(data).items() if math.isfinite(value)}
        self._run.log(means)

    def close(self) -> None:
        self._run.finish()


def per_seed(data: Row, first: int = 0, num_seeds: int | None = None) -> list[dict[str, object]]:
    """A row with arrays `[S]` as `S` rows of numbers, each with its `seed` in front, counted from `first`.

    Args:
      data: the row.
      first: seed of the first replica.
      num_seeds: after how many replicas the seeds are those of the next variant; None for never.
    """
    num_replicas = max((len(value) for value in data.values() if np.ndim(value)), default=1)
    return [
        {
            'seed': first + i % (num_seeds or num_replicas),
            **{name: value[i] if np.ndim(value) else value for name, value in data.items()},
        }
        for i in range(num_replicas)
    ]


def seed_means(data: Row) -> dict[str, float]:
    """A row with each array `[S]` replaced by its mean over the seeds that have a number; NaN where none has."""

    def mean(value: np.ndarray) -> float:
        known = np.asarray(value, float)[~np.isnan(value)]
        return float(known.mean()) if known.size else math.nan

    return {name: mean(np.atleast_1d(value)) for name, value in data.items()}


def _lines(columns: list[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator='\n').writerows(rows)
    return text.getvalue()


def _cell(value: object) -> object:
    value = np.asarray(value).item()
    if isinstance(value, float):
        return '' if math.isnan(value) else f'{value:.7g}'
    return value


def _identifier(path: pathlib.Path) -> str:
    """A random name, the same for as long as the file is there."""
    if not path.exists():
        path.write_text(os.urandom(8).hex())
    return path.read_text()
