"""Trains the agent that gin files describe.

    python tools/run.py --gin_file gin/catch/meta_discount.gin
    python tools/run.py --gin_file gin/catch/meta_discount.gin --gin_bindings 'NUM_SEEDS = 10' --workdir runs/ten_seeds

Files are read in order, then bindings; the last value wins. A gin file can import and call any Python code: run one
only if you would run a script from the same source. Exit status: 0 when training ended, 130 when it was stopped with
Ctrl-C, 2 when what was asked for cannot be done, with one line that says why.
"""

import argparse
import datetime
import os
import pathlib
import signal
import sys

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

from agents import configuration
from agents.experiment import Experiment
from agents.progress import ProgressDisplay
from components.types import CompositionError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    args = _parse(arguments)
    bindings = [*args.gin_bindings, *([] if args.seed is None else [f'SEED = {args.seed}'])]
    try:
        workdir = _check_workdir(args.workdir or _default_workdir(args.gin_file[-1]))
        configuration.load(args.gin_file, bindings)
        experiment = configuration.build(Experiment)
        for name in configuration.bindings_without_effect(args.gin_file, bindings):
            print(f'note: nothing uses {name}', file=sys.stderr)
        workdir.mkdir(parents=True, exist_ok=True)
        _write_configuration(workdir)
        stop = _StopOnInterrupt()
        experiment.run(workdir, ProgressDisplay(experiment.num_meta_steps), stop)
        _write_configuration(workdir)
    except (configuration.ConfigurationError, CompositionError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{"stopped; results so far" if stop() else "results"} are in {workdir}')
    return 130 if stop() else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Trains the agent that gin files describe.')
    parser.add_argument('--gin_file', action='append', required=True, metavar='FILE', help='read in order; repeatable')
    parser.add_argument(
        '--gin_bindings', action='append', default=[], metavar='LINE', help="such as 'NUM_SEEDS = 10'; repeatable"
    )
    parser.add_argument('--workdir', type=pathlib.Path, help='a new or empty folder; default: a new one under runs/')
    parser.add_argument('--seed', type=int, help='short for the binding SEED')
    return parser.parse_args(arguments)


def _default_workdir(gin_file: str) -> pathlib.Path:
    path = pathlib.Path(gin_file)
    return pathlib.Path('runs', path.parent.name, f'{path.stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}')


def _check_workdir(workdir: pathlib.Path) -> pathlib.Path:
    """The folder's absolute path; nothing is written yet, so that a mistake elsewhere leaves no trace.

    Raises:
      ConfigurationError: if it holds anything, or cannot be written.
    """
    workdir = workdir.absolute()
    existing = next(path for path in (workdir, *workdir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise configuration.ConfigurationError(f'cannot write to {existing}; choose another --workdir')
    if existing == workdir and any(workdir.iterdir()):
        raise configuration.ConfigurationError(
            f'{workdir} is not empty: it holds another run or other files; choose another --workdir'
        )
    return workdir


def _write_configuration(workdir: pathlib.Path) -> None:
    """What was asked for, and what has been used of it so far, defaults included."""
    (workdir / 'config.gin').write_text(configuration.config_str())
    (workdir / 'operative_config.gin').write_text(configuration.operative_config_str())


class _StopOnInterrupt:
    """True once Ctrl-C was pressed; a second time interrupts at once."""

    def __init__(self):
        self._stopped = False
        signal.signal(signal.SIGINT, self._stop)

    def __call__(self) -> bool:
        return self._stopped

    def _stop(self, signum, frame) -> None:
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print('stopping after this log period; Ctrl-C again to stop at once', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
