"""How well agents that learn within an episode do it, with their weights frozen, beside hand-designed baseline
policies.

    python tools/meta_rl_report.py --workdir runs/independent
    python tools/meta_rl_report.py --workdir runs/uniform --workdir runs/easy --workdir runs/hard --out runs/matrix
    python tools/meta_rl_report.py --workdir runs/harlow --checkpoints all --num_episodes 1000
    python tools/meta_rl_report.py --workdir runs/mine --gin_file my_study.gin

Each seed of a run plays whole episodes of tasks, and learns nothing. What is measured is the study that is registered
for the class of the environment; agents/analysis/meta_rl/studies.py has these:

    bandits        by pull: regret, reward and the share of episodes that pull the best arm (or the one that tells
                   which it is)
    two-step task  probabilities of repeating a choice by reward x transition, their interaction and main effect
    Harlow task    share of correct choices by trial, with the objects of training and with as many others
    I-maze         steps to an episode's first goal, and from there to each later one

and a gin file that imports the module of another study registers that one: the run's own, or --gin_file.

Of several runs, every agent also plays in the others' environments, where actions and observations are alike. Policies
to compare with are given the same tasks. Prints a table of means over seeds, with the lowest and the highest; writes
report.csv (each seed of each checkpoint) and report.png to --out. Where a bandit's arms walk, each width of the walk is
also measured for itself, and models of behaviour by Rescorla and Wagner are fitted to blocks of episodes
(rescorla_wagner.csv): the share of blocks in which BIC prefers each of them, and the learning rates that they find.
Exit status: 0, or 2 when what was asked for cannot be done.
"""

import argparse
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.analysis import tables
from agents.analysis.meta_rl import report
from agents.analysis.meta_rl.behaviour_fits import summary_of_fits
from agents.experiments.restore import restore_learners
from components.types import ConfigurationError
from tools.command_line import Parser, run_command
from tools.option_types import at_least


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _report, arguments)


def _report(args: argparse.Namespace) -> int:
    names = [directory.name for directory in args.workdir]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f'--workdir: runs are told apart by the names of their folders, got {", ".join(names)}'
        )
    tasks = {directory.name: report.task_of(directory, args.gin_file or []) for directory in args.workdir}
    tests = report.tests_of(tasks)
    found = report.Report(tests, args.num_episodes, args.seed, args.greedy)
    found.add_baselines()
    for directory in args.workdir:
        for run in restore_learners(directory, args.checkpoints):
            found.add_agents(directory.name, run)
    out = args.out or args.workdir[0] / 'report'
    out.mkdir(parents=True, exist_ok=True)
    tables.write_csv(out / 'report.csv', found.rows)
    tables.show(*report.summary_tables(found.rows, tests))
    if found.fits:
        tables.write_csv(out / 'rescorla_wagner.csv', found.fits)
        tables.show(report.summary_table(found.fits, summary_of_fits))
    report.plot(out / 'report.png', found.rows, tests)
    print(f'results are in {out}')
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, action='append', required=True, help='a run; repeatable')
    parser.add_gin_file('read after the configuration of each run: imports the module of a study; repeatable')
    parser.add_checkpoints(newest=True)
    parser.add_argument('--num_episodes', type=at_least(2), default=10_000, metavar='N', help='of each policy and seed')
    parser.add_argument('--greedy', action='store_true', help='the most probable actions instead of drawn ones')
    parser.add_argument('--seed', type=int, default=0, help='of the episodes')
    parser.add_argument('--out', type=pathlib.Path, help='folder for results; default: report/ in the first workdir')
    return parser


if __name__ == '__main__':
    sys.exit(main())
