"""Measures how fast the learner is on this machine, where its time goes, and what each of its freedoms costs.

    python tools/benchmark.py --only loops --gin_file gin/catch/meta_discount.gin
    python tools/benchmark.py [--rounds 15] [--only split scaling] [--core 0] [--out docs/results/benchmark.csv]
    python tools/benchmark.py --against REV [--gin_file FILE]

The sides of a comparison alternate in one process, and what is reported is the median of each and of their ratios, with
its 95% bootstrap interval: absolute times of a shared machine say little. `--core` keeps all of it on one core.

`loops` trains agents with the learner and with a loop written by hand for each. `split` takes a meta-step apart, and
`scaling` makes it larger; these three are of the variants in `--gin_file`. `--against` compares meta-steps of this
checkout with those of another revision of the code, in processes of their own that take turns.

`convolution` takes the gradient of the first three inner updates' loss, in a compiled loop, through `hk.Conv2D` and
through the project's torso. `meta_step` is a meta-gradient through 10 updates of an MLP 256x256 on 64 environments by
20 steps of Catch, in each way of differentiating (some in groups of environments), against the same 10 updates without
one. `memory` is what the compiled program of that agent needs beside its state for 20 updates, against reverse mode,
and how much each further update adds, in units of weights, optimiser state and one trajectory. `extras` is a whole run
of gin/catch/meta_discount.gin with its logs, evaluations and checkpoints against the time in it that was spent
training. `start` is the time from the command to the first update of four variants, by the clock and of CPU, with an
empty cache of compiled programs and again. `learned_return` is a meta-step of gin/catch/frodo.gin against the plain
updates in it. `atari` acts on 64 emulators without a network, in the compiled program and by ale-py and EnvPool from
Python, in environment steps per second of the time that all cores spend on it.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Iterable

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import jax

from agents.analysis import tables
from agents.experiments.launch import notify
from components.types import ConfigurationError
from tools.benchmarks.atari import atari
from tools.benchmarks.convolution import convolution
from tools.benchmarks.loops import loops
from tools.benchmarks.measure import Row
from tools.benchmarks.meta_gradients import learned_return, memory, meta_step
from tools.benchmarks.revisions import revisions
from tools.benchmarks.runs import extras, start
from tools.benchmarks.scaling import scaling
from tools.benchmarks.split import split
from tools.command_line import Parser, run_command
from tools.option_types import at_least

OF_VARIANTS = {benchmark.__name__: benchmark for benchmark in (loops, split, scaling)}
OTHERS = {
    benchmark.__name__: benchmark
    for benchmark in (convolution, meta_step, memory, extras, start, learned_return, atari)
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
    if args.core is not None:
        _stay_on(args.core)
    rows: list[Row] = []
    names = ['against'] if args.against else args.only or [*OF_VARIANTS, *OTHERS]
    for i, name in enumerate(names, 1):
        notify(f'{name}, {i} of {len(names)}: compiling, then {args.rounds} rounds')
        for row in _rows(name, args):
            rows.append({**row, 'device': jax.devices()[0].device_kind})
            print(', '.join(f'{name} {value}' for name, value in row.items()), flush=True)
            if args.out:
                tables.write_csv(args.out, rows)
    return 0


def _rows(name: str, args: argparse.Namespace) -> Iterable[Row]:
    if args.against:
        return revisions(args.rounds, args.gin_file or (), args.against)
    if name in OF_VARIANTS:
        return OF_VARIANTS[name](args.rounds, args.gin_file or ())
    return OTHERS[name](args.rounds)


def _stay_on(core: int) -> None:
    """Keeps this process, and those that it starts, on one core; before JAX makes its threads."""
    if not hasattr(os, 'sched_setaffinity'):
        raise ConfigurationError('--core: this operating system does not let a process choose its core')
    allowed = sorted(os.sched_getaffinity(0))
    if core not in allowed:
        raise ConfigurationError(f'--core {core}: this process may use the cores {", ".join(map(str, allowed))}')
    os.sched_setaffinity(0, {core})


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--rounds', type=at_least(1), default=15, help='samples of each side')
    parser.add_argument('--only', nargs='+', choices=[*OF_VARIANTS, *OTHERS], metavar='NAME', help='benchmarks')
    parser.add_gin_file('a variant of loops, split, scaling or --against; repeatable; default: theirs')
    parser.add_argument('--against', metavar='REV', help='compares with this revision of the code instead')
    parser.add_argument('--core', type=at_least(0), metavar='N', help='stay on this core: on a shared machine')
    parser.add_argument('--out', type=pathlib.Path, help='CSV file to write the table to')
    return parser


if __name__ == '__main__':
    sys.exit(main())
