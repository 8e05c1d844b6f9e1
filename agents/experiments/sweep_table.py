"""How the runs of a sweep get on: a live table on a terminal, lines elsewhere."""

import csv
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import rich.live
import rich.table

from agents.experiments.loggers import seed_means
from agents.experiments.outputs import lose, say
from agents.experiments.sweep_scheduler import Progress, State

TABLE = 'train.csv'
"""What a run's progress is read from."""

_TAIL = 2**18
_SECONDS = 1.0
_LINE_SECONDS = 60.0
_STYLES = {State.COMPLETE: 'green', State.FAILED: 'red', State.RUNNING: 'cyan', State.STOPPED: 'yellow'}


class LastRow(NamedTuple):
    """Where a run stands: the newest row of its table, means over seeds.

    Attributes:
      num_rows: seeds and replicas.
      fraction: of training that is done.
      episode_return: mean return.
      steps_per_second: of all seeds.
      seconds_left: of training alone.
    """

    num_rows: int
    fraction: float
    episode_return: float
    steps_per_second: float
    seconds_left: float


class SweepTable:
    """Shows progress; a context manager.

    Args:
      workdir: the sweep's folder.
      progress: of its runs, which changes.
    """

    def __init__(self, workdir: pathlib.Path, progress: Sequence[Progress]):
        self._workdir, self._progress = workdir, progress
        self._live = rich.live.Live(auto_refresh=False, transient=False) if sys.stdout.isatty() else None
        self._shown = time.monotonic()

    def __enter__(self) -> 'SweepTable':
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._refresh()
            self._live.stop()

    def notify(self, line: str) -> None:
        """Tells of a change, where there is no table."""
        if self._live is None:
            say(line, sys.stdout)

    def show(self) -> None:
        """Brings what is shown up to date, if some time has passed."""
        if time.monotonic() - self._shown < (_SECONDS if self._live else _LINE_SECONDS):
            return
        self._shown = time.monotonic()
        if self._live:
            self._refresh()
        else:
            say(summary(self._workdir, self._progress), sys.stdout)

    def _refresh(self) -> None:
        try:
            if self._live:
                self._live.update(table(self._workdir, self._progress), refresh=True)
        except OSError:
            lose(sys.stdout)  # Training continues without a display.


def table(workdir: pathlib.Path, progress: Sequence[Progress]) -> rich.table.Table:
    """A row for each run."""
    made = rich.table.Table(box=None, pad_edge=False)
    for column in ('run', 'seeds', 'done', 'return', 'steps/s', 'left', 'state'):
        made.add_column(column, justify='left' if column in ('run', 'state') else 'right')
    for entry in progress:
        row = last_row(workdir / entry.run.name, entry.run.num_meta_steps)
        cells = _cells(row, entry.state) if row else [''] * 5
        state = f'{entry.state}{f" ({entry.message})" if entry.message else ""}'
        made.add_row(entry.run.name, *cells, f'[{_STYLES.get(entry.state, "default")}]{rich.markup.escape(state)}')
    return made


def summary(workdir: pathlib.Path, progress: Sequence[Progress]) -> str:
    """One line on all runs."""
    counts = [f'{n} {state}' for state in State if (n := sum(entry.state == state for entry in progress))]
    running = []
    for entry in progress:
        row = last_row(workdir / entry.run.name, entry.run.num_meta_steps)
        if row and entry.state == State.RUNNING:
            _, done, value, speed, left = _cells(row, entry.state)
            running.append(f'{entry.run.name} {done}, return {value}, {speed} steps/s, {left} left')
    return '; '.join([', '.join(counts), *running])


def last_row(directory: pathlib.Path, num_meta_steps: int) -> LastRow | None:
    """Where a run stands; None before its first row.

    Args:
      directory: of the run, which may be writing there.
      num_meta_steps: of its whole training.
    """
    rows = _newest_rows(directory / TABLE)
    if not rows:
        return None
    means = seed_means({name: [float(row[name] or 'nan') for row in rows] for name in _COLUMNS})
    done = means['meta_updates']
    steps_left = means['env_steps'] / done * max(0, num_meta_steps - done) * len(rows)
    return LastRow(
        len(rows),
        done / num_meta_steps if num_meta_steps else 1.0,
        means['episode_return'],
        means['steps_per_second'],
        steps_left / means['steps_per_second'],
    )


_COLUMNS = ('meta_updates', 'env_steps', 'episode_return', 'steps_per_second')


def _newest_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The last rows of a table, those of one log point; of a line that is being written nothing."""
    try:
        with path.open('rb') as file:
            header = file.readline().decode()
            begin = file.tell()
            file.seek(0, 2)
            file.seek(max(begin, file.tell() - _TAIL))
            lines = file.read().decode(errors='replace').split('\n')[:-1]
    except OSError:
        return []
    columns = next(csv.reader([header]), [])
    rows = [dict(zip(columns, cells, strict=True)) for cells in csv.reader(lines) if len(cells) == len(columns)]
    if not rows or not set(_COLUMNS) <= set(columns):
        return []
    return [row for row in rows if row['meta_updates'] == rows[-1]['meta_updates']]


def _cells(row: LastRow, state: State) -> list[str]:
    is_over = state in (State.COMPLETE, State.FAILED, State.STOPPED)
    left = '' if is_over else _duration(row.seconds_left)
    done, speed = f'{100 * min(row.fraction, 1):.0f}%', f'{row.steps_per_second:,.0f}'
    return [str(row.num_rows), done, f'{row.episode_return:.3g}', speed, left]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {seconds} s' if minutes else f'{seconds} s'
