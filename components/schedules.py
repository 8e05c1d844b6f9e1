"""Schedules: numbers of an update rule that change in the course of an agent's lifetime, as they were told to beforehand."""

import dataclasses
from typing import Any, ClassVar

import optax

from components.types import Array


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """Stands in any numeric field of an update rule, and is replaced by its value before each update.

    Args:
      schedule: from the number of updates that an agent has taken to the value; `optax.linear_schedule`, say, whose
        `transition_steps` are then updates.
    """

    schedule: optax.Schedule
    stands_for_number: ClassVar[bool] = True

    def __call__(self, age: Array | int) -> Array:
        """The value for an agent that has taken `age` updates."""
        return self.schedule(age)


def first_value(value: Any) -> Any:
    """What a field holds for an agent that has taken no update, if it is scheduled; else the value itself."""
    return value(0) if isinstance(value, Scheduled) else value
