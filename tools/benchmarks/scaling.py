"""What an environment step costs as inner steps, environments, seeds and lifetimes become more."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from tools.benchmarks.measure import Row, alternate, cpu_and_wall, row

VARIANTS = ('gin/catch/meta_discount.gin',)
SIZES = {
    'K': ('NUM_INNER_STEPS', (5, 20)),
    'B': ('NUM_ENVS', (256, 1_024)),
    'S': ('NUM_SEEDS', (4, 16)),
    'L': ('NUM_LIFETIMES', (4, 16)),
}
"""By axis: the macro, and what it is bound to, one at a time; seeds are one beside that."""
SECONDS = 0.3
"""That a sample should take, about."""


def scaling(rounds: int, gin_files: Sequence[str]) -> Iterator[Row]:
    """CPU microseconds of an environment step of training, against the variant as it is; a ratio above 1: cheaper.

    Beside them: mebibytes of temporary memory, and CPU time over time by the clock, the cores that were used.
    """
    for gin_file in gin_files or VARIANTS:
        base = _Size(gin_file)
        for axis, (macro, sizes) in SIZES.items():
            for size in sizes:
                larger = _Size(gin_file, f'{macro} = {size}')
                theirs, ours = (x.T for x in alternate([base, larger], rounds, cpu_and_wall))
                its, mine = 1e6 * theirs[0] / base.num_steps, 1e6 * ours[0] / larger.num_steps
                yield {
                    **row(f'{gin_file}: {axis} = {size}', 'as it is', 'CPU us/step', mine, its, its / mine),
                    'MiB': f'{larger.mebibytes:.4g}',
                    'cores': f'{np.median(ours[0] / ours[1]):.2f}',
                }


class _Size:
    """Training of a variant of some size; goes on at each call.

    Attributes:
      num_steps: environment steps of a call, all seeds together.
      mebibytes: of temporary memory.
    """

    def __init__(self, gin_file: str, *bindings: str):
        gin_config.load([gin_file], ['NUM_SEEDS = 1', *bindings])
        experiment = gin_config.build(Experiment)
        learner = Learner(experiment.agent, num_seeds=experiment.num_seeds)
        self._program: Any = learner.trace().lower().compile()
        self.mebibytes = self._program.memory_analysis().temp_size_in_bytes / 2**20
        self._state, self._values, self._length = learner.state, learner.replica_values, 1
        self()
        self._length = max(1, round(SECONDS / cpu_and_wall(self)[0]))
        self.num_steps = self._length * experiment.agent.steps_per_meta_step * experiment.num_seeds

    def __call__(self) -> None:
        self._state, *_ = jax.block_until_ready(self._program(self._state, self._length, self._values))
