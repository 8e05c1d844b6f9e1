"""The protocol of a study of deep meta-RL: what is measured in the episodes of a task, and beside which baselines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agents.analysis.frozen_episodes import FrozenEpisodes
from agents.analysis.meta_rl import behaviour_fits
from components.environments.base import Environment
from components.types import Array

Row = dict[str, float]
Fit = behaviour_fits.Row
"""A row of `behaviour_fits.fits_of`."""

Baseline = Callable[[Array, int], list[Row]]
"""Plays a hand-designed policy: from a key of `bandit_policies.episode_keys` and a number of episodes to rows."""

SimulatedFit = Callable[[Array, int], list[Fit]]
"""Plays a policy that is a model of behaviour, likewise, and fits the models to it."""


class Study(Protocol):
    """What is measured in the episodes of a task, and the baselines it is compared with.

    recording = episodes of a frozen agent in `environment`, of at most num_steps() steps
    rows      = measure(recording), and baseline(key, num_episodes) for each of baselines()
    a line of the report is summary(rows); its plot is columns `y` over column `x`

    A class that inherits from it needs neither baselines nor variations nor models of behaviour, and no summary of a
    single row.

    Attributes:
      environment: the task, without wrappers.
      x: column that curves are drawn over; None for bars.
      y: columns that are drawn: a single one for curves.
    """

    environment: Environment
    x: str | None
    y: Sequence[str]

    def num_steps(self) -> int:
        """Steps of the longest episode."""
        ...

    def measure(self, recording: FrozenEpisodes) -> list[Row]:
        """Rows of recorded episodes: one for each pull or trial, or a single one."""
        ...

    def summary(self, rows: Sequence[Row]) -> Row:
        """The few numbers that tell most of rows, by column of the report's table; the single row by default."""
        (row,) = rows
        return row

    def baselines(self) -> Mapping[str, Baseline]:
        """Hand-designed policies that play in the same tasks, by name."""
        return {}

    def variations(self) -> Mapping[str, 'Study']:
        """Studies of other forms of the task that are measured as well, by name; theirs are not."""
        return {}

    def fits(self, recording: FrozenEpisodes) -> list[Fit]:
        """Models of behaviour fitted to recorded episodes, as `behaviour_fits.fits_of` has them."""
        del recording
        return []

    def simulated(self) -> Mapping[str, SimulatedFit]:
        """Fits to policies that are models of behaviour, by name."""
        return {}
