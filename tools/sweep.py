"""Trains the variants of a sweep, each with every combination of a grid of values.

    python tools/sweep.py --gin_file gin/ablations/smoke.gin --workdir runs/smoke
    python tools/sweep.py --gin_file gin/catch/meta_discount.gin --vary 'optimiser.learning_rate=1e-3,5e-4' \
        --vary 'NUM_INNER_STEPS=1,3' --seeds 5 --workdir runs/grid
    python tools/sweep.py --variant gin/catch/actor_critic.gin --variant tuned=gin/catch/self_tuning.gin --seeds 5
    python tools/sweep.py --workdir runs/grid

Each run is an ordinary run in a folder below --workdir, started by tools/run.py. A sweep that was interrupted goes on
with the same command, or with nothing but its folder: complete runs are skipped, others resume. One that was killed is
retried; one that has failed is reported, and stops no other.

Exit status: 0 when all runs are complete, 1 when some have failed; 130 when it was stopped with Ctrl-C and 143 when it
was terminated, with checkpoints; 2 when what was asked for cannot be done.
"""

import argparse
import datetime
import pathlib
import sys

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.experiments import executors, run_folder, sweep_folder, sweeps
from agents.experiments.launch import StopOnSignal, notify
from agents.experiments.outputs import say
from agents.experiments.ray_executor import RayExecutor
from agents.experiments.sweep_scheduler import State, SweepScheduler
from agents.experiments.sweep_table import SweepTable
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
    return run_command(_parser(), _sweep, arguments)


def _sweep(args: argparse.Namespace) -> int:
    workdir = run_folder.check_writable(args.workdir or _default_workdir(args))
    request = sweep_folder.read(workdir)
    if args.gin_file or args.variant:
        request = _request(args, request, workdir)
    elif args.vary or args.zip or args.seeds or args.gin_bindings:
        raise ConfigurationError('--vary, --zip, --seeds and --gin_bindings need --gin_file or --variant')
    if request is None:
        raise ConfigurationError('give --gin_file or --variant, or the --workdir of a sweep to go on with')
    if args.dry_run:
        for run in request.runs:
            say(f'{run.name}: {", ".join(run.gin_files)}; {"; ".join(run.lines)}'.rstrip('; '), sys.stdout)
        return 0
    if args.retries is not None:
        request = request._replace(retries=args.retries)
    executor = _executor(args)
    with run_folder.locked(workdir, notify), StopOnSignal() as stop:
        sweep_folder.write(workdir, request)
        return _train(workdir, request, executor, stop)


def _executor(args: argparse.Namespace) -> executors.Executor:
    if args.executor == 'ray':
        return RayExecutor(args.address, args.jobs, args.cpus, args.gpus)
    if args.address or args.gpus:
        raise ConfigurationError(f'--{"address" if args.address else "gpus"} is for --executor ray')
    return executors.LocalExecutor(args.jobs, args.cpus)


def _request(
    args: argparse.Namespace, before: sweep_folder.Request | None, workdir: pathlib.Path
) -> sweep_folder.Request:
    sweep = sweeps.sweep_of_options(
        args.gin_file or [], args.variant, args.vary, args.gin_bindings,
        zipped=args.zip or None, num_seeds=args.seeds, retries=args.retries,
    )  # fmt: skip
    runs = sweeps.planned_runs(sweep)
    say(sweeps.describe(sweep, runs), sys.stdout)
    if before is None:
        return sweep_folder.Request(sweeps.check_runs(runs), sweep.retries)
    sweep_folder.check_same(before.runs, runs, workdir)
    return before


def _train(
    workdir: pathlib.Path, request: sweep_folder.Request, executor: executors.Executor, stop: StopOnSignal
) -> int:
    scheduler = SweepScheduler(workdir, request.runs, executor, retries=request.retries)
    with SweepTable(workdir, scheduler.progress) as table:
        scheduler.train(stop, table)
    for progress in scheduler.of(State.FAILED):
        say(f'failed: {progress.run.name}: {progress.message}', sys.stderr)
    is_complete = not scheduler.of(State.FAILED, State.STOPPED)
    counts = ', '.join(f'{n} {state}' for state in State if (n := len(scheduler.of(state))))
    say(f'{"" if is_complete else "partial: "}{counts}; results are in {workdir}', sys.stdout)
    if is_complete:
        return 0
    return 128 + stop.signal if stop.signal else 1


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_gin_file('of a sweep, or of one variant; repeatable, read in order')
    add = parser.add_argument
    add('--variant', action='append', default=[], metavar='[NAME=]FILE', help='one more variant; repeatable')
    add('--vary', action='append', default=[], metavar='KEY=V,V', help='values of the grid; repeatable')
    add('--zip', action='store_true', help='combine first values with first ones, and so on')
    add('--seeds', type=at_least(1), metavar='N', help="seeds of each run; default: the variant's")
    parser.add_gin_bindings('of every run; repeatable')
    add('--workdir', type=pathlib.Path, help='a new folder, or that of a sweep to go on with; default: under runs/')
    add('--retries', type=at_least(0), metavar='N', help='of a run that was killed; default: 1')
    add('--jobs', type=at_least(1), metavar='N', help='runs at once; default: as many as there are cores for')
    add('--cpus', type=at_least(1), default=1, metavar='N', help='cores of each run; default: 1')
    add('--executor', choices=('local', 'ray'), default='local', help='where runs are processes; default: local')
    add('--address', help='of a Ray cluster, host:port; default: RAY_ADDRESS, or a new cluster on this machine')
    add('--gpus', type=at_least(0), default=0, metavar='N', help='GPUs of each run on a Ray cluster; default: 0')
    add('--dry_run', action='store_true', help='build what each run describes, and print its bindings')
    return parser


def _default_workdir(args: argparse.Namespace) -> pathlib.Path:
    files = [*(args.gin_file or []), *args.variant]
    stem = pathlib.Path(files[-1]).stem if files else 'sweep'
    return pathlib.Path('runs', 'sweeps', f'{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}')


if __name__ == '__main__':
    sys.exit(main())
