"""The experiment: one loop that trains, logs, evaluates and keeps checkpoints."""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import acme
import numpy as np
from acme.utils import counting
from acme.utils import loggers as acme_loggers
from jaxtyping import PyTree

from agents import processes, replicas
from agents.agent import Agent
from agents.evaluator import Evaluator
from agents.experiments.checkpoints import Checkpoint, Checkpointer
from agents.experiments.compilation_cache import DEFAULT, use_compilation_cache
from agents.experiments.loggers import Row, Run, seed_means
from agents.learner import Learner
from agents.placement import ONE_DEVICE, Placement
from components.component import MAX_INT, Interval, PositiveInt, check_divides, component
from components.environments.base import BatchedEnvironment, check_fits
from components.types import CompositionError, EnvironmentFailedError

LoggerFactory = Callable[[str, Run], acme_loggers.Logger]

CHECKPOINTS = 'checkpoints'
"""Folder in a run's folder."""


@component
class Experiment:
    """Trains an agent for a number of environment steps.

    repeat:
        learner.advance(...)                  # one compiled call, one row of training
        now and then: evaluate, one row of evaluation; save a checkpoint

    All periods are environment steps of one seed, training acting alone; they are rounded to whole meta-steps, those of
    evaluation and checkpoints to whole log periods.

    Args:
      agent: what to train.
      total_env_steps: length of training; rounded down to whole meta-steps.
      num_seeds: independent replicas, trained as one batch, `S` if nothing else varies.
      seed: of the first replica; the others have the seeds that follow.
      log_every: steps between rows.
      evaluate_every: steps between evaluations; 0 for none.
      evaluation_environment: what evaluations play one episode of each policy in, for each of its batch: of the same
        observations and actions as the agent's environment, which it is if None. An evaluation takes as long as its
        longest episode: where episodes are long and steps expensive, as on Atari, a small batch of its own.
      checkpoint_every: steps between checkpoints; 0 for none, and no going on after an interruption. The end of
        training is one too, and where it was stopped.
      checkpoints_kept: how many of the newest checkpoints stay, beside the best by its return in the last evaluation,
        or in the last row of training where nothing is evaluated.
      checkpoints_cut_episodes: whether training, where environments live outside of checkpoints, starts new episodes
        after each that is due, as a run that resumes from it has to. The two then go on alike, bit by bit, if the
        environments repeat with their seeds. Episodes under way are dropped, and count in no return.
      max_episode_length: steps after which an episode of evaluation is cut off and scored as is; `eval.csv` says how
        many were.
      loggers: each called with a label (`train`, `eval`) and the `Run`.
      stop_when_not_finite: whether to stop when a loss or a weight is infinite or not a number.
      replicas: numbers that differ between agents of this one program: by path from the update rule, such as
        `optimiser.learning_rate`, or of the meta-optimiser, such as `meta_optimiser.optimiser.learning_rate`, a value
        for each variant, as many for each path. Where a path is a meta-parameter's, it is what that starts from. Every
        variant has `num_seeds` replicas, with the same seeds; there are `S` in all.
      replicas_at_once: how many replicas are computed side by side on a device at most; the next ones take their
        meta-steps of a row after them, which needs less memory, and less time where side by side is no faster, as on a
        CPU. It divides `S`. None for all.
      placement: among which devices training divides seeds, lifetimes and environments; by default among all that
        there are, as far as these can be divided. A run may resume on others.
      compilation_cache: folder where compiled programs are kept for the next start, None for none.

    Raises:
      CompositionError: if training would be shorter than one meta-step, a number is out of range, replicas cannot
        differ in this way, or the evaluations' environment is not like the agent's.
    """

    agent: Agent
    total_env_steps: Annotated[int, Interval(1, 2**63 - 1)]
    num_seeds: PositiveInt = 1
    seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    log_every: Annotated[int, Interval(1, 2**63 - 1)] = 10_000
    evaluate_every: Annotated[int, Interval(0, 2**63 - 1)] = 0
    evaluation_environment: BatchedEnvironment | None = None
    checkpoint_every: Annotated[int, Interval(0, 2**63 - 1)] = 0
    checkpoints_kept: PositiveInt = 3
    checkpoints_cut_episodes: bool = True
    max_episode_length: PositiveInt = 10_000
    loggers: Sequence[LoggerFactory] = ()
    stop_when_not_finite: bool = True
    replicas: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    replicas_at_once: PositiveInt | None = None
    placement: Placement = Placement()
    compilation_cache: str | None = DEFAULT

    def __post_init__(self) -> None:
        if self.num_meta_steps < 1:
            raise CompositionError(
                f'total_env_steps is {self.total_env_steps}, less than one meta-step of '
                f'{self.agent.steps_per_meta_step} (inner steps x unroll length x environments x lifetimes)'
            )

        replicas.check(self.replicas, self.agent)
        check_divides(self.replicas_at_once or 1, self.num_replicas, 'Experiment.replicas_at_once', 'replicas')
        self.placement.check(self.agent, self.num_replicas)
        if self.evaluation_environment is not None:
            check_fits(self.evaluation_environment.spec(), self.agent.environment.spec())
        if min(self.meta_steps_in(self.log_every), self.num_meta_steps) > MAX_INT:
            raise CompositionError(
                f'Experiment.log_every is {self.log_every:,} steps, more than {MAX_INT:,} meta-steps: '
                'write rows more often'
            )
        if self.seed > 2**32 - self.num_seeds:
            raise CompositionError(
                f'Experiment.seed must be in [0, {2**32 - self.num_seeds:,}] for {self.num_seeds} seeds, '
                f'got {self.seed}'
            )

    @property
    def num_meta_steps(self) -> int:
        """Meta-steps of the whole training."""
        return self.total_env_steps // self.agent.steps_per_meta_step

    @property
    def num_replicas(self) -> int:
        """`S`: seeds of all variants."""
        return self.num_seeds * replicas.num_variants(self.replicas)

    def make_learner(
        self,
        *,
        counter: counting.Counter | None = None,
        logger: acme_loggers.Logger | None = None,
        placement: Placement = ONE_DEVICE,
    ) -> Learner:
        """A new learner of the agent, with the experiment's seeds.

        Args:
          counter: as for `Learner`.
          logger: as for `Learner`; None for none.
          placement: as for `Learner`; what only looks at a run needs one device, wherever it was trained.
        """
        return Learner(
            self.agent,
            num_seeds=self.num_seeds,
            seed=self.seed,
            counter=counter,
            logger=logger,
            check_finite=self.stop_when_not_finite,
            varied=self.replicas,
            replicas_at_once=self.replicas_at_once,
            placement=placement,
        )

    def run(
        self,
        workdir: str | os.PathLike,
        *,
        config: str = '',
        started: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        notify: Callable[[str], None] = print,
    ) -> int:
        """Trains, and writes rows and checkpoints to a folder; resumes from the newest checkpoint in it.

        Args:
          workdir: the folder, which exists; new, or of a run with the same components.
          config: text of the gin file, for the loggers.
          started: when the command was given, in seconds of `time.monotonic`, for the loggers.
          should_stop: asked after every log period; True ends training there, with a checkpoint.
          notify: called with a line for the user.

        Returns:
          Meta-steps that have been taken, `num_meta_steps` unless it was stopped.

        Raises:
          CompositionError: if a meta-parameter turns out to have no effect, or learned ones do not fit.
          DivergedError: if a loss or a weight is not finite; the checkpoints are from before.
          CheckpointError: if a checkpoint cannot be written, or the newest cannot be used.
          EnvironmentFailedError: if an environment on the host has failed; there is a checkpoint of the last row.
        """
        use_compilation_cache(self.compilation_cache)
        run = Run(
            pathlib.Path(workdir), config, self.num_meta_steps, started, self.seed, self.num_seeds, self.num_replicas
        )
        with contextlib.closing(_Training(self, run)) as training:
            training.compile()
            training.resume(notify)
            stopping = False
            while training.num_meta_steps < self.num_meta_steps and not stopping:
                stopping = training.take_log_period(should_stop)
            return training.num_meta_steps

    def meta_steps_in(self, env_steps: int) -> int:
        """A period of environment steps as whole meta-steps, at least one."""
        return max(1, env_steps // self.agent.steps_per_meta_step)


class _Training:
    """An experiment under way in a folder.

    Attributes:
      num_meta_steps: that have been taken.
    """

    def __init__(self, experiment: Experiment, run: Run):
        self.num_meta_steps = 0
        self._experiment, self._score = experiment, math.nan
        self._notify: Callable[[str], None] = print
        self._saved = 0
        self._loggers = _LoggerGroup(experiment.loggers if processes.is_first() else (), run)
        self._clock = _TimingLogger(self._loggers.of('train'))
        self._counter = counting.Counter()
        self._learner = experiment.make_learner(
            counter=self._counter, logger=self._clock, placement=experiment.placement
        )
        self._evaluator = self._checkpointer = None
        if experiment.evaluate_every:
            self._evaluator = Evaluator(
                self._learner, experiment.max_episode_length, experiment.seed, experiment.evaluation_environment
            )
        if experiment.checkpoint_every and processes.is_first():
            self._checkpointer = Checkpointer(run.directory / CHECKPOINTS, experiment.checkpoints_kept)

    def compile(self) -> None:
        """Compiles what trains, so that it counts in no row's speed, unless training is over."""
        if not self._checkpointer or self._checkpointer.latest() != self._experiment.num_meta_steps:
            self._learner.compile()

    def resume(self, notify: Callable[[str], None]) -> None:
        """Goes to the newest checkpoint, or to the beginning if there is none, and lets the clock of training run."""
        self._notify = notify
        checkpoint = self._newest() if self._experiment.checkpoint_every else None
        if checkpoint:
            self._go_on_from(checkpoint)
        else:
            self._learner.load_learned_meta_params()
            self._loggers.restore(None)
        self._clock.start()

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        self._learner.restore(checkpoint.state)
        self._loggers.restore(checkpoint.notes['loggers'])
        self._clock.restore(checkpoint.notes['wall_time'], int(np.sum(self._counter.get_counts()['env_steps'])))
        self.num_meta_steps, self._score = checkpoint.step, checkpoint.notes['score']
        self._saved = checkpoint.step
        in_all, is_pure = self._experiment.num_meta_steps, self._experiment.agent.environment.is_pure
        new_episodes = '' if is_pure else '; its environments live outside of checkpoints: new episodes'
        self._notify(f'resuming after {checkpoint.step:,} of {in_all:,} meta-updates{new_episodes}')

    def take_log_period(self, should_stop: Callable[[], bool]) -> bool:
        """Trains up to the next row, then evaluates and saves what is due; returns whether it was asked to stop."""
        experiment, before = self._experiment, self.num_meta_steps
        period = experiment.meta_steps_in(experiment.log_every)
        done = min((before // period + 1) * period, experiment.num_meta_steps)
        kept = None if experiment.agent.environment.is_pure else self._learner.save()
        try:
            self._learner.advance(done - before)
        except EnvironmentFailedError:
            if experiment.checkpoint_every and kept and before > self._saved:
                self._save(kept)  # The learner's own state is lost with the call that failed.
            raise
        self.num_meta_steps = done
        over, stopping = done == experiment.num_meta_steps, should_stop()

        def is_due(every: int) -> bool:
            period = experiment.meta_steps_in(every)
            return over or done // period > before // period

        with self._clock.paused():
            if self._evaluator is None:
                self._score = _mean(self._clock.last_row['episode_return'])
            elif is_due(experiment.evaluate_every):
                self._evaluate(self._evaluator)
            if experiment.checkpoint_every and (stopping or is_due(experiment.checkpoint_every)):
                self._save(self._learner.save())
                if experiment.checkpoints_cut_episodes and not (
                    over or stopping or experiment.agent.environment.is_pure
                ):
                    self._learner.restore(self._learner.save())
        return stopping

    def close(self) -> None:
        """Waits until everything is written."""
        self._loggers.close()
        if self._checkpointer:
            self._checkpointer.close()

    def _evaluate(self, evaluator: Evaluator) -> None:
        row = evaluator.evaluate(self.num_meta_steps)
        self._score = _mean(row['stochastic/episode_return'])
        counts, columns = self._counter.get_counts(), self._learner.replica_columns
        self._loggers.of('eval').write({**counts, 'wall_time': self._clock.wall_time, **columns, **row})

    def _newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, which the first process reads."""
        template = self._learner.save()
        found = self._checkpointer and self._checkpointer.restore_newest(template, self._notify)
        step, notes = processes.from_first((found.step, found.notes) if found else (None, {}))
        if step is None:
            return None
        return Checkpoint(step, processes.share(found.state if found else template, template), notes)

    def _save(self, state: PyTree) -> None:
        self._saved = self.num_meta_steps
        if not self._checkpointer:
            return  # The first process writes.
        if self._checkpointer.make_directory():
            self._notify(
                'the folder of checkpoints was removed while training; it is made again, without the earlier ones'
            )
        notes = {'loggers': self._loggers.save(), 'wall_time': self._clock.wall_time, 'score': self._score}
        self._checkpointer.save(self.num_meta_steps, state, notes, self._score)


class _LoggerGroup:
    """The loggers of a run, by label."""

    def __init__(self, factories: Sequence[LoggerFactory], run: Run):
        self._loggers = {label: [factory(label, run) for factory in factories] for label in ('train', 'eval')}

    def of(self, label: str) -> acme_loggers.Logger:
        return acme_loggers.Dispatcher(self._loggers[label], dict)

    def save(self) -> dict[str, list[object]]:
        """Position of each logger, None where it has none."""
        return {
            label: [logger.save() if isinstance(logger, acme.core.Saveable) else None for logger in loggers]
            for label, loggers in self._loggers.items()
        }

    def restore(self, positions: dict[str, list[object]] | None) -> None:
        """Takes every logger that can back to its position, or to the beginning if there are none."""
        for label, loggers in self._loggers.items():
            for i, logger in enumerate(loggers):
                if isinstance(logger, acme.core.Saveable):
                    logger.restore(positions[label][i] if positions else None)

    def close(self) -> None:
        for loggers in self._loggers.values():
            for logger in loggers:
                logger.close()


class _TimingLogger(acme_loggers.Logger):
    """Adds `wall_time` (seconds of the run) and `steps_per_second` (of training alone, all seeds) to every row."""

    def __init__(self, to: acme_loggers.Logger):
        self._to = to
        self._start = self._resumed = time.monotonic()
        self._trained, self._env_steps = 0.0, 0
        self.last_row: Row = {}

    @property
    def wall_time(self) -> float:
        return time.monotonic() - self._start

    def start(self) -> None:
        """Lets the time that training takes begin."""
        self._resumed, self._trained = time.monotonic(), 0.0

    def restore(self, wall_time: float, env_steps: int) -> None:
        """Goes on from a run that had taken so many seconds and steps."""
        self._start, self._env_steps = time.monotonic() - wall_time, env_steps

    def write(self, data: Row) -> None:
        trained = self._trained + time.monotonic() - self._resumed
        env_steps = int(np.sum(data['env_steps']))
        clocks = {'wall_time': self.wall_time, 'steps_per_second': (env_steps - self._env_steps) / trained}
        counts = ('env_steps', 'learner_updates', 'meta_updates')
        self._to.write({**{name: data[name] for name in counts}, **clocks, **data})
        self._resumed, self._trained, self._env_steps, self.last_row = time.monotonic(), 0.0, env_steps, data

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done inside out of the time that training took."""
        self._trained += time.monotonic() - self._resumed
        yield
        self._resumed = time.monotonic()

    def close(self) -> None:
        pass  # What it writes to is closed by who made it.


def _mean(values: np.ndarray) -> float:
    """Over the seeds that have a number; NaN if none has."""
    return seed_means({'': values})['']
