"""Stores the rows and weights of a few meta-steps of every variant, or compares them with stored ones.

    python tests/same_numbers.py store FOLDER --precision 64
    python tests/same_numbers.py compare FOLDER --precision 64

Each variant under gin/ is built at a tiny size and trained for five meta-steps, in double (64) or single (32)
precision. `store` writes a file for each into FOLDER; `compare`, on the same machine after a change of the code, prints
the greatest difference of each, relative to the norm of the array. Exit status: 0, or 1 if a difference is above
--tolerance (1e-12 in double, 1e-5 in single precision), a name is missing, or a variant cannot be built.
"""

import argparse
import pathlib
import sys

sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import jax
import numpy as np

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner

NUM_META_STEPS = 5
TOLERANCES = {64: 1e-12, 32: 1e-5}
TINY = ('TOTAL_ENV_STEPS = 10_000', 'NUM_ENVS = 3', 'UNROLL_LENGTH = 4', 'NUM_SEEDS = 1')
CLOCKS = ('seconds', 'per_second', 'time')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('store', 'compare'))
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--precision', type=int, choices=TOLERANCES, default=64)
    parser.add_argument('--tolerance', type=float)
    parser.add_argument('--match', default='', help='only files whose paths hold this')
    args = parser.parse_args(arguments)
    jax.config.update('jax_enable_x64', args.precision == 64)
    jax.config.update('jax_disable_most_optimizations', True)
    args.folder.mkdir(parents=True, exist_ok=True)
    tolerance = args.tolerance if args.tolerance is not None else TOLERANCES[args.precision]
    failed = 0
    files = (str(path.relative_to(gin_config.ROOT)) for path in gin_config.ROOT.glob('gin/*/*.gin'))
    for file in sorted(
        file for file in files if not file.startswith(('gin/base/', 'gin/ablations/')) and args.match in file
    ):
        path = args.folder / f'{file.replace("/", "_")}.{args.precision}.npz'
        if args.what == 'store':
            if not path.exists():
                np.savez_compressed(path, **numbers(file))
                print('stored', file, flush=True)
            continue
        problem = compare(dict(np.load(path)), numbers(file), tolerance) if path.exists() else 'FAILED: none is stored'
        failed += problem.startswith('FAILED')
        print(file, problem, flush=True)
    return 1 if failed else 0


def numbers(file: str) -> dict[str, np.ndarray]:
    """Rows and final weights of a variant, by name."""
    # A reward has to come within a trajectory this short, for weights of rewards to have a gradient.
    undelayed = ['wrappers.DelayedReward.delay = 2'] if 'intrinsic_reward' in file else []
    small = ['SIZE = 36'] if 'atari' in file else []
    gin_config.load([file], [*TINY, *undelayed, *small])
    rows: list[dict] = []
    learner = Learner(gin_config.build(Experiment).agent, logger=_Rows(rows))
    for _ in range(NUM_META_STEPS):
        learner.advance(1)
    learner.agent.environment.close(jax.device_get(learner.state.agents.actor_state.environment))
    found = {
        f'row {i}: {name}': np.asarray(value)
        for i, row in enumerate(rows)
        for name, value in row.items()
        if not any(clock in name for clock in CLOCKS)
    }
    for name, tree in {'weights': learner.state.agents.params, 'meta_params': dict(learner.state.meta_params)}.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[f'{name}{jax.tree_util.keystr(path)}'] = np.asarray(leaf)
    return found


def compare(stored: dict[str, np.ndarray], found: dict[str, np.ndarray], tolerance: float) -> str:
    """A line: the greatest difference, its name, and what is on one side only."""
    differences = {name: _difference(stored[name], found[name]) for name in stored.keys() & found.keys()}
    name = max(differences, key=lambda name: differences[name])
    sides = {'gone': stored.keys() - found.keys(), 'new': found.keys() - stored.keys()}
    only = ''.join(f'; {side}: {", ".join(sorted(names))}' for side, names in sides.items() if names)
    status = 'FAILED' if differences[name] > tolerance or sides['gone'] else 'ok'
    where = f' in {name}' if differences[name] else ''
    return f'{status}: greatest difference {differences[name]:.1e}{where} of {len(differences)}{only}'


def _difference(stored: np.ndarray, found: np.ndarray) -> float:
    if stored.shape != found.shape:
        return np.inf
    equal = (stored == found) | (np.isnan(stored) & np.isnan(found))
    if equal.all():
        return 0.0
    scale = float(np.linalg.norm(np.nan_to_num(stored))) or 1.0
    return float(np.linalg.norm(np.where(equal, 0, found - stored))) / scale


class _Rows:
    """A logger that keeps its rows in a list."""

    def __init__(self, rows: list[dict]):
        self._rows = rows

    def write(self, row: dict) -> None:
        self._rows.append(row)

    def close(self) -> None:
        pass


if __name__ == '__main__':
    sys.exit(main())
