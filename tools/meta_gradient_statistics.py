"""Measures how noisy the meta-gradients of a variant are, for each number of inner steps and weighting asked for.

    python tools/meta_gradient_statistics.py --gin_file gin/snake/self_tuning.gin
    python tools/meta_gradient_statistics.py --workdir runs/snake --checkpoints 200,2000 --gin_bindings 'NUM_ENVS = 128'

Freezes a new agent, or with --workdir the agents of a run's checkpoints, and draws independent unrolls from each.
Checkpoints are read with the configuration of their run; --gin_file and --gin_bindings then change what is measured, as
long as the weights keep their shapes. An inner optimiser of another kind than the run's starts from its initial state.
Signal-to-noise ratios are estimated without the bias of the plug-in ratio; `agents/analysis/signal_to_noise.py` has the
formulas and the coverage of the intervals. Prints a table, and writes to --out: statistics.csv, statistics.png, and
gradients_*.npy, the derivatives `[N, K, P]` that they come from. Exit status: 0, or 2 when what was asked for cannot be
done.
"""

import argparse
import csv
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import jax
import numpy as np
import rich.box
import rich.console
import rich.progress
import rich.table

from agents.analysis import gradient_noise, signal_to_noise
from agents.analysis.gradient_noise import FrozenAgent, Sampler, WeightedEstimator
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.launch import argument_parser, run_command
from agents.experiments.restore import restore_learner
from agents.learner import Learner
from components.meta_optimisers import step_weights
from components.meta_optimisers.validation_loss import ValidationLoss
from components.optimisers import Optimiser
from components.types import CompositionError, MetaParams

UNROLLS_AT_ONCE = 16
"""In one compiled call, between two moves of the progress bar."""

ALL = 'all'
"""Row of the meta-parameters taken together."""


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
    estimators = [
        WeightedEstimator(k, weights) for k in args.num_inner_steps for weights in map(_weights, args.step_weights)
    ]
    files = args.gin_file or [args.workdir / 'config.gin']
    frozen = dict(_frozen_agents(args, files))
    sampler, optimiser, initial = _sampler(files, args)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for label, agent in frozen.items():
        agent = gradient_noise.with_optimiser(agent, optimiser)
        if args.initial_meta_params:
            agent = agent._replace(meta_params=initial)
        samples = _draw(sampler, agent, args.num_unrolls, args.seed, f'checkpoint {label}')
        reference = samples[:, -1]
        if args.num_reference_unrolls:
            reference = _draw(sampler, agent, args.num_reference_unrolls, args.seed + 1, f'reference {label}')[:, -1]
        components = {**gradient_noise.meta_param_slices(initial), ALL: slice(None)}
        for (estimator, path), summary in gradient_noise.summarise_noise(
            samples, estimators, components, reference
        ).items():
            rows.append(_row(label, estimator, path, len(samples), len(reference), summary))
        np.save(args.out / f'gradients_{label}.npy', samples)
        _write(args.out / 'statistics.csv', rows)  # After each checkpoint: an interrupted study keeps what it has.
    # Wider than any terminal: a path that is cut short would be of no use.
    rich.console.Console(width=1_000).print(_table(rows))
    _plot(args.out / 'statistics.png', rows)
    print(f'results are in {args.out}')
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('--gin_file', action='append', metavar='FILE', help='a variant; default: that of the run')
    parser.add_argument('--gin_bindings', action='append', default=[], metavar='LINE', help='repeatable')
    parser.add_argument('--workdir', type=pathlib.Path, help='a run with checkpoints; default: a new agent')
    parser.add_argument(
        '--checkpoints', type=_integers, help="meta-updates, such as 200,2000; default: the run's newest"
    )
    parser.add_argument('--num_inner_steps', type=_integers, default=[5, 10], metavar='K,K')
    parser.add_argument(
        '--step_weights',
        nargs='+',
        default=['LastStep', 'Uniform', 'Geometric(0.9)', 'Lambda(0.9)', 'Lambda(0.7)'],
        metavar='WEIGHTS',
        help='classes of components/meta_optimisers/step_weights.py with their number in brackets',
    )
    parser.add_argument('--num_unrolls', type=int, default=256, help='at least 256 for figures to be relied on')
    parser.add_argument(
        '--num_reference_unrolls', type=int, default=0, help='more unrolls for the reference; 0 takes the same ones'
    )
    parser.add_argument('--num_start_steps', type=int, default=100, help='acted before each unroll, from new episodes')
    parser.add_argument(
        '--initial_meta_params',
        action='store_true',
        help='as the variant starts with; default: as the run has learned them',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the unrolls')
    parser.add_argument(
        '--out', type=pathlib.Path, help='folder for results; default: statistics/ in the workdir or here'
    )
    args = parser.parse_args(arguments)
    if not args.gin_file and not args.workdir:
        parser.error('give --gin_file, --workdir or both')
    if args.num_unrolls < 4 or args.num_reference_unrolls == 1 or min(args.num_inner_steps) < 1:
        parser.error(
            '--num_unrolls must be at least 4, --num_reference_unrolls at least 2, --num_inner_steps at least 1'
        )
    args.out = args.out or (args.workdir or pathlib.Path()) / 'statistics'
    return args


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(',')]


def _weights(text: str) -> step_weights.StepWeights:
    """A weighting from its class and number, such as `Geometric(0.9)`.

    Raises:
      ConfigurationError: if there is none of that name, or its number is out of range.
    """
    names = ('LastStep', 'Uniform', 'Geometric', 'Lambda')
    match = re.fullmatch(r'(\w+)(?:\((-?[\d.]+)\))?', text)
    if not match or match[1] not in names:
        raise gin_config.ConfigurationError(
            f'--step_weights {text}: choose from {", ".join(names)}, with a number as in Geometric(0.9)'
        )
    try:
        return getattr(step_weights, match[1])(*([float(match[2])] if match[2] else []))
    except (TypeError, ValueError) as error:
        raise gin_config.ConfigurationError(f'--step_weights {text}: {error}') from error


def _frozen_agents(args: argparse.Namespace, files: Sequence[str | pathlib.Path]) -> Iterator[tuple[str, FrozenAgent]]:
    """The agents to measure, by their number of meta-updates."""
    if not args.workdir:
        yield '0', gradient_noise.freeze(_learner(files, args.gin_bindings)[0].state)
        return
    for checkpoint in args.checkpoints or [None]:
        run = restore_learner(args.workdir, checkpoint)
        yield str(run.checkpoint), gradient_noise.freeze(run.learner.state)


def _sampler(files: Sequence[str | pathlib.Path], args: argparse.Namespace) -> tuple[Sampler, Optimiser, MetaParams]:
    """What draws unrolls, the inner optimiser in it, and the meta-parameters that a new agent starts with."""
    learner, experiment = _learner(files, args.gin_bindings)
    meta_gradient = experiment.agent.meta_optimiser
    outer_loss = getattr(meta_gradient, 'outer_loss', None)
    if not isinstance(outer_loss, ValidationLoss):
        raise CompositionError(f'the study is of ValidationLoss, but the meta-optimiser is {meta_gradient}')
    num_inner_steps = max(args.num_inner_steps)
    sampler = Sampler(outer_loss, learner.inner_loop, learner.actor, num_inner_steps, args.num_start_steps)
    return sampler, experiment.agent.update_rule.optimiser, gradient_noise.freeze(learner.state).meta_params


def _learner(files: Sequence[str | pathlib.Path], bindings: Sequence[str] = ()) -> tuple[Learner, Experiment]:
    gin_config.load(files, bindings)
    experiment = gin_config.build(Experiment)
    return experiment.make_learner(), experiment


def _draw(sampler: Sampler, agent: FrozenAgent, num_unrolls: int, seed: int, what: str) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), -(-num_unrolls // UNROLLS_AT_ONCE))
    samples = [sampler(agent, key, UNROLLS_AT_ONCE) for key in rich.progress.track(keys, what)]
    return np.concatenate(samples)[:num_unrolls]


def _row(
    label: str,
    estimator: WeightedEstimator,
    path: str,
    num_unrolls: int,
    num_reference: int,
    summary: gradient_noise.NoiseSummary,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        'checkpoint': label,
        'num_inner_steps': estimator.num_inner_steps,
        'step_weights': str(estimator.step_weights),
        'meta_parameter': path,
        'num_unrolls': num_unrolls,
        'num_reference_unrolls': num_reference,
        'signal_to_noise_method': signal_to_noise.METHOD,
    }
    for name, value in summary._asdict().items():
        if isinstance(value, tuple):
            name = name.removesuffix('_interval')
            row |= {f'{name}_low': _number(value[0]), f'{name}_high': _number(value[1])}
        else:
            row[name] = _number(value)
    return row


def _number(value: float) -> str:
    return '' if np.isnan(value) else f'{value:.4g}'


def _write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def _table(rows: list[dict[str, Any]]) -> rich.table.Table:
    table = rich.table.Table(
        'checkpoint',
        'K',
        'weights',
        'meta-parameter',
        'variance',
        'LastStep variance / this',
        'signal-to-noise',
        'less that of LastStep',
        'cosine',
        box=rich.box.SIMPLE,
        caption=f'signal-to-noise: {signal_to_noise.METHOD}, 0 if that is negative; 95% intervals',
    )
    for row in rows:
        table.add_row(
            row['checkpoint'],
            str(row['num_inner_steps']),
            row['step_weights'],
            row['meta_parameter'],
            row['variance'],
            *(f'{row[n]} [{row[f"{n}_low"]}, {row[f"{n}_high"]}]' if row[n] else '' for n in _WITH_INTERVALS),
            row['cosine'] or 'unresolved',
        )
    return table


_WITH_INTERVALS = ('variance_ratio', 'signal_to_noise', 'signal_to_noise_gain')


def _plot(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Signal-to-noise with its interval, a panel for each checkpoint and meta-parameter."""
    import matplotlib  # Imported here as only this command should wait for it.

    matplotlib.use('Agg')
    from matplotlib import pyplot

    labels, paths = (list(dict.fromkeys(row[name] for row in rows)) for name in ('checkpoint', 'meta_parameter'))
    figure, axes = pyplot.subplots(
        len(labels), len(paths), figsize=(3.2 * len(paths), 2.4 * len(labels)), squeeze=False, sharey=True
    )
    for i, label in enumerate(labels):
        for j, name in enumerate(paths):
            here = [row for row in rows if (row['checkpoint'], row['meta_parameter']) == (label, name)]
            ys = range(len(here))
            value, low, high = (
                np.array([float(row[f'signal_to_noise{end}'] or 'nan') for row in here])
                for end in ('', '_low', '_high')
            )
            axes[i, j].hlines(ys, low, high)
            axes[i, j].plot(value, ys, 'o', markersize=4)
            axes[i, j].set_yticks(ys, [f'K={row["num_inner_steps"]} {row["step_weights"]}' for row in here], fontsize=6)
            axes[i, j].set_title(f'checkpoint {label}\n{name}', fontsize=7)
            axes[i, j].tick_params(axis='x', labelsize=6)
            axes[i, j].grid(axis='x', alpha=0.3)
    figure.supxlabel('signal-to-noise of one unroll, 95% interval', fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    sys.exit(main())
