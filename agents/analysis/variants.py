"""Variants in run folders: final performance of each seed, how far the runs are, how their configurations differ."""

import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agents.analysis import bound_numbers, comparison, run_tables
from agents.analysis.bound_numbers import BoundNumber
from agents.analysis.run_tables import EVAL, TRAIN, ListedRun, NothingYetError, Run, SeedTable
from agents.experiments import gin_config
from agents.experiments.run_folder import CONFIG, OPERATIVE_CONFIG
from components.types import ConfigurationError

MEASURES = {TRAIN: 'episode_return', EVAL: 'stochastic/episode_return'}
"""Column of each table by which variants are compared."""

MAX_POINTS = 400
"""Of a curve; of more rows, means of successive ones are kept."""

_META = ('meta/', 'meta_gradient_signal_to_noise')

_ENVIRONMENT = 'agents.agent.Agent.environment'
_LENGTH = 'agents.experiments.experiment.Experiment.total_env_steps'
_NO_PART_OF_A_TASK = {'batch_size'}


class Measure(NamedTuple):
    """What variants are compared by.

    Attributes:
      table: name of the table, `train` or `eval`; '' if it is not of a run but of a list of results.
      column: of it; of a list, what its values are, in words.
      share: of a seed's rows, the last of which are its final performance.
    """

    table: str
    column: str
    share: float

    def __str__(self) -> str:
        return f'{self.column} of {self.table}.csv' if self.table else self.column

    @property
    def description(self) -> str:
        """What the final performance is."""
        return f'mean of {self} over the last {self.share:.0%} of the rows of a seed' if self.table else self.column

    @property
    def label(self) -> str:
        """The final performance on an axis."""
        return f'final {self.column}' if self.table else self.column


class Variant(NamedTuple):
    """A variant: a run, or the part of it that has the same values of its `replica/...` columns.

    Attributes:
      name: of the run folder, and these values.
      run: the run folder, or the list of results in its place.
      replica: these values, '' if there are none.
      seeds: those that have a final performance, `[S]`.
      final: it, `[S]`.
      num_seeds: of all that have rows.
      env_steps: of the last row; None if a list of results does not say.
      total_env_steps: of the whole training; None if the configuration does not say.
      is_complete: whether that is reached.
    """

    name: str
    run: Run
    replica: str
    seeds: np.ndarray
    final: np.ndarray
    num_seeds: int
    env_steps: int | None
    total_env_steps: int | None
    is_complete: bool

    @property
    def replica_values(self) -> dict[str, str]:
        """These values by path, as text."""
        return dict(part.split('=', 1) for part in self.replica.split(', ')) if self.replica else {}

    @property
    def status(self) -> str:
        """`complete`, or how much of the training there is."""
        if self.is_complete:
            return 'complete'
        if not self.total_env_steps or self.env_steps is None:
            return 'partial'
        return f'partial, {min(99, int(100 * self.env_steps / self.total_env_steps))}%'


class Curves(NamedTuple):
    """Curves of a variant's seeds.

    Attributes:
      env_steps: `[P]`.
      values: by column, `[S, P]`.
      rows_per_point: how many rows of the table each point is the mean of.
    """

    env_steps: np.ndarray
    values: dict[str, np.ndarray]
    rows_per_point: int = 1


class Configurations:
    """What runs were asked for, kept as differences from the first.

    Args:
      runs: in the order in which they are compared.

    Raises:
      ConfigurationError: if a run's configuration cannot be read.
    """

    def __init__(self, runs: Sequence[Run]):
        self._first: dict[str, str] | None = None
        self._changes: dict[str, dict[str, str | None]] = {}
        self._environments: dict[str, str] = {}
        for run in runs:
            bindings = _bindings(run)
            self._first = bindings if self._first is None else self._first
            names = [name for name in {**self._first, **bindings} if self._first.get(name) != bindings.get(name)]
            self._changes[run.name] = {name: bindings.get(name) for name in names}
            self._environments[run.name] = environment_of(bindings)

    def environment(self, run: Run) -> str:
        """The environment of a run with its bindings, as an expression."""
        return self._environments[run.name]

    def total_env_steps(self, run: Run) -> int | None:
        """Length of a run; None if its configuration does not say."""
        value = _resolved({**(self._first or {}), **self._changes[run.name]}, _LENGTH)
        return int(value) if value and value.isdecimal() else None

    def differences(self, runs: Sequence[Run]) -> dict[str, list[str]]:
        """Bindings that are not the same for all of these runs: values of each run, '' where it has none."""
        first = self._first or {}
        names = dict.fromkeys(name for run in runs for name in self._changes[run.name])
        values = {
            name: [self._changes[run.name].get(name, first.get(name)) or '' for run in runs] for name in sorted(names)
        }
        return {name: each for name, each in values.items() if len(set(each)) > 1}

    def number_at(self, run: Run, path: str) -> BoundNumber | None:
        """The number at a path in a run, its default if it is not bound; None if neither is known."""
        bindings = {name: value for name, value in {**(self._first or {}), **self._changes[run.name]}.items() if value}
        if found := bound_numbers.number_at(path, bindings):
            return found
        try:
            used = _bindings(run, OPERATIVE_CONFIG)
        except ConfigurationError:  # Not written yet, or damaged: only defaults are unknown.
            return None
        return bound_numbers.number_at(path, {**used, **bindings})


def _bindings(run: Run, name: str = CONFIG) -> dict[str, str]:
    try:
        return gin_config.bindings_of_run(run.directory, name)
    except ConfigurationError as error:
        raise ConfigurationError(f'{run.directory / name} cannot be read: {error}') from error


def environment_of(bindings: Mapping[str, str]) -> str:
    """The environment that bindings describe, as an expression; sizes of batches are left out.

    Args:
      bindings: as `gin_config.bindings` returns them.
    """
    text = _expression(bindings.get(_ENVIRONMENT, ''), bindings, depth=0)
    in_batch = re.fullmatch(r'Batch\(environment=(.*)\)', text)
    return in_batch[1] if in_batch else text


def _expression(value: str, bindings: Mapping[str, str], depth: int) -> str:
    """A value with what is bound of the objects in it."""
    if value.startswith('%'):
        return _expression(bindings.get(value[1:], value), bindings, depth)

    def named(match: re.Match) -> str:
        path = match[1]
        plain = path.rpartition('/')[2]
        arguments = {
            name[len(prefix) :]: bound
            for prefix in (f'{plain}.', f'{path}.')
            for name, bound in bindings.items()
            if name.startswith(prefix) and '.' not in name[len(prefix) :]
        }
        inside = ', '.join(
            f'{name}={_expression(arguments[name], bindings, depth + 1)}'
            for name in sorted(arguments.keys() - _NO_PART_OF_A_TASK)
        )
        return plain.rpartition('.')[2] + (f'({inside})' if inside or match[2] else '')

    return re.sub(r'@([\w./]+)(\(\))?', named, value) if depth < 20 else value


def _resolved(bindings: Mapping[str, str | None], name: str) -> str | None:
    value = bindings.get(name)
    return bindings.get(value[1:]) if value and value.startswith('%') else value


def by_environment(runs: Sequence[Run], configurations: Configurations) -> dict[str, list[Run]]:
    """Runs by environment."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(configurations.environment(run), []).append(run)
    return groups


def measure_of(runs: Sequence[Run], share: float, table: str | None = None, column: str | None = None) -> Measure:
    """What runs are compared by: evaluations if every run has one, else the returns of training.

    Args:
      runs: that are compared.
      share: of a seed's rows that are its final performance.
      table: `train` or `eval`, if that is asked for.
      column: likewise, of `train.csv` if no table is asked for.
    """
    if table is None:
        has_evaluations = not column and all(_has_rows(run.directory / f'{EVAL}.csv') for run in runs)
        table = EVAL if has_evaluations else TRAIN
    return Measure(table, column or MEASURES[table], share)


def _has_rows(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    with path.open('rb') as file:
        return len(file.readlines(1 << 16)) > 1


def read_variants(runs: Iterable[Run], measure: Measure, configurations: Configurations) -> list[Variant]:
    """The variants of runs with their final performance; runs without rows are variants without seeds.

    Raises:
      RunTableError: if a table is damaged.
      NothingYetError: if no seed of any run has a final performance yet.
    """
    found = [variant for run in runs for variant in _variants_of(run, measure, configurations.total_env_steps(run))]
    if not any(len(variant.seeds) for variant in found):
        raise NothingYetError(f'nothing to compare: no run has a number in {measure} yet')
    return found


def _variants_of(run: Run, measure: Measure, total: int | None) -> Iterator[Variant]:
    needed = ['env_steps', measure.column] if measure.table == TRAIN else ['env_steps']
    progress = run_tables.read_table(_path(run, TRAIN), lambda name: name == 'meta_updates', needed)
    tables = progress
    if measure.table != TRAIN:
        tables = run_tables.read_table(_path(run, measure.table), lambda _: False, [measure.column])
    for replica in progress or ['']:
        name = ' '.join(filter(None, [run.name, replica]))
        final, seeds = np.zeros(0), np.zeros(0, int)
        if replica in tables:
            seeds, columns = tables[replica]
            final = comparison.last_rows(columns[measure.column], measure.share)
        is_known = np.isfinite(final)
        steps, is_complete = _progress(progress.get(replica), total)
        known = seeds[is_known], final[is_known]
        yield Variant(name, run, replica, *known, len(seeds), steps, total, is_complete)


def _path(run: Run, table: str) -> pathlib.Path:
    return run.directory / f'{table}.csv'


def _progress(table: SeedTable | None, total: int | None) -> tuple[int, bool]:
    """Environment steps of the last row, and whether no whole meta-step fits into what is left."""
    if table is None:
        return 0, False
    steps = float(table.columns['env_steps'][0, -1])
    meta_updates = float(table.columns.get('meta_updates', np.full((1, 1), np.nan))[0, -1])
    step = steps / meta_updates if meta_updates > 0 else 1
    return int(steps), total is not None and steps + step > total


def not_started(listed: Sequence[ListedRun]) -> list[str]:
    """Names of the runs that a sweep has still to start."""
    return [run.name for run in listed if not run.is_started and run.failure is None]


def failed_runs(found: Iterable[Variant], listed: Sequence[ListedRun]) -> list[ListedRun]:
    """Runs of sweeps that have failed for good, and so stay partial."""
    complete = {variant.run.directory.resolve() for variant in found if variant.is_complete}
    return [run for run in listed if run.failure is not None and run.directory.resolve() not in complete]


def awaited(found: Sequence[Variant], listed: Sequence[ListedRun]) -> list[str]:
    """Names of variants and runs of which there may be more later."""
    over = {run.directory.resolve() for run in failed_runs(found, listed)}
    partial = [variant for variant in found if not variant.is_complete]
    return [each.name for each in partial if each.run.directory.resolve() not in over] + not_started(listed)


def read_curves(variant: Variant, measure: Measure) -> dict[str, Curves]:
    """Curves of a variant: those of the measure, and of its meta-parameters and their signal-to-noise.

    Returns:
      By name of the table.
    """
    curves = {}
    for table in dict.fromkeys((TRAIN, measure.table)):
        needed = ['env_steps', measure.column] if table == measure.table else ['env_steps']
        wanted = _is_of_training if table == TRAIN else lambda _: False
        found = run_tables.read_table(_path(variant.run, table), wanted, needed).get(variant.replica)
        if found:
            thin = {name: run_tables.thinned(x, MAX_POINTS) for name, x in found.columns.items()}
            steps = thin.pop('env_steps')[0]
            rows_per_point = -(-found.columns['env_steps'].shape[1] // MAX_POINTS)
            filled = {name: run_tables.filled(x) for name, x in thin.items()}
            known = {name: x for name, x in filled.items() if np.isfinite(x).any()}
            curves[table] = Curves(steps, known, rows_per_point)
    return curves


def _is_of_training(name: str) -> bool:
    return name == MEASURES[TRAIN] or name.startswith(_META)
