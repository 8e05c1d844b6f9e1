"""Measures what composition, the form of the convolution and meta-gradients cost.

    python tools/benchmark.py [--rounds 15] [--only composition] [--out docs/results/benchmark.csv]

Both sides of a comparison alternate in one process, and what is reported is the median of each and of their ratios:
absolute times of a shared machine say little. `composition` trains the actor-critic of gin/snake/actor_critic.gin with
the learner and with a loop written for that one agent, `recurrent` does so with the LSTM of gin/bandits/independent.gin
and 1,024 environments. `convolution` takes the gradient of the first three inner updates' loss, in a
compiled loop, through `hk.Conv2D` and through the project's torso. `meta_step` is a meta-gradient through 10 updates of
an MLP 256x256 on 64 environments by 20 steps of Catch, in each way of differentiating (some in groups of environments),
against the same 10 updates without one. `memory` is what the compiled program of that agent needs beside its state for
20 updates, against reverse mode, and how much each further update adds, in units of weights, optimiser state and one
trajectory. `extras` is a whole run of gin/catch/meta_discount.gin with its logs, evaluations and checkpoints against
the time in it that was spent training. `start` is the time from the command to the first update of four variants, by
the clock and of CPU, with an empty cache of compiled programs and again. `learned_return` is a meta-step of
gin/catch/frodo.gin against one by hand, and against the plain updates in it. `atari` acts on 64 emulators without a
network, in the compiled program and by ale-py and EnvPool from Python, in environment steps per second of the time that
all cores spend on it.
"""

import argparse
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import jax

from agents.analysis import tables
from agents.experiments.launch import notify
from tools.benchmarks.atari import atari
from tools.benchmarks.composition import composition, convolution, recurrent
from tools.benchmarks.meta_gradients import learned_return, memory, meta_step
from tools.benchmarks.runs import extras, start
from tools.command_line import Parser, run_command
from tools.option_types import at_least

BENCHMARKS = {
    benchmark.__name__: benchmark
    for benchmark in (composition, recurrent, convolution, meta_step, memory, extras, start, learned_return, atari)
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _measure, arguments)


def _measure(args: argparse.Namespace) -> int:
    rows: list[tables.Row] = []
    for i, name in enumerate(args.only, 1):
        notify(f'{name}, {i} of {len(args.only)}: compiling, then {args.rounds} rounds')
        for row in BENCHMARKS[name](args.rounds):
            rows.append({**row, 'device': jax.devices()[0].device_kind})
            print(', '.join(f'{name} {value}' for name, value in row.items()), flush=True)
    if args.out:
        tables.write_csv(args.out, rows)
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--rounds', type=at_least(1), default=15, help='samples of each side')
    parser.add_argument('--only', nargs='+', choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument('--out', type=pathlib.Path, help='CSV file to write the table to')
    return parser


if __name__ == '__main__':
    sys.exit(main())
