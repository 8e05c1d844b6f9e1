"""How well agents that learn within an episode do it, with their weights frozen, beside hand-designed baseline
policies.

    python tools/meta_rl_report.py --workdir runs/independent
    python tools/meta_rl_report.py --workdir runs/uniform --workdir runs/easy --workdir runs/hard --out runs/matrix
    python tools/meta_rl_report.py --workdir runs/harlow --checkpoints all --num_episodes 1000

Each seed of a run plays whole episodes of tasks, and learns nothing. What is measured depends on the environment:

    bandits        regret, reward and the share of episodes that pull the best arm (or the one that tells which it is),
    by pull two-step task  probabilities of repeating a choice by reward x transition, their interaction and main effect
    Harlow task    share of correct choices by trial, with the objects of training and with as many others
    I-maze         steps to an episode's first goal, and from there to each later one

Of several runs, every agent also plays in the others' environments, where actions and observations are alike. Policies
to compare with are given the same tasks. Prints a table of means over seeds, with the lowest and the highest; writes
report.csv (each seed of each checkpoint) and report.png to --out. Where a bandit's arms walk, each width of the walk is
also measured for itself, and models of behaviour by Rescorla and Wagner are fitted to blocks of episodes
(rescorla_wagner.csv): the share of blocks in which BIC prefers each of them, and the learning rates that they find.
Exit status: 0, or 2 when what was asked for cannot be done.
"""

import argparse
import csv
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

from agents.analysis.frozen_episodes import FrozenEpisodes, Recorder
from agents.analysis.meta_rl.behaviour_fits import summary_of_fits
from agents.analysis.meta_rl.studies import Study, study_of
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.gin_config import ConfigurationError
from agents.experiments.launch import argument_parser, run_command
from agents.experiments.restore import RestoredRun, restore_learners
from agents.experiments.run_folder import CONFIG
from components.environments.base import Environment
from components.environments.batch import Batch
from components.environments.wrappers import layers, with_innermost

Row = dict[str, Any]
KEYS = ('test', 'policy', 'checkpoint', 'seed')
"""Columns that say whose rows these are; a hand-designed policy has neither checkpoint nor seed."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    args = _parse(arguments)
    return run_command(lambda: _report(args), args.traceback)


def _report(args: argparse.Namespace) -> int:
    checkpoints = _checked(args)
    environments = {directory: _innermost(directory) for directory in args.workdir}
    tests = _tests(environments)
    rows: list[Row] = []
    fits: list[Row] = []
    for name, study in tests.items():
        rows += _others(name, study.baselines, args)
        fits += _others(name, study.simulated, args)
    for directory in args.workdir:
        for run in restore_learners(directory, checkpoints):
            for name, study in tests.items():
                if study.environment.spec() == environments[directory].spec():
                    for keys, recording in _recordings(name, study, directory.name, run, args):
                        rows += [keys | row for row in study.measure(recording)]
                        fits += [keys | row for row in study.fits(recording)] if study.fits else []
    study = study_of(environments[args.workdir[0]])
    args.out.mkdir(parents=True, exist_ok=True)
    _write(args.out / 'report.csv', rows)
    console = rich.console.Console(width=1_000)
    console.print(_table(rows, study.summary))
    if fits:
        _write(args.out / 'rescorla_wagner.csv', fits)
        console.print(_table(fits, summary_of_fits))
    _plot(args.out / 'report.png', rows, study)
    print(f'results are in {args.out}')
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, action='append', required=True, help='a run; repeatable')
    parser.add_argument(
        '--checkpoints', metavar='N,N', help='meta-updates, such as 100,200, or all; default: the newest'
    )
    parser.add_argument('--num_episodes', type=int, default=10_000, metavar='N', help='of each policy and seed')
    parser.add_argument('--greedy', action='store_true', help='the most probable actions instead of drawn ones')
    parser.add_argument('--seed', type=int, default=0, help='of the episodes')
    parser.add_argument('--out', type=pathlib.Path, help='folder for results; default: report/ in the first workdir')
    args = parser.parse_args(arguments)
    args.out = args.out or args.workdir[0] / 'report'
    return args


def _checked(args: argparse.Namespace) -> list[int | str | None] | None:
    """The checkpoints asked for; raises ConfigurationError for what cannot be meant."""
    if args.num_episodes < 2:
        raise ConfigurationError(f'--num_episodes must be at least 2, got {args.num_episodes}')
    names = [directory.name for directory in args.workdir]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f'--workdir: runs are told apart by the names of their folders, got {", ".join(names)}'
        )
    if args.checkpoints in (None, 'all'):
        return None if args.checkpoints else [None]
    if not all(part.isdecimal() for part in args.checkpoints.split(',')):
        raise ConfigurationError(f'--checkpoints are numbers with commas between them, or all, got {args.checkpoints}')
    return list(dict.fromkeys(map(int, args.checkpoints.split(','))))


def _innermost(directory: pathlib.Path) -> Environment:
    """The task of a run, without wrappers."""
    gin_config.load([directory / CONFIG])
    batch = gin_config.build(Experiment).agent.environment
    if not isinstance(batch, Batch):
        raise ConfigurationError(f'{directory}: reports are of pure-JAX environments, not of {type(batch).__name__}')
    *_, innermost = layers(batch.environment)
    try:
        study_of(innermost)
    except ValueError as error:
        raise ConfigurationError(f'{directory}: {error}') from error
    return innermost


def _tests(environments: dict[pathlib.Path, Environment]) -> dict[str, Study]:
    """What is measured in, by name: each run's task and its variations, those that are the same once."""
    tests: dict[str, Study] = {}
    for directory, environment in environments.items():
        if not any(environment == study.environment for study in tests.values()):
            tests[directory.name] = study = study_of(environment)
            tests |= {f'{directory.name}, {name}': variation for name, variation in study.variations.items()}
    return tests


def _others(
    test: str, baselines: Mapping[str, Callable[[jax.Array, int], list[Row]]], args: argparse.Namespace
) -> Iterator[Row]:
    for policy, play in baselines.items():
        for row in play(jax.random.key(args.seed), args.num_episodes):
            yield dict(zip(KEYS, (test, policy, '', ''), strict=True)) | row


def _recordings(
    test: str, study: Study, name: str, run: RestoredRun, args: argparse.Namespace
) -> Iterator[tuple[Row, FrozenEpisodes]]:
    """What each seed's first lifetime plays, and the columns that say whose that is."""
    learner = run.learner
    batch: Any = learner.agent.environment
    wrapped = with_innermost(batch.environment, study.environment)
    record = Recorder(wrapped, learner.network, learner.agent.policy, study.num_steps, args.greedy)
    for seed in range(learner.num_seeds):
        params = jax.tree.map(lambda x, seed=seed: x[seed, 0], learner.state.agents.params)
        keys = dict(zip(KEYS, (test, name, run.checkpoint, seed), strict=True))
        yield keys, record(params, jax.random.key(args.seed), args.num_episodes)


def _write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, columns, restval='')
        writer.writeheader()
        writer.writerows(rows)


def _by(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that agree in these columns, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _without_keys(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in KEYS}


def _table(rows: Sequence[Row], summary_of: Callable[[Sequence[Row]], Row]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ('test', 'policy', 'updates'):
        table.add_column(column)
    for i, ((test, policy, checkpoint), own) in enumerate(_by(rows, *KEYS[:3]).items()):
        measured = [[_without_keys(row) for row in seed_rows] for seed_rows in _by(own, 'seed').values()]
        summaries = [summary_of(seed_rows) for seed_rows in measured]
        if i == 0:
            for name in summaries[0]:
                table.add_column(name, justify='right')
        cells = [_cell([summary[name] for summary in summaries]) for name in summaries[0]]
        table.add_row(test, policy, str(checkpoint), *cells)
    return table


def _cell(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f'{values[0]:.3f}'
    return f'{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]'


def _plot(path: pathlib.Path, rows: Sequence[Row], study: Study) -> None:
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    tests = _by(rows, 'test')
    figure, axes = pyplot.subplots(1, len(tests), figsize=(6.4 * len(tests), 4.8), squeeze=False, sharey=True)
    for axis, ((test,), own) in zip(axes[0], tests.items(), strict=True):
        (_curves if study.x else _bars)(axis, own, study)
        axis.set_title(test)
    axes[0, -1].legend(fontsize='small')
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _curves(axis: Any, rows: Sequence[Row], study: Study) -> None:
    """One line for each policy and each agent's checkpoint: the mean over seeds, and their range."""
    over, (y,) = str(study.x), study.y
    for (policy, checkpoint), own in _by(rows, 'policy', 'checkpoint').items():
        seeds = np.array([[row[y] for row in seed_rows] for seed_rows in _by(own, 'seed').values()])
        x = [row[over] for row in next(iter(_by(own, 'seed').values()))]
        style = '--' if checkpoint == '' else '-'
        (line,) = axis.plot(x, seeds.mean(0), style, label=f'{policy} {checkpoint}'.strip())
        axis.fill_between(x, seeds.min(0), seeds.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set_xlabel(over)
    axis.set_ylabel(y.replace('_', ' '))


def _bars(axis: Any, rows: Sequence[Row], study: Study) -> None:
    """One group of bars for each policy and each agent's checkpoint; dots are seeds."""
    groups = _by(rows, 'policy', 'checkpoint')
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


if __name__ == '__main__':
    sys.exit(main())
