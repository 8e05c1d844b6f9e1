"""Runs on disk: the agents of a checkpoint, and what they have learned."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

import jax

from agents.experiments import gin_config, run_folder
from agents.experiments.checkpoints import Checkpointer
from agents.experiments.experiment import CHECKPOINTS, Experiment
from agents.learner import Learner
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.types import MetaParams

BEST = 'best'
"""In place of a checkpoint's number: the one with the highest return."""


class RestoredRun(NamedTuple):
    """A run as it was when it wrote a checkpoint.

    Attributes:
      experiment: as its configuration describes it.
      learner: with the checkpoint's state, all seeds and lifetimes.
      checkpoint: the checkpoint's number of meta-updates.
    """

    experiment: Experiment
    learner: Learner
    checkpoint: int


def restore_learner(directory: str | os.PathLike, checkpoint: int | str | None = None) -> RestoredRun:
    """Reads a checkpoint with the configuration of its run, which stays loaded.

    Args:
      directory: the run's folder; another process may be training there.
      checkpoint: its number of meta-updates, or `best`; None for the newest.

    Raises:
      ConfigurationError: if there is no such run or checkpoint.
      CheckpointError: if the checkpoint is damaged, or not of what the configuration says.
    """
    with contextlib.closing(restore_learners(directory, [checkpoint])) as restored:
        return next(restored)


def restore_learners(
    directory: str | os.PathLike, checkpoints: Sequence[int | str | None] | None = None
) -> Generator[RestoredRun, None, None]:
    """Reads checkpoints one after the other into one learner, so that what is compiled for one of them serves all.

    Args:
      directory: as for `restore_learner`.
      checkpoints: each as for `restore_learner`; None for all that there are, from the oldest.

    Yields:
      The run as it was at each of them, until the next is asked for.

    Raises:
      ConfigurationError: if there is no such run, or one of the checkpoints is not there; before any is read.
      CheckpointError: if the checkpoint that is next is damaged, or not of what the configuration says.
    """
    with _checkpoints(directory) as checkpointer:
        if checkpoints is None:
            numbers = checkpointer.steps()
        else:
            numbers = [checkpointer.find(_number(checkpointer, checkpoint)) for checkpoint in checkpoints]
        gin_config.load([pathlib.Path(directory) / run_folder.CONFIG])
        experiment = gin_config.build(Experiment)
        learner = experiment.make_learner()
        for number in numbers:
            restored = checkpointer.restore(learner.save(), number)
            learner.restore(restored.state)
            yield RestoredRun(experiment, learner, restored.step)


def find_checkpoint(directory: str | os.PathLike, checkpoint: int | str | None = None) -> int:
    """Number of a checkpoint, as `restore_learner` would take it.

    Raises:
      ConfigurationError: if there is none.
    """
    with _checkpoints(directory) as checkpointer:
        return checkpointer.find(_number(checkpointer, checkpoint))


def in_environment(
    directory: pathlib.Path, environment: str | None, bindings: Sequence[str]
) -> tuple[list[str | pathlib.Path], list[str]]:
    """The gin files and bindings that describe a run's experiment in another environment.

    Args:
      directory: the run's folder.
      environment: a gin file, which is read after the run's configuration, or a value for `agent.Agent.environment`
        such as `@batch.Batch()`; None for the run's own.
      bindings: read last.
    """
    files: list[str | pathlib.Path] = [directory / run_folder.CONFIG]
    if environment and environment.startswith('@'):
        return files, [f'agent.Agent.environment = {environment}', *bindings]
    return files + ([environment] if environment else []), list(bindings)


@dataclasses.dataclass(frozen=True)
class LearnedMetaParams:
    """Reads the unconstrained meta-parameters that a seed of a run had learned, when it is called.

    Args:
      directory: the run's folder.
      checkpoint: its number of meta-updates.
      seed: which of the run's seeds, counted from 0.
      paths: of the meta-parameters, which have to be the run's.
    """

    directory: str
    checkpoint: int
    seed: int
    paths: Collection[str]

    def __call__(self) -> MetaParams:
        """Reads the checkpoint.

        Raises:
          ConfigurationError: if there is no such run, checkpoint or seed, or the paths differ.
          CheckpointError: if the checkpoint is damaged.
        """
        with _checkpoints(self.directory) as checkpointer:
            meta_params = checkpointer.read(self.checkpoint)['state']['meta_params']
        if set(meta_params) != set(self.paths) or not meta_params:
            learned, asked = (', '.join(sorted(paths)) or 'none' for paths in (meta_params, self.paths))
            raise gin_config.ConfigurationError(
                f'{self.directory} has learned the meta-parameters {learned}; asked for are {asked}'
            )
        num_seeds = len(jax.tree.leaves(meta_params)[0])
        if not 0 <= self.seed < num_seeds:
            raise gin_config.ConfigurationError(
                f'{self.directory} has {num_seeds} seeds, counted from 0; there is no seed {self.seed}'
            )
        return jax.tree.map(lambda x: x[self.seed], meta_params)


def learned_meta_parameters(
    entries: MetaParameterSet, directory: str, checkpoint: int, seed: int = 0
) -> MetaParameterSet:
    """Meta-parameters that start from what a seed of a run had learned; the checkpoint is read when a run starts.

    Args:
      entries: the same paths as in the run.
      directory: as for `LearnedMetaParams`.
      checkpoint: likewise.
      seed: likewise.
    """
    learned = LearnedMetaParams(directory, checkpoint, seed, tuple(entries.parameters))
    return dataclasses.replace(entries, learned=learned)


@contextlib.contextmanager
def _checkpoints(directory: str | os.PathLike) -> Iterator[Checkpointer]:
    path = pathlib.Path(directory) / CHECKPOINTS
    if not path.is_dir():
        raise gin_config.ConfigurationError(f'there are no checkpoints in {directory}')
    with contextlib.closing(Checkpointer(path, read_only=True)) as checkpointer:
        try:
            yield checkpointer
        except FileNotFoundError as error:
            raise gin_config.ConfigurationError(str(error)) from error


def _number(checkpointer: Checkpointer, checkpoint: int | str | None) -> int | None:
    if checkpoint != BEST:
        return None if checkpoint is None else int(checkpoint)
    best = checkpointer.best()
    if best is None:
        raise gin_config.ConfigurationError('no checkpoint of this run has a return to be the best by; give a number')
    return best
