"""Checks the meta-gradient of a variant against finite differences, in double precision on a shrunk copy.

    python tools/check_meta_gradient.py --gin_file gin/snake/meta_discount_outer_critic.gin
    python tools/check_meta_gradient.py --gin_file my_variant.gin --gin_bindings 'NUM_INNER_STEPS = 5'

Prints a line per meta-parameter. The copy has 3 environments and trajectories of 4 steps unless bindings say otherwise.
Exit status: 0 if all agree, 1 if one does not or is exactly zero, 2 when what was asked for cannot be done.
"""

import argparse
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import rich.box
import rich.console
import rich.table

from agents.analysis.finite_differences import Comparison, compare_with_finite_differences, stops
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.launch import argument_parser, run_command
from agents.learner import Learner

SHRUNK = ['TOTAL_ENV_STEPS = 1_000_000', 'NUM_ENVS = 3', 'UNROLL_LENGTH = 4']


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    args = _parse(arguments)
    return run_command(lambda: _check(args), args.traceback)


def _check(args: argparse.Namespace) -> int:
    gin_config.load(args.gin_file, [*SHRUNK, *args.gin_bindings])
    agent = gin_config.build(Experiment).agent
    for path in stops(agent.update_rule):
        print(f'{path} = False for this check: finite differences see through what stops a gradient')
    comparisons = compare_with_finite_differences(Learner(agent))
    passed = {path: _passes(comparison, args.tolerance) for path, comparison in comparisons.items()}
    # Wider than any terminal: a path that is cut short would be of no use.
    rich.console.Console(width=1_000).print(_table(comparisons, passed))
    return 0 if all(passed.values()) else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument('--gin_file', action='append', required=True, metavar='FILE', help='read in order; repeatable')
    parser.add_argument('--gin_bindings', action='append', default=[], metavar='LINE', help='repeatable')
    parser.add_argument('--tolerance', type=float, default=1e-4, help='of the relative error')
    return parser.parse_args(arguments)


def _passes(comparison: Comparison, tolerance: float) -> bool:
    return comparison.autodiff != 0 and comparison.relative_error < tolerance


def _table(comparisons: dict[str, Comparison], passed: dict[str, bool]) -> rich.table.Table:
    table = rich.table.Table(
        'meta-parameter', 'autodiff', 'finite difference', 'relative error', '', box=rich.box.SIMPLE
    )
    for path, comparison in comparisons.items():
        numbers = [f'{x:.6g}' for x in (comparison.autodiff, comparison.finite_difference, comparison.relative_error)]
        table.add_row(path, *numbers, 'pass' if passed[path] else 'fail')
    return table


if __name__ == '__main__':
    sys.exit(main())
