"""The report of agents that learn within an episode: rows, tables and a plot, beside baselines in the same tasks."""

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rich.table

from agents.analysis import tables
from agents.analysis.frozen_episodes import FrozenEpisodes, Recorder
from agents.analysis.meta_rl.studies import study_of
from agents.analysis.meta_rl.study import Study
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.restore import RestoredRun
from agents.experiments.run_folder import CONFIG
from components.component import problem
from components.environments.base import Environment
from components.environments.batch import Batch
from components.environments.wrappers import layers, with_innermost
from components.types import ConfigurationError

Row = dict[str, Any]
KEYS = ('test', 'policy', 'checkpoint', 'seed')
"""Columns that say whose rows these are; a hand-designed policy has neither checkpoint nor seed."""


def task_of(directory: pathlib.Path, gin_files: Sequence[str | os.PathLike] = ()) -> Environment:
    """The task of a run, without wrappers.

    Args:
      directory: the run's folder.
      gin_files: read after the run's configuration, such as one that imports the module of a study.

    Raises:
      ConfigurationError: if the run is not of a pure-JAX environment, or no study is registered for it.
    """
    gin_config.load([directory / CONFIG, *gin_files])
    gin_config.check_effects(Experiment)
    batch = gin_config.build(Experiment).agent.environment
    if not isinstance(batch, Batch):
        raise ConfigurationError(f'{directory}: reports are of pure-JAX environments, not of {type(batch).__name__}')
    *_, innermost = layers(batch.environment)
    try:
        study_of(innermost)
    except ConfigurationError as error:
        raise ConfigurationError(f'{directory}: {error}') from error
    return innermost


def tests_of(tasks: Mapping[str, Environment]) -> dict[str, Study]:
    """What is measured, by name: the study of each run's task and of its variations, those that are the same once."""
    tests: dict[str, Study] = {}
    for name, task in tasks.items():
        if not any(task == study.environment for study in tests.values()):
            tests[name] = study = _checked_study(task)
            tests |= {f'{name}, {variation}': other for variation, other in study.variations().items()}
    return tests


def _checked_study(task: Environment) -> Study:
    """The study of a task, which may be a user's own class."""
    try:
        study = study_of(task)
    except TypeError as error:  # Its constructor takes something else than the environment.
        raise ConfigurationError(f'the study of {type(task).__name__} cannot be made: {error}') from error
    wrong = problem(study, Study)
    if not wrong and study.x and len(study.y) != 1:
        wrong = f'one with a single column in `y`, as its curves are over {study.x!r}'
    if wrong:
        raise ConfigurationError(f'the study of {type(task).__name__}, {type(study).__name__}, must be {wrong}')
    return study


class Report:
    """Collects what baselines and agents do in the same episodes.

    Args:
      tests: what is measured, by name.
      num_episodes: of each policy and seed in each test.
      seed: of the episodes.
      greedy: whether agents take their most probable actions instead of drawing them.

    Attributes:
      rows: what studies measure, with `KEYS`.
      fits: models of behaviour, likewise; none where no study fits any.
    """

    def __init__(self, tests: Mapping[str, Study], num_episodes: int, seed: int = 0, greedy: bool = False):
        self.rows: list[Row] = []
        self.fits: list[Row] = []
        self._tests, self._num_episodes, self._greedy = tests, num_episodes, greedy
        self._key = jax.random.key(seed)

    def add_baselines(self) -> None:
        """Plays the hand-designed policies of all tests."""
        for test, study in self._tests.items():
            for policies, found in ((study.baselines(), self.rows), (study.simulated(), self.fits)):
                for policy, play in policies.items():
                    keys = dict(zip(KEYS, (test, policy, '', ''), strict=True))
                    found += [keys | row for row in play(self._key, self._num_episodes)]

    def add_agents(self, name: str, run: RestoredRun) -> None:
        """Plays each seed's first lifetime in the tests whose actions and observations are those of its own task.

        Args:
          name: of the run.
          run: with the weights of a checkpoint.
        """
        environment: Any = run.learner.agent.environment
        *_, task = layers(environment.environment)
        for test, study in self._tests.items():
            if study.environment.spec() == task.spec():
                for seed, recording in self._recordings(run, study):
                    keys = dict(zip(KEYS, (test, name, run.checkpoint, seed), strict=True))
                    rows = study.measure(recording)
                    if not rows:
                        raise ConfigurationError(f'{type(study).__name__}.measure returns no row for {name}')
                    self.rows += [keys | row for row in rows]
                    self.fits += [keys | row for row in study.fits(recording)]

    def _recordings(self, run: RestoredRun, study: Study) -> Iterator[tuple[int, FrozenEpisodes]]:
        learner, environment = run.learner, run.learner.agent.environment
        assert isinstance(environment, Batch)
        wrapped = with_innermost(environment.environment, study.environment)
        record = Recorder(wrapped, learner.network, learner.agent.policy, study.num_steps(), self._greedy)
        for seed in range(learner.num_replicas):
            params = jax.tree.map(lambda x, seed=seed: x[seed, 0], learner.state.agents.params)
            yield seed, record(params, self._key, self._num_episodes)


def summary_tables(rows: Sequence[Row], tests: Mapping[str, Study]) -> Iterator[rich.table.Table]:
    """Summaries of rows in each test; a table for each kind of study."""
    for kind in dict.fromkeys(type(study) for study in tests.values()):
        names = [name for name, study in tests.items() if type(study) is kind]
        yield summary_table([row for row in rows if row['test'] in names], tests[names[0]].summary)


def summary_table(rows: Sequence[Row], summary_of: Callable[[Sequence[Row]], Mapping[str, float]]) -> rich.table.Table:
    """A line for each test, policy and checkpoint: the mean over seeds of each figure, and its range.

    Args:
      rows: with `KEYS`.
      summary_of: from the rows of a seed, without `KEYS`, to its figures.
    """
    columns: list[str] = []
    lines = []
    for (test, policy, checkpoint), own in tables.grouped(rows, *KEYS[:3]).items():
        seeds = [list(map(_without_keys, of_seed)) for of_seed in tables.grouped(own, 'seed').values()]
        summaries = [summary_of(of_seed) for of_seed in seeds]
        columns = columns or list(summaries[0])
        cells = [tables.mean_and_range([summary[name] for summary in summaries]) for name in columns]
        lines.append([test, policy, str(checkpoint), *cells])
    table = tables.table(['test', 'policy', 'updates', *columns], lines)
    for column in table.columns[3:]:
        column.justify = 'right'
    return table


def _without_keys(row: tables.Row) -> Row:
    return {name: value for name, value in row.items() if name not in KEYS}


def plot(path: pathlib.Path, rows: Sequence[Row], tests: Mapping[str, Study]) -> None:
    """A panel for each test: curves over the study's column `x`, or bars.

    Args:
      path: of the image.
      rows: with `KEYS`.
      tests: what was measured, by name.
    """
    with tables.panels(path, 1, len(tests), (6.4, 4.8), share_y=True) as axes:
        for axis, ((test,), own) in zip(axes[0], tables.grouped(rows, 'test').items(), strict=True):
            study = tests[test]
            (_curves if study.x else _bars)(axis, own, study)
            axis.set_title(test)
        axes[0, -1].legend(fontsize='small')


def _curves(axis: Any, rows: Sequence[tables.Row], study: Study) -> None:
    """One line for each policy and each agent's checkpoint: the mean over seeds, and their range."""
    over, (y,) = str(study.x), study.y
    for (policy, checkpoint), own in tables.grouped(rows, 'policy', 'checkpoint').items():
        by_seed = tables.grouped(own, 'seed').values()
        seeds = np.array([[row[y] for row in of_seed] for of_seed in by_seed])
        x = [row[over] for row in next(iter(by_seed))]
        style = '--' if checkpoint == '' else '-'
        (line,) = axis.plot(x, seeds.mean(0), style, label=f'{policy} {checkpoint}'.strip())
        axis.fill_between(x, seeds.min(0), seeds.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set_xlabel(over)
    axis.set_ylabel(y.replace('_', ' '))


def _bars(axis: Any, rows: Sequence[tables.Row], study: Study) -> None:
    """One group of bars for each policy and each agent's checkpoint; dots are seeds."""
    groups = tables.grouped(rows, 'policy', 'checkpoint')
    width = 0.8 / len(study.y)
    for i, (y, colour) in enumerate(zip(study.y, itertools.cycle(['C0', 'C1', 'C2', 'C3']), strict=False)):
        for j, own in enumerate(groups.values()):
            values = [row[y] for row in own]
            label = y.replace('_', ' ') if j == 0 else None
            axis.bar(j + i * width, np.mean(values), width, color=colour, label=label)
            if len(values) > 1:
                axis.plot([j + i * width] * len(values), values, 'k.', markersize=3)
    axis.set_xticks(np.arange(len(groups)) + 0.4 - width / 2)
    axis.set_xticklabels([f'{policy} {checkpoint}'.strip() for policy, checkpoint in groups], rotation=30, ha='right')
