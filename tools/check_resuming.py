"""Checks that a run that is killed again and again ends like one that was never interrupted.

    python tools/check_resuming.py --gin_file gin/catch/meta_discount.gin --gin_bindings 'TOTAL_ENV_STEPS = 20_000_000'

Trains once without interruption, and once killed (SIGKILL) at moments drawn at random and started again with the same
command; the run has to be long enough for all of them. Compares the tables of training and evaluation (columns of
clocks apart) and the arrays of the last checkpoint, bit by bit. Exit status: 0 if they are the same, 1 if not, 2 when
what was asked for cannot be done.
"""

import argparse
import csv
import pathlib
import random
import subprocess
import sys
import tempfile

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import jax
import numpy as np

from agents.experiments import gin_config
from agents.experiments.checkpoints import Checkpointer
from agents.experiments.experiment import CHECKPOINTS, Experiment
from tools.command_line import Parser, run_command
from tools.option_types import at_least

CLOCKS = ('wall_time', 'steps_per_second')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _check, arguments)


def _check(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        once, killed = pathlib.Path(folder, 'once'), pathlib.Path(folder, 'killed')
        if subprocess.run(_command(args, once), check=False).returncode:
            return 2
        moments = random.Random(args.seed)
        for i in range(args.kills):
            seconds = moments.uniform(0, args.longest)
            last = _kill_after(seconds, _command(args, killed))
            if last is None:
                print(f'error: the run ended before kill {i + 1} of {args.kills}; make it longer', file=sys.stderr)
                return 2
            print(f'kill {i + 1} of {args.kills}, {seconds:.1f} s after a start, at: {last[:60]}', flush=True)
        if subprocess.run(_command(args, killed), check=False).returncode:
            return 1
        differing = [name for name in ('train.csv', 'eval.csv') if _rows(once / name) != _rows(killed / name)]
        differing += ['arrays of the last checkpoint'] * (_arrays(args, once) != _arrays(args, killed))
    print(f'differing: {", ".join(differing)}' if differing else f'the same after {args.kills} kills')
    return 1 if differing else 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--gin_file', required=True, metavar='FILE', help='of the run')
    parser.add_gin_bindings()
    parser.add_argument('--kills', type=at_least(1), default=20, help='how often; default: 20')
    parser.add_argument('--longest', type=float, default=15, help='seconds from a start to the next kill, at most')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    return parser


def _command(args: argparse.Namespace, workdir: pathlib.Path) -> list[str]:
    tool = str(pathlib.Path(__file__).with_name('run.py'))
    bindings = [part for binding in args.gin_bindings for part in ('--gin_bindings', binding)]
    return [sys.executable, tool, '--gin_file', args.gin_file, '--workdir', str(workdir), *bindings]


def _kill_after(seconds: float, command: list[str]) -> str | None:
    """Starts a command and kills it; returns the last line that it printed, None if it had ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return (process.communicate()[0].splitlines() or ['starting'])[-1]
    return None


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return [{name: x for name, x in row.items() if name not in CLOCKS} for row in csv.DictReader(file, strict=True)]


def _arrays(args: argparse.Namespace, workdir: pathlib.Path) -> list[bytes]:
    gin_config.load([args.gin_file], args.gin_bindings)
    experiment = gin_config.build(Experiment)
    learner = experiment.make_learner()
    checkpointer = Checkpointer(workdir / CHECKPOINTS)
    state = checkpointer.restore(learner.save()).state
    checkpointer.close()

    def data(x):
        is_key = isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()

    return [data(x) for x in jax.tree.leaves(state)]


if __name__ == '__main__':
    sys.exit(main())
