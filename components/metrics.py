"""Metrics: the names of logged values, and means and sums of them. `docs/metrics.md` explains each."""

import enum
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
from jaxtyping import Int

from components.types import Array, EpisodeTotals

T = TypeVar('T')


class Group(enum.StrEnum):
    """What a logged value is of; called with which of them it is, the name of the value."""

    LOSS = 'loss'
    SCHEDULED = 'scheduled'
    INNER_UPDATE = 'inner_update'
    INNER_LOOP = 'inner_loop'
    OUTER_LOSS = 'outer_loss'
    STEP_WEIGHT = 'step_weight'
    TARGET_LOSS = 'target_loss'
    META_PARAMETER = 'meta'
    META_GRADIENT = 'meta_gradient'
    META_GRADIENT_COSINE = 'meta_gradient_cosine'
    META_GRADIENT_BY_UPDATE = 'meta_gradient_by_update'
    META_GRADIENT_OF_REGULARISERS = 'meta_gradient_of_regularisers'
    SIGNAL_TO_NOISE = 'meta_gradient_signal_to_noise'
    SIGNAL_TO_NOISE_OVER_SEEDS = 'meta_gradient_signal_to_noise_over_seeds'
    MONITOR = 'monitor'
    REPLICA = 'replica'

    def __call__(self, entry: str) -> 'Name':
        return Name(self, entry)


class Name(NamedTuple):
    """The name of a logged value; a column's name is `<group>/<entry>`."""

    group: Group
    entry: str

    def __str__(self) -> str:
        return f'{self.group}/{self.entry}'


NamedLogs = dict[Name, Array]


class Metrics(NamedTuple):
    """What one step of a loop reports.

    Attributes:
      logs: scalars by their names, to be averaged over steps; `DIAGNOSTICS` over those in which they are measured.
      episodes: of training, to be added up over steps.
      num_validation_steps: environment steps of fresh validation trajectories, int32; added up likewise.
    """

    logs: NamedLogs
    episodes: EpisodeTotals
    num_validation_steps: Int[Array, '']


LOSSES = Group.LOSS, Group.OUTER_LOSS
"""Groups whose values have to be finite."""

DIAGNOSTICS = Group.INNER_LOOP, Group.MONITOR
"""Groups whose values are measured in some meta-steps only, where `Agent.diagnostics_every` says so."""


def columns(logs: Mapping[Name, T]) -> dict[str, T]:
    """Logged values by the names of their columns."""
    return {str(name): value for name, value in logs.items()}


def mean_over_axis(metrics: Metrics) -> Metrics:
    """Metrics `[N]` of several lifetimes or steps as one: logs averaged, counts added up."""
    logs = {name: x.mean(0) for name, x in metrics.logs.items()}
    return jax.tree.map(lambda x: x.sum(0), metrics)._replace(logs=logs)


def with_logs(metrics: Metrics, logs: NamedLogs) -> Metrics:
    """Metrics with more logs, of other names; what was given stays as it is."""
    return metrics._replace(logs={**metrics.logs, **logs})
