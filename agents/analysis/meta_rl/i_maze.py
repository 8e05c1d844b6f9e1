"""Steps to the goal of the I-maze, the first time and later."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class GoalLatencies(NamedTuple):
    """How many steps goals took; NaN where there is none to count.

    Attributes:
      first: mean steps to an episode's first goal, over episodes that have one.
      later: mean steps from one goal to the next, over all of them.
      share: of the episodes that have a goal.
    """

    first: float
    later: float
    share: float


def goal_latencies(reached_goal: np.ndarray) -> GoalLatencies:
    """How long finding the goal took, and how long coming back to it: `first / later` is what memory is worth.

    The time from an episode's last goal to its end counts in neither, nor do episodes without a goal in `first`.

    Args:
      reached_goal: whether each step of each of N whole episodes reached the goal; the first row tells of the first
        step, not of the reset. Bool `[T, N]`.

    Returns:
      The means.

    Raises:
      ValueError: if it is not of two axes.
    """
    reached_goal = np.asarray(reached_goal, bool)
    if reached_goal.ndim != 2:
        raise ValueError(f'reached_goal must be [T, N], steps of episodes, got shape {reached_goal.shape}')
    steps = [np.flatnonzero(episode) + 1 for episode in reached_goal.T]
    firsts = [episode[0] for episode in steps if len(episode)]
    laters = [latency for episode in steps for latency in np.diff(episode)]
    return GoalLatencies(_mean(firsts), _mean(laters), _mean([len(episode) > 0 for episode in steps]))


def _mean(values: Sequence) -> float:
    return float(np.mean(values)) if len(values) else float('nan')
