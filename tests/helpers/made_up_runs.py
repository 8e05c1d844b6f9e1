"""Run folders that no training has made."""

import csv
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONFIG = """from __gin__ import dynamic_registration
from agents import agent
from agents.experiments import experiment
from components import optimisers
from components import update_rule
from components.environments import batch
from components.environments import catch

NUM_SEEDS = {seeds}
TOTAL_ENV_STEPS = {total}

experiment.Experiment.num_seeds = %NUM_SEEDS
experiment.Experiment.total_env_steps = %TOTAL_ENV_STEPS
experiment.Experiment.agent = @agent.Agent()
agent.Agent.environment = @batch.Batch()
agent.Agent.update_rule = @update_rule.UpdateRule()
update_rule.UpdateRule.optimiser = @optimisers.Optimiser()
batch.Batch.environment = @catch.Catch()
catch.Catch.columns = {columns}
optimisers.Optimiser.learning_rate = {learning_rate}
"""

STEPS = 1000
"""Environment steps of a row, which is one meta-update."""


def write_config(folder, *, seeds=3, num_rows=20, columns=5, learning_rate=0.001):
    """The configuration of a run of so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(seeds=seeds, total=num_rows * STEPS, columns=columns, learning_rate=learning_rate)
    (folder / 'config.gin').write_text(text)


def write_table(folder, name, columns, seeds=(0, 1, 2), replicas=({},)):
    """A table: `columns` are arrays `[P]`, or `[S, P]`, of all replicas after one another."""
    num_rows = max(np.shape(values)[-1] for values in columns.values())
    names = ['seed', *replicas[0], 'env_steps', 'meta_updates', *columns]
    with (folder / f'{name}.csv').open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(names)
        for row in range(num_rows):
            lanes = [(replica, seed) for replica in replicas for seed in seeds]
            for lane, (replica, seed) in enumerate(lanes):
                cells = [values[row] if np.ndim(values) == 1 else values[lane][row] for values in columns.values()]
                shown = ['' if np.isnan(cell) else f'{cell:.7g}' for cell in cells]
                writer.writerow([seed, *replica.values(), STEPS * (row + 1), row + 1, *shown])


def write_run(
    folder, end, *, seeds=(0, 1, 2), num_rows=20, rows_done=None, meta=('objective.returns.discount',), **config
):
    """A run whose returns rise to `end` and a little more with each seed.

    Args:
      folder: of the run.
      end: final return of the first seed.
      seeds: of the run.
      num_rows: of the whole run.
      rows_done: of the table, if it is not complete.
      meta: paths of its meta-parameters.
      config: as `write_config` takes it.
    """
    write_config(folder, seeds=len(seeds), num_rows=num_rows, **config)
    progress = np.arange(1, (rows_done or num_rows) + 1) / num_rows
    offsets = 0.1 * np.arange(len(seeds))[:, None]
    columns = {'episode_return': end * np.minimum(progress / 0.8, 1) + offsets}
    columns |= {f'meta/{path}': 0.8 + 0.1 * progress + 0.02 * offsets for path in meta}
    columns |= {f'meta_gradient_signal_to_noise_over_seeds/{path}': 0.5 + 0.0 * progress for path in meta}
    write_table(folder, 'train', columns, seeds)
