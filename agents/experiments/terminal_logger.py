"""Terminal output while an agent trains: a progress bar, or lines."""

import sys
import time
from collections.abc import Callable
from typing import Any

import rich.console
import rich.live
import rich.progress
import rich.text
from acme.utils import loggers

from agents.experiments.loggers import Row, Run, seed_means
from agents.experiments.outputs import lose, say
from components.metrics import Group


class TerminalLogger(loggers.Logger):
    """A progress bar on a terminal, a plain line per row elsewhere; a line for each evaluation.

    Shows steps per second, the return and the meta-parameters' values (means over seeds), the time left, and once how
    long it took from the command to the first row.

    Args:
      label: `train` for the rows of training; those of any other label are shown in a line.
      run: how long it is.
    """

    def __init__(self, label: str, run: Run):
        self._label, self._run = label, run
        self._display = None if label != 'train' else _Bar(run) if sys.stdout.isatty() else _Lines(run)
        self._is_first = True

    def write(self, data: Row) -> None:
        row = seed_means(data)
        if self._display is None:
            values = '  '.join(f'{name} {value:.4g}' for name, value in row.items() if '/' in name)
            say(f'{self._label} at {row["env_steps"]:,.0f} steps  {values}', sys.stdout)
            return
        if self._is_first and self._run.started is not None:
            say(f'first row {time.monotonic() - self._run.started:.1f} s after the command', sys.stdout)
        self._is_first = False
        self._show(lambda display: display.show(row))

    def close(self) -> None:
        if self._display is not None:
            self._show(lambda display: display.close())

    def _show(self, what: Callable[[Any], None]) -> None:
        try:
            what(self._display)
        except OSError:
            lose(sys.stdout)  # Training continues without a display.


class _Bar:
    """Of a terminal."""

    def __init__(self, run: Run):
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(compact=True),
            rich.progress.TextColumn('{task.description}'),
        )
        self._task = self._bar.add_task('compiling', total=run.num_meta_updates)
        self._live = rich.live.Live(self._bar)
        self._live.start()

    def show(self, row: dict[str, float]) -> None:
        self._bar.update(self._task, completed=row['meta_updates'], description=_speed(row))
        self._live.update(rich.console.Group(self._bar, rich.text.Text(_meta_values(row))))

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """Of anything else."""

    def __init__(self, run: Run):
        self._total, self._num_replicas = run.num_meta_updates, run.num_replicas
        say('compiling', sys.stdout)

    def show(self, row: dict[str, float]) -> None:
        done = row['meta_updates']
        steps_left = row['env_steps'] / done * (self._total - done) * self._num_replicas
        left = steps_left / row['steps_per_second']
        say(f'{100 * done / self._total:3.0f}%  {_speed(row)}  {_meta_values(row)}  {left:.0f} s left', sys.stdout)

    def close(self) -> None:
        pass


def _speed(row: dict[str, float]) -> str:
    return f'{row["env_steps"]:,.0f} steps  {row["steps_per_second"]:,.0f}/s  return {row["episode_return"]:.3g}'


def _meta_values(row: dict[str, float]) -> str:
    prefix = str(Group.META_PARAMETER(''))
    return '  '.join(
        f'{name.removeprefix(prefix)} {value:.4g}' for name, value in row.items() if name.startswith(prefix)
    )
