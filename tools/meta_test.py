"""Trains new agents with the meta-parameters of a run's checkpoint, which stay as they are: a meta-test.

    python tools/meta_test.py --workdir runs/snake --gin_bindings 'TOTAL_ENV_STEPS = 10_000_000'
    python tools/meta_test.py --workdir runs/lpg --environment gin/base/environments/grid_worlds.gin --out runs/fixed

Agents learn from scratch as the run's did, or in an environment of any kind: the one of --environment, or the run's own
as --gin_bindings change it. The folder is a run, whose config.gin names the checkpoint: asked for again, or by
tools/run.py, it resumes. Exit statuses are those of tools/run.py.
"""

import argparse
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.experiments import gin_config, run_folder
from agents.experiments.experiment import Experiment
from agents.experiments.launch import launch
from agents.experiments.restore import find_checkpoint, in_environment, learned_meta_parameters
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.types import CompositionError
from tools.command_line import Parser, run_command
from tools.option_types import at_least


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _meta_test, arguments)


def _meta_test(args: argparse.Namespace) -> int:
    directory = run_folder.check(args.out or args.workdir / 'meta_test')
    source = {
        'directory': str(args.workdir.absolute()),
        'checkpoint': find_checkpoint(args.workdir, args.checkpoint),
        'seed': args.meta_parameters_of,
    }
    files, environment = in_environment(args.workdir, args.environment, args.gin_bindings)
    gin_config.load(files, environment)
    agent = gin_config.build(Experiment).agent
    if not agent.meta_parameters.parameters:
        raise CompositionError(f'{args.workdir} has learned no meta-parameters')
    _check(agent.meta_parameters, source)
    bindings = [
        *environment,
        'from agents.experiments import restore',
        'from components.meta_optimisers import base as meta_optimisers',
        'agent.Agent.meta_parameters = @restore.learned_meta_parameters()',
        'restore.learned_meta_parameters.entries = @meta_parameters.MetaParameterSet()',
        *(f'restore.learned_meta_parameters.{name} = {value!r}' for name, value in source.items()),
        'agent.Agent.meta_optimiser = @meta_optimisers.Fixed()',
        f'meta_optimisers.Fixed.num_inner_steps = {agent.meta_optimiser.num_updates}',
        *([] if args.seed is None else [f'SEED = {args.seed}']),
    ]
    return launch(files, bindings, directory)


def _check(entries: MetaParameterSet, source: dict) -> None:
    """Reads once before anything is written, so that a mistake leaves no trace; the run reads when it starts."""
    read = learned_meta_parameters(entries, **source).learned
    assert read is not None
    read()


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='a run with checkpoints')
    parser.add_checkpoint()
    parser.add_argument(
        '--meta_parameters_of',
        type=at_least(0),
        default=0,
        metavar='I',
        help="the run's seed, counted from 0, that learned them",
    )
    parser.add_environment()
    parser.add_argument('--seed', type=int, help="of the new agents; default: the run's")
    parser.add_argument(
        '--out',
        type=pathlib.Path,
        help='a new folder, or that of a meta-test to go on with; default: meta_test/ in the workdir',
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
