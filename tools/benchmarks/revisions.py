"""Meta-steps of this checkout against those of another revision of the code."""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from components.types import ConfigurationError
from tools.benchmarks.measure import Row, alternate, row

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = (
    'gin/snake/meta_discount_outer_critic.gin',
    'gin/snake/actor_critic.gin',
    'gin/catch/meta_discount.gin',
    'gin/catch/frodo.gin',
)


def revisions(rounds: int, gin_files: Sequence[str], revision: str) -> Iterator[Row]:
    """Milliseconds of a meta-step here and there, of CPU time and by the clock; a ratio above 1: this one is faster.

    Raises:
      ConfigurationError: if there is no such revision, or it cannot train a variant.
    """
    with _checked_out(revision) as folder:
        for gin_file in gin_files or VARIANTS:
            with _Worker(ROOT, gin_file) as ours, _Worker(folder, gin_file, ours.num_meta_steps) as theirs:
                seconds = alternate([ours.step, theirs.step], rounds, lambda side: side())
                times = [1e3 / ours.num_meta_steps * x.T for x in seconds]
                for unit, mine, its in zip(('CPU ms', 'ms'), *times, strict=True):
                    yield row(gin_file, revision, unit, mine, its, its / mine)


@contextlib.contextmanager
def _checked_out(revision: str) -> Iterator[pathlib.Path]:
    """A folder with that revision in it, while it is needed."""
    git = ['git', '-C', str(ROOT)]
    named = subprocess.run([*git, 'rev-parse', '--verify', '--quiet', f'{revision}^{{commit}}'], capture_output=True)
    if named.returncode:
        raise ConfigurationError(
            f'--against {revision}: this checkout has no such revision; `git log --oneline` lists some'
        )
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / 'checkout'
        subprocess.run([*git, 'worktree', 'add', '--quiet', '--detach', folder, revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, 'worktree', 'remove', '--force', folder], check=True)


class _Worker:
    """A process that takes meta-steps with the code in a folder; a context that ends it.

    Args:
      folder: of the code.
      gin_file: of the variant, from there.
      num_meta_steps: in a call; 0 for as many as take half a second.
    """

    def __init__(self, folder: pathlib.Path, gin_file: str, num_meta_steps: int = 0):
        script = pathlib.Path(__file__).with_name('worker.py')
        command = [sys.executable, '-P', str(script), str(folder), gin_file, str(num_meta_steps)]
        self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._about = f'{gin_file} in {folder}'
        (self.num_meta_steps,) = map(int, self._read())

    def __enter__(self) -> '_Worker':
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def step(self) -> np.ndarray:
        """Takes some meta-steps: seconds of CPU time, and by the clock."""
        assert self._process.stdin
        self._process.stdin.write('\n')
        self._process.stdin.flush()
        return np.array(self._read(), float)

    def _read(self) -> list[str]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ConfigurationError(f'--against: {self._about} cannot be trained; what went wrong stands above')
        return line.split()
