"""Taking the time of several sides in turn, and the rows that are reported."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from agents.agent import Agent
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner

Row = dict[str, Any]
Side = Callable[[], Any]


def wall(side: Side) -> float:
    """Seconds that a call takes by the clock."""
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def cpu_and_wall(side: Side) -> np.ndarray:
    """Seconds that a call takes of this process' cores together, and by the clock.

    On a shared machine the former are what a program costs: while another one has the core, they stand still.
    """
    start = np.array([time.process_time(), time.perf_counter()])
    side()
    return np.array([time.process_time(), time.perf_counter()]) - start


def alternate(sides: Sequence[Side], rounds: int, seconds: Callable[[Side], Any] = wall) -> list[np.ndarray]:
    """Seconds of each side in each round `[rounds, ...]`, taken in turn, after one call of each that compiles.

    Args:
      sides: what is measured.
      rounds: samples of each.
      seconds: that a call of a side takes.
    """
    for side in sides:
        side()
    taken: list[list[Any]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, mine in zip(sides, taken, strict=True):
            mine.append(seconds(side))
    return [np.array(mine) for mine in taken]


def row(name: str, against: str, unit: str, ours: ArrayLike, theirs: ArrayLike, ratio: ArrayLike) -> Row:
    """A row of the table. Of numbers of several rounds it has the median, of ratios also its 95% bootstrap interval.

    Args:
      name: of the benchmark.
      against: what the project is compared with.
      unit: of both numbers.
      ours: number of the project.
      theirs: number of the other side.
      ratio: how many times the one is the other; each benchmark says which way round.
    """
    ours, theirs, ratios = (np.asarray(x, float) for x in (ours, theirs, ratio))
    found = {
        'benchmark': name,
        'against': against,
        'unit': unit,
        'project': f'{np.median(ours):.4g}',
        'other': f'{np.median(theirs):.4g}',
        'ratio': f'{np.median(ratios):.3f}',
    }
    if ratios.size == 1:
        return found
    resampled = np.random.default_rng(0).choice(ratios, (2_000, ratios.size))
    low, high = np.percentile(np.median(resampled, 1), (2.5, 97.5))
    return {**found, 'low': f'{low:.3f}', 'high': f'{high:.3f}'}


def agent_of(gin_file: str, *bindings: str) -> Agent:
    """The agent of a variant."""
    gin_config.load([gin_file], bindings)
    return gin_config.build(Experiment).agent


def training(learner: Learner, num_meta_steps: int) -> Side:
    """What takes meta-steps of a learner, and waits for them."""

    def advance() -> None:
        learner.advance(num_meta_steps)
        jax.block_until_ready(learner.state)

    return advance
