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
import functools
import pathlib
import re
import sys
from collections.abc import Iterator

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import numpy as np
import rich.progress

from agents.analysis import gradient_noise, noise_report, tables
from agents.analysis.gradient_noise import FrozenAgent, Sampler, WeightedEstimator
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.restore import restore_learners
from agents.learner import Learner
from components.meta_optimisers.step_weights import Geometric, Lambda, LastStep, StepWeights, Uniform
from tools.command_line import Parser, configuration, run_command
from tools.option_types import at_least, integers

WEIGHTINGS = {cls.__name__: cls for cls in (LastStep, Uniform, Geometric, Lambda)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _measure, arguments)


def _measure(args: argparse.Namespace) -> int:
    estimators = [WeightedEstimator(k, weights) for k in args.num_inner_steps for weights in args.step_weights]
    frozen = dict(_frozen_agents(args))
    learner = _learner(args)
    initial = gradient_noise.freeze(learner.state).meta_params
    components = {**gradient_noise.meta_param_slices(initial), 'all': slice(None)}
    sampler = gradient_noise.sampler_of(learner, estimators, args.num_start_steps)
    out = args.out or (args.workdir or pathlib.Path()) / 'statistics'
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tables.Row] = []
    for label, agent in frozen.items():
        agent = gradient_noise.with_optimiser(agent, learner.agent.update_rule.optimiser)
        if args.initial_meta_params:
            agent = agent._replace(meta_params=initial)
        samples = _draw(sampler, agent, args.num_unrolls, args.seed, f'checkpoint {label}')
        reference = samples[:, -1]
        if args.num_reference_unrolls:
            reference = _draw(sampler, agent, args.num_reference_unrolls, args.seed + 1, f'reference {label}')[:, -1]
        summaries = gradient_noise.summarise_noise(samples, estimators, components, reference)
        rows += noise_report.rows(label, summaries, len(samples), len(reference))
        np.save(out / f'gradients_{label}.npy', samples)
        tables.write_csv(out / 'statistics.csv', rows)  # After each checkpoint: an interrupted study keeps what it has.
    tables.show(noise_report.table(rows))
    noise_report.plot(out / 'statistics.png', rows)
    print(f'results are in {out}')
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_gin_file('a variant; default: that of the run')
    parser.add_gin_bindings()
    parser.add_argument('--workdir', type=pathlib.Path, help='a run with checkpoints; default: a new agent')
    parser.add_checkpoints(newest=True)
    parser.add_argument('--num_inner_steps', type=integers, default=[5, 10], metavar='K,K')
    parser.add_argument(
        '--step_weights',
        nargs='+',
        type=_weights,
        default=[LastStep(), Uniform(), Geometric(0.9), Lambda(0.9), Lambda(0.7)],
        metavar='WEIGHTS',
        help='classes of components/meta_optimisers/step_weights.py with their number in brackets',
    )
    parser.add_argument('--num_unrolls', type=at_least(4), default=256, help='at least 256 for figures to be relied on')
    parser.add_argument(
        '--num_reference_unrolls', type=at_least(2), help='more unrolls for the reference; default: the same ones'
    )
    parser.add_argument('--num_start_steps', type=at_least(0), default=100, help='acted before each unroll')
    parser.add_argument(
        '--initial_meta_params',
        action='store_true',
        help='as the variant starts with; default: as the run has learned them',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the unrolls')
    parser.add_argument('--out', type=pathlib.Path, help='a folder; default: statistics/ in the workdir or here')
    return parser


def _weights(text: str) -> StepWeights:
    """The type of an option that is a weighting: its class and number, such as `Geometric(0.9)`."""
    match = re.fullmatch(r'(\w+)(?:\((-?[\d.]+)\))?', text)
    if not match or match[1] not in WEIGHTINGS:
        raise argparse.ArgumentTypeError(
            f'{text}: choose from {", ".join(WEIGHTINGS)}, with a number as in Geometric(0.9)'
        )
    try:
        return WEIGHTINGS[match[1]](*([float(match[2])] if match[2] else []))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f'{text}: {error}') from error


def _frozen_agents(args: argparse.Namespace) -> Iterator[tuple[str, FrozenAgent]]:
    """The agents to measure, by their number of meta-updates."""
    if not args.workdir:
        yield '0', gradient_noise.freeze(_learner(args).state)
        return
    for run in restore_learners(args.workdir, args.checkpoints):
        yield str(run.checkpoint), gradient_noise.freeze(run.learner.state)


def _learner(args: argparse.Namespace) -> Learner:
    """A new one of the variant that is measured."""
    gin_config.load(configuration(args), args.gin_bindings)
    return gin_config.build(Experiment).make_learner()


def _draw(sampler: Sampler, agent: FrozenAgent, num_unrolls: int, seed: int, what: str) -> np.ndarray:
    track = functools.partial(rich.progress.track, description=what)
    return gradient_noise.draw(sampler, agent, num_unrolls, seed, track)


if __name__ == '__main__':
    sys.exit(main())
