"""Checks the meta-gradient of a variant against finite differences, in double precision on a shrunk copy.

    python tools/check_meta_gradient.py --gin_file gin/snake/meta_discount_outer_critic.gin
    python tools/check_meta_gradient.py --gin_file my_variant.gin --gin_bindings 'NUM_INNER_STEPS = 5'

Prints a line per meta-parameter. The copy has 3 environments and trajectories of 4 steps unless bindings say otherwise.
Exit status: 0 if all agree, 1 if one does not or is exactly zero, 2 when what was asked for cannot be done.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.analysis import tables
from agents.analysis.finite_differences import Comparison, compare_with_finite_differences, stops
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from tools.command_line import Parser, run_command

SHRUNK = ['TOTAL_ENV_STEPS = 1_000_000', 'NUM_ENVS = 3', 'UNROLL_LENGTH = 4']


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _check, arguments)


def _check(args: argparse.Namespace) -> int:
    gin_config.load(args.gin_file, [*SHRUNK, *args.gin_bindings])
    agent = gin_config.build(Experiment).agent
    for path in stops(agent.update_rule):
        print(f'{path} = False for this check: finite differences see through what stops a gradient')
    comparisons = compare_with_finite_differences(Learner(agent))
    passed = {path: _passes(comparison, args.tolerance) for path, comparison in comparisons.items()}
    columns = 'meta-parameter', 'autodiff', 'finite difference', 'relative error', ''
    tables.show(tables.table(columns, _rows(comparisons, passed)))
    return 0 if all(passed.values()) else 1


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_gin_file(required=True)
    parser.add_gin_bindings()
    parser.add_argument('--tolerance', type=float, default=1e-4, help='of the relative error')
    return parser


def _passes(comparison: Comparison, tolerance: float) -> bool:
    return comparison.autodiff != 0 and comparison.relative_error < tolerance


def _rows(comparisons: dict[str, Comparison], passed: dict[str, bool]) -> Iterator[list[str]]:
    for path, comparison in comparisons.items():
        numbers = comparison.autodiff, comparison.finite_difference, comparison.relative_error
        yield [path, *(f'{x:.6g}' for x in numbers), 'pass' if passed[path] else 'fail']


if __name__ == '__main__':
    sys.exit(main())
