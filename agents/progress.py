"""What a person sees while an agent trains."""

import sys
from typing import Any

import rich.console
import rich.progress
from acme.utils import loggers

from components.loggers import Row, seed_means


class ProgressDisplay(loggers.Logger):
    """A progress bar on a terminal, a plain line per row elsewhere.

    Shows steps per second, the return and the meta-parameters' values (means over seeds), and the time left.

    Args:
      num_meta_updates: of the whole training.
    """

    def __init__(self, num_meta_updates: int):
        self._total = num_meta_updates
        self._bar = None
        if sys.stdout.isatty():
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TaskProgressColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn('{task.description}'),
                console=rich.console.Console(soft_wrap=True),
            )
            self._task = self._bar.add_task('compiling', total=num_meta_updates)
            self._bar.start()
        else:
            print('compiling', flush=True)

    def write(self, data: Row) -> None:
        row = seed_means(data)
        done, text = row['meta_updates'], _describe(row)
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
        else:
            left = row['wall_time'] * (self._total - done) / done
            print(f'{100 * done / self._total:3.0f}%  {text}  {left:.0f} s left', flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()


def _describe(row: dict[str, Any]) -> str:
    parts = [
        f'{row["env_steps"]:,.0f} steps',
        f'{row["steps_per_second"]:,.0f}/s',
        f'return {row["episode_return"]:.3g}',
    ]
    prefix = 'meta/'
    parts += [f'{name.removeprefix(prefix)} {value:.4g}' for name, value in row.items() if name.startswith(prefix)]
    return '  '.join(parts)
