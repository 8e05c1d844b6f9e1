"""What a person sees while an agent trains."""

import sys

import rich.console
import rich.live
import rich.progress
import rich.text
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
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(compact=True),
            rich.progress.TextColumn('{task.description}'),
        )
        self._task = self._bar.add_task('compiling', total=num_meta_updates)
        self._live = rich.live.Live(self._bar) if sys.stdout.isatty() else None
        if self._live:
            self._live.start()
        else:
            print('compiling', flush=True)

    def write(self, data: Row) -> None:
        row = seed_means(data)
        done = row['meta_updates']
        speed = f'{row["env_steps"]:,.0f} steps  {row["steps_per_second"]:,.0f}/s  return {row["episode_return"]:.3g}'
        values = '  '.join(
            f'{name.removeprefix("meta/")} {value:.4g}' for name, value in row.items() if name.startswith('meta/')
        )
        if self._live:
            self._bar.update(self._task, completed=done, description=speed)
            self._live.update(rich.console.Group(self._bar, rich.text.Text(values)))
        else:
            left = row['wall_time'] * (self._total - done) / done
            print(f'{100 * done / self._total:3.0f}%  {speed}  {values}  {left:.0f} s left', flush=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()
