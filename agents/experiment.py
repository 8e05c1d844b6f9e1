"""The experiment: one loop that trains, logs, evaluates and keeps checkpoints."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from acme.utils import counting
from acme.utils import loggers as acme_loggers

from agents.evaluation import Evaluator
from components.agent import Agent
from components.checkpoints import Checkpointer
from components.learner import Learner
from components.types import CompositionError

LoggerFactory = Callable[[str, str | os.PathLike], acme_loggers.Logger]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Trains an agent for a number of environment steps.

    repeat:
        learner.advance(...)                  # one compiled call, one row in train.csv
        now and then: evaluate, one row in eval.csv; save a checkpoint

    All periods are environment steps of one seed, training acting alone; they are rounded to whole meta-steps, those of
    evaluation and checkpoints to whole log periods.

    Args:
      agent: what to train.
      total_env_steps: length of training; rounded down to whole meta-steps.
      num_seeds: independent replicas, trained as one batch, `S`.
      seed: of the first replica; the others have the seeds that follow.
      log_every: steps between rows.
      evaluate_every: steps between evaluations; 0 for none.
      checkpoint_every: steps between checkpoints; 0 for none. The end of training is one too.
      checkpoints_kept: how many of the newest checkpoints stay.
      max_episode_length: steps after which an episode of evaluation counts as it stands.
      loggers: each called with a label (`train`, `eval`) and the run's folder.

    Raises:
      CompositionError: if training would be shorter than one meta-step, or a number is out of range.
    """

    agent: Agent
    total_env_steps: int
    num_seeds: int = 1
    seed: int = 0
    log_every: int = 10_000
    evaluate_every: int = 0
    checkpoint_every: int = 0
    checkpoints_kept: int = 3
    max_episode_length: int = 10_000
    loggers: Sequence[LoggerFactory] = ()

    def __post_init__(self):
        positive = dict.fromkeys(('total_env_steps', 'num_seeds', 'log_every', 'checkpoints_kept'), 1)
        for name, least in {**positive, 'evaluate_every': 0, 'checkpoint_every': 0}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise CompositionError(f'Experiment.{name} must be an integer of at least {least}, got {value!r}')
        if self.num_meta_steps < 1:
            raise CompositionError(
                f'total_env_steps is {self.total_env_steps}, less than one meta-step of '
                f'{self.agent.steps_per_meta_step} (inner steps x unroll length x environments x lifetimes)'
            )

    @property
    def num_meta_steps(self) -> int:
        """Meta-steps of the whole training."""
        return self.total_env_steps // self.agent.steps_per_meta_step

    def run(
        self,
        workdir: str | os.PathLike,
        display: acme_loggers.Logger | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Trains, and leaves rows and checkpoints in a folder.

        Args:
          workdir: the folder, which exists.
          display: is given every row of training beside the loggers.
          should_stop: asked after every log period; True ends training as its last step would.

        Raises:
          CompositionError: if a meta-parameter turns out to have no effect.
        """
        with contextlib.ExitStack() as stack:
            train_log, eval_log = (self._logger(label, workdir) for label in ('train', 'eval'))
            clock = _ClockedLogger(acme_loggers.Dispatcher([train_log, *([display] if display else [])], dict))
            for logger in (clock, eval_log):
                stack.callback(logger.close)
            counter = counting.Counter()
            learner = Learner(self.agent, num_seeds=self.num_seeds, seed=self.seed, counter=counter, logger=clock)
            evaluator = Evaluator(learner, self.max_episode_length, self.seed) if self.evaluate_every else None
            checkpointer = None
            if self.checkpoint_every:
                checkpointer = Checkpointer(pathlib.Path(workdir) / 'checkpoints', self.checkpoints_kept)
                stack.callback(checkpointer.close)

            done, over, chunk = 0, False, self._meta_steps_in(self.log_every)
            while not over:
                before, done = done, min(done + chunk, self.num_meta_steps)
                learner.advance(done - before)
                over = done == self.num_meta_steps or should_stop()
                with clock.paused():
                    if evaluator and (over or self._due(self.evaluate_every, before, done)):
                        eval_log.write({**counter.get_counts(), 'wall_time': clock.wall_time, **evaluator.evaluate()})
                    if checkpointer and (over or self._due(self.checkpoint_every, before, done)):
                        checkpointer.save(done, learner.save())

    def _logger(self, label: str, workdir: str | os.PathLike) -> acme_loggers.Logger:
        return acme_loggers.Dispatcher([logger(label, workdir) for logger in self.loggers], dict)

    def _meta_steps_in(self, env_steps: int) -> int:
        return max(1, env_steps // self.agent.steps_per_meta_step)

    def _due(self, every: int, before: int, done: int) -> bool:
        """Whether a period of `every` environment steps ended between two numbers of meta-steps."""
        period = self._meta_steps_in(every)
        return done // period > before // period


class _ClockedLogger(acme_loggers.Logger):
    """Adds `wall_time` (seconds of the run) and `steps_per_second` (of training alone, all seeds) to every row."""

    def __init__(self, to: acme_loggers.Logger):
        self._to = to
        self._start = self._resumed = time.monotonic()
        self._trained, self._env_steps = 0.0, 0

    @property
    def wall_time(self) -> float:
        return time.monotonic() - self._start

    def write(self, data: Mapping[str, Any]) -> None:
        trained = self._trained + time.monotonic() - self._resumed
        env_steps = int(np.sum(data['env_steps']))
        clocks = {'wall_time': self.wall_time, 'steps_per_second': (env_steps - self._env_steps) / trained}
        counts = ('env_steps', 'learner_updates', 'meta_updates')
        self._to.write({**{name: data[name] for name in counts}, **clocks, **data})
        self._resumed, self._trained, self._env_steps = time.monotonic(), 0.0, env_steps

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done inside out of the time that training took."""
        self._trained += time.monotonic() - self._resumed
        yield
        self._resumed = time.monotonic()

    def close(self) -> None:
        self._to.close()
