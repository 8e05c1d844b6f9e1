"""How well the values of the random walk that switches its reward can be tracked: by TD(lambda), at best, and by a run.

    python tools/random_walk_reference.py
    python tools/random_walk_reference.py --workdir runs/walk --periods 40

The first prints the mean squared error over the 5 states, averaged over time, of always predicting 0, of TD(lambda)
with the best step size and lambda of a grid, and of a predictor that knows the values and turns their sign when a
reward first contradicts it; and how TD(lambda) recovers after a switch. The second continues from the newest checkpoint
of a run whose agent has `monitors.StateValueError`, a meta-step at a time, and prints how it recovers. Both judge, in
every step, the values with which that step is taken: those that TD(lambda) has learned from all steps before, and a
run's agent from all trajectories before.
"""

import argparse
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import jax

from agents.analysis import random_walk_tracking, tables
from agents.experiments.restore import restore_learner
from tools.command_line import Parser, run_command
from tools.option_types import at_least


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _show, arguments)


def _show(args: argparse.Namespace) -> int:
    if args.workdir:
        run = restore_learner(args.workdir, args.checkpoint)
        recovery = random_walk_tracking.recovery(run.learner, args.periods)
        recoveries = {f'{args.workdir}, checkpoint {run.checkpoint}': recovery}
    else:
        recoveries = random_walk_tracking.references(jax.random.key(args.seed))
    tables.show(random_walk_tracking.table(recoveries))
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, help='of a run, whose recovery is shown instead')
    parser.add_checkpoint()
    parser.add_argument('--periods', type=at_least(1), default=40, help='between switches, that the run is watched for')
    parser.add_argument('--seed', type=int, default=0, help='of the walks of TD(lambda)')
    return parser


if __name__ == '__main__':
    sys.exit(main())
