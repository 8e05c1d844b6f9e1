"""Trains the agent that gin files describe.

    python tools/run.py --gin_file gin/catch/meta_discount.gin
    python tools/run.py --gin_file gin/catch/meta_discount.gin --gin_bindings 'NUM_SEEDS = 10' --workdir runs/ten_seeds
    python tools/run.py --workdir runs/ten_seeds
    python tools/run.py --gin_file gin/snake/self_tuning.gin --dry_run

Files are read in order, then bindings; the last value wins. An interrupted run resumes from its
newest checkpoint when the same is asked for in the same folder, or nothing but the folder is given; --extend lets it
become longer than was planned. A gin file can import and call any Python code: run one only if you would run a script
from the same source.

Exit status: 0 when training ended; 130 when it was stopped with Ctrl-C and 143 when it was terminated, with a
checkpoint; 2 when what was asked for cannot be done, and 3 when training has diverged, with one line that says why;
75 when another process that trained with this one was lost.
"""

import time

STARTED = time.monotonic()  # Before anything that takes time.

import argparse
import datetime
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents import processes
from agents.experiments import gin_config, run_folder
from agents.experiments.cost_estimate import estimate_cost
from agents.experiments.experiment import Experiment
from agents.experiments.launch import launch
from agents.placement import use_cpu_devices
from components.types import ConfigurationError
from tools.command_line import Parser, run_command
from tools.option_types import address, at_least, devices


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return processes.leave(run_command(_parser(), _run, arguments))


def _run(args: argparse.Namespace) -> int:
    if args.cpu_devices:
        use_cpu_devices(args.cpu_devices)
    if args.coordinator or args.num_processes is not None or args.process_id is not None:
        _connect(args)
    if not args.gin_file and not (args.workdir and run_folder.has_run(args.workdir)):
        raise ConfigurationError('give --gin_file, or the --workdir of a run to go on with')
    directory = args.workdir or _default_workdir(args.gin_file[-1])
    if processes.is_first():  # The others write nothing.
        directory = run_folder.check(directory)
    bindings = [*args.gin_bindings, *([] if args.seed is None else [f'SEED = {args.seed}']), *args.devices]
    files = args.gin_file or [directory / run_folder.CONFIG]
    if args.dry_run:
        gin_config.load(files, bindings)
        estimate_cost(gin_config.build(Experiment)).show()
        return 0
    return launch(files, bindings, directory, extend=args.extend, started=STARTED)


def _connect(args: argparse.Namespace) -> None:
    if args.dry_run:
        raise ConfigurationError('--dry_run is of one process: leave out --coordinator')
    if args.coordinator == 'auto':
        processes.connect(None, args.num_processes, args.process_id, args.patience)
        return
    given = args.coordinator, args.num_processes, args.process_id
    if None in given or args.process_id >= args.num_processes:
        raise ConfigurationError(
            '--coordinator takes --num_processes and a --process_id below it, got '
            f'{", ".join("none" if x is None else str(x) for x in given)}'
        )
    processes.connect(args.coordinator, args.num_processes, args.process_id, args.patience)


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_gin_file('read in order; default: that of the run')
    parser.add_gin_bindings("such as 'NUM_SEEDS = 10'; repeatable")
    parser.add_argument(
        '--workdir', type=pathlib.Path, help='a new folder, or that of a run to go on with; default: new, under runs/'
    )
    parser.add_argument('--extend', action='store_true', help='let TOTAL_ENV_STEPS of a run become larger')
    parser.add_argument(
        '--dry_run', action='store_true', help='build, compile and take a few steps; print what training would take'
    )
    parser.add_argument('--seed', type=int, help='short for the binding SEED')
    parser.add_argument(
        '--devices',
        type=devices,
        default=[],
        metavar='AXIS=N,AXIS=N',
        help='devices among which seeds, lifetimes and environments are divided; default: all, as far as they divide',
    )
    parser.add_argument('--cpu_devices', type=at_least(1), metavar='N', help='train on a CPU, as N devices')
    parser.add_argument(
        '--coordinator',
        type=address,
        metavar='HOST:PORT',
        help='address of process 0, of several that train together; auto on SLURM and TPUs',
    )
    parser.add_argument('--num_processes', type=at_least(1), metavar='N', help='how many train together')
    parser.add_argument('--process_id', type=at_least(0), metavar='I', help='number of this one, from 0')
    parser.add_argument(
        '--patience',
        type=at_least(1),
        default=processes.PATIENCE,
        metavar='SECONDS',
        help='for which another process may be silent before it counts as lost',
    )
    return parser


def _default_workdir(gin_file: str) -> pathlib.Path:
    path = pathlib.Path(gin_file)
    return pathlib.Path('runs', path.parent.name, f'{path.stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}')


if __name__ == '__main__':
    sys.exit(main())
