"""Loggers: sinks behind acme's interface.

A row is a mapping from column to a number, or to an array `[S]` with one entry per seed. Values are NumPy's or
Python's by the time they get here: they left the device once, for all loggers.
"""

import csv
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from acme.utils import loggers

Row = Mapping[str, Any]


class CSVLogger(loggers.Logger):
    """Appends to `<directory>/<label>.csv`, one line per row and seed, complete on disk after every write.

    Columns may appear later: the file is then written anew, with nothing in them before. Entries that are not a
    number are left empty.

    Args:
      label: name of the file.
      directory: where it is.
    """

    def __init__(self, label: str, directory: str | os.PathLike):
        self._path = pathlib.Path(directory) / f'{label}.csv'
        self._columns: list[str] = []
        if self._path.exists():
            self._columns, _ = self._read()

    def write(self, data: Row) -> None:
        new = [column for column in ('seed', *data) if column not in self._columns]
        if new:
            self._add_columns(new)
        with self._path.open('a', newline='') as file:
            writer = csv.DictWriter(file, self._columns, lineterminator='\n')
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in per_seed(data))

    def close(self) -> None:
        pass

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with self._path.open(newline='') as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)

    def _add_columns(self, columns: list[str]) -> None:
        rows = self._read()[1] if self._path.exists() else []
        self._columns += columns
        # Written beside it and moved over it, so that a crash leaves one complete file or the other.
        with tempfile.NamedTemporaryFile('w', dir=self._path.parent, newline='', delete=False) as file:
            writer = csv.DictWriter(file, self._columns, lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
        os.chmod(file.name, 0o644)
        os.replace(file.name, self._path)


class TensorBoardLogger(loggers.Logger):
    """Writes scalars under `<directory>/tensorboard`, means over seeds, by environment steps.

    Args:
      label: prefix of the tags.
      directory: of the run.
    """

    def __init__(self, label: str, directory: str | os.PathLike):
        import tensorboardX  # Imported here as only runs that log there should wait for it.

        self._label = label
        self._writer = tensorboardX.SummaryWriter(str(pathlib.Path(directory) / 'tensorboard'))

    def write(self, data: Row) -> None:
        means = seed_means(data)
        for name, value in means.items():
            if math.isfinite(value):
                self._writer.add_scalar(f'{self._label}/{name}', value, int(means['env_steps']))

    def close(self) -> None:
        self._writer.close()


def per_seed(data: Row) -> list[dict[str, Any]]:
    """A row with arrays `[S]` as `S` rows of numbers, each with its `seed` (0 to S-1) in front."""
    num_seeds = max((len(value) for value in data.values() if np.ndim(value)), default=1)
    return [
        {'seed': i, **{name: value[i] if np.ndim(value) else value for name, value in data.items()}}
        for i in range(num_seeds)
    ]


def seed_means(data: Row) -> dict[str, float]:
    """A row with each array `[S]` replaced by its mean over the seeds that have a number; NaN where none has."""

    def mean(value):
        known = np.asarray(value, float)[~np.isnan(value)]
        return float(known.mean()) if known.size else math.nan

    return {name: mean(np.atleast_1d(value)) for name, value in data.items()}


def _cell(value: Any) -> Any:
    value = np.asarray(value).item()
    if isinstance(value, float):
        return '' if math.isnan(value) else f'{value:.7g}'
    return value
