"""Run folders below a folder, and the columns of their tables as arrays `[S, P]` of seeds and rows."""

import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from agents.experiments import run_folder
from components.types import UserError

TRAIN, EVAL = 'train', 'eval'
"""Names of the two tables of a run, `<name>.csv`."""

SWEEP = 'sweep.json'
"""Name of the file in which a sweep lists its runs."""

FAILED = 'logs/{name}.failed'
"""File of a sweep in which it says why a run has failed for good."""

REPLICA = 'replica/'
"""Prefix of the columns that tell variants apart which were trained in one run."""


class RunTableError(UserError, ValueError):
    """A folder has no run, or a table of a run cannot be read; the message names it, and the way out."""


class NothingYetError(RunTableError):
    """There is no run, or no row, yet."""


class Run(NamedTuple):
    """A run folder.

    Attributes:
      directory: the folder, which holds a configuration.
      name: its path below the folder that was searched.
    """

    directory: pathlib.Path
    name: str


class ListedRun(NamedTuple):
    """A run that a sweep is to train.

    Attributes:
      name: of the run.
      directory: its folder.
      is_started: whether there is a run in it.
      failure: why it has failed for good; None if it has not.
    """

    name: str
    directory: pathlib.Path
    is_started: bool
    failure: str | None


class SeedTable(NamedTuple):
    """Rows of one variant in a run: those of every seed, side by side.

    Attributes:
      seeds: `[S]`.
      columns: arrays `[S, P]` by name, NaN where a cell is empty.
    """

    seeds: np.ndarray
    columns: dict[str, np.ndarray]


def find_runs(roots: Sequence[pathlib.Path]) -> list[Run]:
    """Finds the run folders below some folders, sorted by name; what lies inside a run folder is part of that run.

    Names of several folders get the folder's own name in front, where they would be the same otherwise.

    Raises:
      NothingYetError: if there is none below one of the folders.
      RunTableError: if one of them is no folder, or they have a run in common.
    """
    found = [(root, directory) for root in roots for directory in _run_folders(root)]
    names = [_name(root, directory) for root, directory in found]
    if len(set(names)) < len(names):
        names = [f'{root.absolute().name}/{name}' for (root, _), name in zip(found, names, strict=True)]
    if len(set(names)) < len(names):
        names = [str(directory) for _, directory in found]
    runs = [Run(directory, name) for (_, directory), name in zip(found, names, strict=True)]
    if len({directory.resolve() for directory, _ in runs}) < len(runs):
        raise RunTableError(f'folders are given twice, or lie in one another: {", ".join(map(str, roots))}')
    return runs


def _name(root: pathlib.Path, directory: pathlib.Path) -> str:
    return root.absolute().name if root == directory else str(directory.relative_to(root))


def _run_folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    if not root.is_dir():
        raise RunTableError(f'{root} is not a folder')
    has_run = False
    for path, folders, _ in os.walk(root):
        if run_folder.has_run(pathlib.Path(path)):
            folders.clear()
            has_run = True
            yield pathlib.Path(path)
        folders.sort()
    if not has_run:
        raise NothingYetError(
            f'{root} has no run folder ({run_folder.CONFIG} and {TRAIN}.csv): give the --workdir of a run or of a '
            'sweep, or a folder that holds such folders'
        )


def listed_runs(roots: Sequence[pathlib.Path]) -> list[ListedRun]:
    """Runs that sweeps in these folders are to train.

    Raises:
      RunTableError: if a sweep's list of its runs is damaged.
    """
    found = []
    for path in (root / SWEEP for root in roots if (root / SWEEP).is_file()):
        try:
            names = [run['name'] for run in json.loads(path.read_text(encoding='utf-8'))['runs']]
        except (ValueError, TypeError, KeyError) as error:
            raise RunTableError(f'{path} is not the list of runs of a sweep: {error}') from error
        found += [_listed(path.parent, name) for name in names]
    return found


def _listed(sweep: pathlib.Path, name: str) -> ListedRun:
    try:
        failure = (sweep / FAILED.format(name=name)).read_text(encoding='utf-8', errors='replace').strip()
    except FileNotFoundError:
        failure = None
    return ListedRun(name, sweep / name, run_folder.has_run(sweep / name), failure)


def read_table(path: pathlib.Path, wanted: Callable[[str], bool], needed: Sequence[str]) -> dict[str, SeedTable]:
    """Reads some columns of a table.

    Args:
      path: of `train.csv` or `eval.csv`; a line at its end that is still being written is left out.
      wanted: whether a column is read, by its name; only these are kept.
      needed: columns that are read, and must be there; `seed` is needed anyway.

    Returns:
      Tables by the values of their `replica/...` columns, as text: '' if there are none. Seeds whose rows are not all
      written yet are cut to those that every seed has. Empty if there are no rows.

    Raises:
      RunTableError: if the table is damaged, or has not the columns that are needed.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding='utf-8')
        header, *lines = csv.reader(io.StringIO(text[: text.rfind('\n') + 1], newline=''), strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunTableError(f'{path} is not a table of a run: {error}') from error
    except ValueError:
        return {}  # Not even a header is complete.
    missing = [name for name in ('seed', *needed) if name not in header]
    if missing:
        raise RunTableError(f'{path} is not a table of a run: it has no column {", ".join(missing)}')
    replicas = [name for name in header if name.startswith(REPLICA)]
    names = [name for name in header if name == 'seed' or name in needed or name in replicas or wanted(name)]
    cells = _numbers(path, header, names, lines)
    keys = [
        ', '.join(f'{name.removeprefix(REPLICA)}={cells[name][i]:g}' for name in replicas) for i in range(len(lines))
    ]
    kept = [name for name in names if name not in replicas and name != 'seed']
    return {key: _by_seed(cells, np.flatnonzero(np.array(keys) == key), kept) for key in dict.fromkeys(keys)}


def _numbers(
    path: pathlib.Path, header: Sequence[str], names: Sequence[str], lines: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Columns of a table, `[lines]`."""
    for i, line in enumerate(lines):
        if len(line) != len(header):
            raise RunTableError(f'{path} is damaged: line {i + 2} has {len(line)} cells, its header {len(header)}')
    cells = {}
    for name in names:
        index = header.index(name)
        try:
            cells[name] = np.array([float(line[index] or 'nan') for line in lines])
        except ValueError as error:
            raise RunTableError(f'{path} is damaged: column {name} has a cell that is no number ({error})') from error
    return cells


def _by_seed(cells: dict[str, np.ndarray], rows: np.ndarray, names: Sequence[str]) -> SeedTable:
    of_rows = cells['seed'][rows]
    seeds = np.unique(of_rows)
    by_seed = [rows[of_rows == seed] for seed in seeds]
    length = min(map(len, by_seed))
    index = np.stack([each[:length] for each in by_seed])
    return SeedTable(seeds.astype(int), {name: cells[name][index] for name in names})


def thinned(values: np.ndarray, num_points: int) -> np.ndarray:
    """Means of blocks of as many successive rows as leave at most `num_points`, without the cells that are empty.

    Args:
      values: `[S, P]`.
      num_points: largest number of columns of the result.
    """
    block = math.ceil(values.shape[1] / num_points)
    starts = np.arange(0, values.shape[1], block) if values.shape[1] else np.zeros(0, int)
    if block <= 1:
        return values
    is_known = np.isfinite(values)
    count = np.add.reduceat(is_known, starts, axis=1, dtype=int)
    total = np.add.reduceat(np.where(is_known, values, 0), starts, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def filled(values: np.ndarray) -> np.ndarray:
    """Empty cells of `[S, P]` hold the seed's last known value; those before its first one stay empty."""
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(values.shape[1]), -1), axis=1)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), 1), np.nan)
