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
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.analysis import objective_report, tables
from agents.analysis.learned_objectives import Inspector, learned_objectives
from agents.analysis.reference_returns import known_returns
from agents.experiments.restore import RestoredRun, restore_learners
from components.environments.base import check_can_be_copied
from tools.command_line import Parser, run_command
from tools.option_types import at_least


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _inspect, arguments)


def _inspect(args: argparse.Namespace) -> int:
    out = args.out or args.workdir / 'objective'
    inspectors: dict[str, Inspector] = {}
    findings: objective_report.Findings = {}
    for run in restore_learners(args.workdir, args.checkpoints):
        inspectors = inspectors or _inspectors(run, args)
        for path, inspector in inspectors.items():
            summary = objective_report.inspect_seeds(run, inspector, args.seed)
            findings.setdefault(path, {})[run.checkpoint] = summary
        known = known_returns(args.unroll_length or run.learner.agent.unroll_length)
        # After each checkpoint: an interrupted study keeps what it has.
        out.mkdir(parents=True, exist_ok=True)
        tables.write_csv(out / 'distances.csv', list(objective_report.distance_rows(findings, known)))
        tables.write_csv(out / 'sensitivity.csv', list(objective_report.sensitivity_rows(findings)))
    tables.show(objective_report.table(findings, known))
    objective_report.plot(out / 'objective.png', findings, known)
    print(f'results are in {out}')
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='a run with checkpoints')
    parser.add_checkpoints(newest=False)
    parser.add_argument(
        '--num_trajectories', type=at_least(1), default=1024, metavar='N', help='for each checkpoint and seed'
    )
    parser.add_argument(
        '--unroll_length', type=at_least(1), metavar='T', help="steps of a trajectory; default: the run's"
    )
    parser.add_argument('--seed', type=int, default=0, help='of acting')
    parser.add_argument('--out', type=pathlib.Path, help='folder for results; default: objective/ in the workdir')
    return parser


def _inspectors(run: RestoredRun, args: argparse.Namespace) -> dict[str, Inspector]:
    """One for each learned objective, by its path."""
    learner = run.learner
    check_can_be_copied(learner.agent.environment, 'the inspection of learned objectives')
    unroll_length = args.unroll_length or learner.agent.unroll_length
    return {
        path: Inspector(learner.inner_loop, path, unroll_length, args.num_trajectories)
        for path in learned_objectives(learner.agent)
    }


if __name__ == '__main__':
    sys.exit(main())
