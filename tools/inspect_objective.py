"""Shows what a learned objective has discovered in the course of a run: which known return it is like, how far ahead it
looks.

    python tools/inspect_objective.py --workdir runs/frodo
    python tools/inspect_objective.py --workdir runs/frodo --checkpoints 1000,20000 --unroll_length 20

For each checkpoint and seed, the first lifetime's agent keeps acting in its environment, without learning. On what
it acts, the learned target is compared with n-step returns, lambda-returns, V-trace and rewards alone: the root mean
squared difference, and, as scale and offset of a target are not what matters, the fraction of its variance that the
best linear function of the known one explains (R^2). The policy target of a LearnedPolicyGradient is compared with the
advantages of these returns, by R^2 and correlation alone. Sensitivity is the target's derivative with respect to each
reward r_{t+1+j}, value v_{t+1+j} and log importance ratio of a_{t+j}, j steps ahead in the same episode, in the mean.
Prints a table of means over seeds, and writes to --out: distances.csv, sensitivity.csv and objective.png. Exit status:
0, or 2 when what was asked for cannot be done.
"""

import argparse
import csv
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

from agents.analysis import learned_objectives
from agents.analysis.learned_objectives import Inspector, ObjectiveSummary
from agents.analysis.reference_returns import KnownReturn, known_returns
from agents.experiments.gin_config import ConfigurationError
from agents.experiments.launch import argument_parser, run_command
from agents.experiments.restore import RestoredRun, restore_learners

Findings = dict[str, dict[int, ObjectiveSummary]]
"""Of all seeds, leaves `[S, ...]`, by path of the learned objective and checkpoint."""

INPUTS = {'reward': 'reward r[t+1+j]', 'value': 'value v[t+1+j]', 'log_rho': 'log importance ratio of a[t+j]'}
"""What sensitivity is to, as the plot says it."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    args = _parse(arguments)
    return run_command(lambda: _study(args), args.traceback)


def _study(args: argparse.Namespace) -> int:
    checkpoints = _checked(args)
    inspectors: dict[str, Inspector] = {}
    findings: Findings = {}
    for run in restore_learners(args.workdir, checkpoints):
        inspectors = inspectors or _inspectors(run, args)
        for path, inspector in inspectors.items():
            findings.setdefault(path, {})[run.checkpoint] = _inspect_seeds(run, inspector, args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        known = known_returns(args.unroll_length or run.learner.agent.unroll_length)
        _write(args.out, findings, known)  # After each checkpoint: an interrupted study keeps what it has.
    # Wider than any terminal: a path that is cut short would be of no use.
    rich.console.Console(width=1_000).print(_table(findings, known))
    _plot(args.out / 'objective.png', findings, known)
    print(f'results are in {args.out}')
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='a run with checkpoints')
    parser.add_argument('--checkpoints', metavar='N,N', help='meta-updates, such as 100,200; default: all there are')
    parser.add_argument('--num_trajectories', type=int, default=1024, metavar='N', help='for each checkpoint and seed')
    parser.add_argument('--unroll_length', type=int, metavar='T', help="steps of a trajectory; default: the run's")
    parser.add_argument('--seed', type=int, default=0, help='of acting')
    parser.add_argument('--out', type=pathlib.Path, help='folder for results; default: objective/ in the workdir')
    args = parser.parse_args(arguments)
    args.out = args.out or args.workdir / 'objective'
    return args


def _checked(args: argparse.Namespace) -> list[int | str | None] | None:
    """The checkpoints asked for; raises ConfigurationError for numbers that cannot be meant."""
    for name in ('num_trajectories', 'unroll_length'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigurationError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.checkpoints is None:
        return None
    if not all(part.isdecimal() for part in args.checkpoints.split(',')):
        raise ConfigurationError(f'--checkpoints are numbers with commas between them, got {args.checkpoints}')
    return list(dict.fromkeys(map(int, args.checkpoints.split(','))))


def _inspectors(run: RestoredRun, args: argparse.Namespace) -> dict[str, Inspector]:
    """One for each learned objective, by its path."""
    learner = run.learner
    unroll_length = args.unroll_length or learner.agent.unroll_length
    return {
        path: Inspector(learner.inner_loop, path, unroll_length, args.num_trajectories)
        for path in learned_objectives.learned_objectives(learner.agent)
    }


def _inspect_seeds(run: RestoredRun, inspector: Inspector, acting_seed: int) -> ObjectiveSummary:
    """Looks at each seed's first lifetime, which acts with the same random numbers at every checkpoint."""
    state, summaries = run.learner.state, []
    for seed in range(run.learner.num_seeds):
        meta_params, agents = jax.tree.map(lambda x, seed=seed: x[seed], (state.meta_params, state.agents))
        key = jax.random.fold_in(jax.random.key(acting_seed), seed)
        summaries.append(
            learned_objectives.summarise_objective(inspector(meta_params, jax.tree.map(lambda x: x[0], agents), key))
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *summaries)


def _write(directory: pathlib.Path, findings: Findings, known: list[KnownReturn]) -> None:
    for name, rows in {
        'distances': _distance_rows(findings, known),
        'sensitivity': _sensitivity_rows(findings),
    }.items():
        with (directory / f'{name}.csv').open('w', newline='') as file:
            csv.writer(file, lineterminator='\n').writerows([[_figure(x, '.6g') for x in row] for row in rows])


def _distance_rows(findings: Findings, known: list[KnownReturn]) -> Iterator[Sequence[Any]]:
    columns = 'objective', 'checkpoint', 'seed', 'known_return', 'discount', 'lambda'
    figures = 'distance', 'r_squared', 'correlation'
    yield *columns, *figures
    for path, checkpoint, seed, summary in _by_seed(findings):
        for i, label in enumerate(known):
            values = (float(getattr(summary, name)[i]) for name in figures)
            yield path, checkpoint, seed, label.name, label.discount, label.lambda_, *values


def _sensitivity_rows(findings: Findings) -> Iterator[Sequence[Any]]:
    yield 'objective', 'checkpoint', 'seed', 'input', 'steps_ahead', 'sensitivity', 'num_pairs'
    for path, checkpoint, seed, summary in _by_seed(findings):
        for name, means in summary.sensitivity.items():
            for steps_ahead, (mean, count) in enumerate(zip(means, summary.num_pairs[name], strict=True)):
                yield path, checkpoint, seed, name, steps_ahead, float(mean), int(count)


def _by_seed(findings: Findings) -> Iterator[tuple[str, int, int, ObjectiveSummary]]:
    for path, checkpoints in findings.items():
        for checkpoint, summary in checkpoints.items():
            for seed in range(len(summary.distance)):
                yield path, checkpoint, seed, jax.tree.map(lambda x, seed=seed: x[seed], summary)


def _figure(value: Any, precision: str = '.3g') -> str:
    """As it is written; nothing for what is not known."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ''
    return format(value, precision) if isinstance(value, float) else str(value)


def _over_seeds(summary: ObjectiveSummary) -> ObjectiveSummary:
    """Means over the seeds where a figure is known, NaN if it is for none."""

    def mean(x: np.ndarray) -> np.ndarray:
        count = np.sum(~np.isnan(x), 0)
        return np.where(count > 0, np.nansum(x, 0) / np.maximum(count, 1), np.nan)

    return jax.tree.map(mean, summary)


def _table(findings: Findings, known: list[KnownReturn]) -> rich.table.Table:
    table = rich.table.Table(
        'learned objective',
        'checkpoint',
        'nearest known return',
        'distance',
        'R^2',
        'correlation',
        'best linear fit',
        'R^2',
        'to r\\[t+1]',
        'to v\\[t+1]',
        box=rich.box.SIMPLE,
    )
    for path, checkpoints in findings.items():
        for checkpoint, summary in checkpoints.items():
            mean = _over_seeds(summary)
            near, fit = learned_objectives.nearest(mean), learned_objectives.best_fit(mean)
            figures = (mean.distance, mean.r_squared, mean.correlation)
            cells = [_figure(None if near is None else float(x[near])) for x in figures]
            fitted = [] if fit is None else [str(known[fit]), _figure(float(mean.r_squared[fit]))]
            first = [_figure(float(mean.sensitivity[name][0])) if name in mean.sensitivity else '' for name in _FIRST]
            label = '' if near is None else str(known[near])
            table.add_row(path, str(checkpoint), label, *cells, *(fitted or ['', '']), *first)
    return table


_FIRST = ('reward', 'value')


def _plot(path: pathlib.Path, findings: Findings, known: list[KnownReturn]) -> None:
    """For each learned objective: its distances from known returns over meta-updates, and a heat map for each input."""
    import matplotlib  # Imported here as only this command should wait for it.

    matplotlib.use('Agg')
    from matplotlib import pyplot

    num_panels = 1 + max(len(next(iter(checkpoints.values())).sensitivity) for checkpoints in findings.values())
    figure, axes = pyplot.subplots(
        len(findings), num_panels, figsize=(4 * num_panels, 3.2 * len(findings)), squeeze=False
    )
    for row, (name, checkpoints) in zip(axes, findings.items(), strict=True):
        means = {checkpoint: _over_seeds(summary) for checkpoint, summary in checkpoints.items()}
        _plot_distances(row[0], means, known)
        row[0].set_title(name, fontsize=8)
        inputs = next(iter(means.values())).sensitivity
        for panel, kind in zip(row[1:], inputs, strict=False):
            _plot_sensitivity(panel, {checkpoint: mean.sensitivity[kind] for checkpoint, mean in means.items()})
            panel.set_title(f'sensitivity to {INPUTS[kind]}', fontsize=8)
        for panel in row[1 + len(inputs) :]:
            panel.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _plot_distances(axes: Any, means: Mapping[int, ObjectiveSummary], known: list[KnownReturn]) -> None:
    """A line for each kind of known return: that of its discounts and lambdas that comes nearest."""
    has_scale = any(not np.isnan(mean.distance).all() for mean in means.values())
    for name in dict.fromkeys(label.name for label in known):
        kind = np.array([label.name == name for label in known])
        figures = [mean.distance[kind].min() if has_scale else mean.correlation[kind].max() for mean in means.values()]
        axes.plot(list(means), figures, marker='.', label=name)
    axes.set_xlabel('meta-updates', fontsize=8)
    axes.set_ylabel(
        'distance from the nearest of the kind' if has_scale else 'highest correlation of the kind', fontsize=8
    )
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6)


def _plot_sensitivity(axes: Any, by_checkpoint: Mapping[int, np.ndarray]) -> None:
    heat = np.stack(list(by_checkpoint.values()), 1)  # Steps ahead upwards, checkpoints to the right.
    limit = max(np.nanmax(np.abs(heat)), np.finfo(float).tiny) if np.isfinite(heat).any() else 1
    image = axes.imshow(
        heat, cmap='RdBu_r', vmin=-limit, vmax=limit, origin='lower', aspect='auto', interpolation='nearest'
    )
    every = -(-heat.shape[1] // 8)  # As many labels as there is room for.
    axes.set_facecolor('0.85')  # Where there is nothing so far ahead, unlike where it is 0.
    axes.locator_params(axis='y', integer=True)
    axes.set_xticks(range(0, heat.shape[1], every), list(by_checkpoint)[::every], fontsize=6)
    axes.set_xlabel('meta-updates', fontsize=8)
    axes.set_ylabel('steps ahead j', fontsize=8)
    axes.tick_params(labelsize=6)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=6)


if __name__ == '__main__':
    sys.exit(main())
