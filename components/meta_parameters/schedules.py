"""Schedules of update-rule fields over an agent's updates."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from components.component import component
from components.component_tree import components_of
from components.types import Array


@component
class Scheduled:
    """Stands in any numeric field of an update rule, and is replaced by its value before each update.

    Args:
      schedule: from the number of updates that an agent has taken to the value; `optax.linear_schedule`, say, whose
        `transition_steps` are then updates.
    """

    schedule: optax.Schedule
    stands_for_number: ClassVar[bool] = True  # The check of a numeric field judges its first value.

    def __post_init__(self) -> None:
        try:
            shape = jax.eval_shape(self, jax.ShapeDtypeStruct((), jnp.int32)).shape
        except Exception as error:  # Of a function that is not ours, anything.
            raise ValueError(
                'Scheduled.schedule must be a function of JAX from a number of updates to a number, got '
                f'{type(error).__name__}: {" ".join(str(error).split())[:100]}'
            ) from error
        if shape:
            raise ValueError(f'Scheduled.schedule must return one number, got an array of shape {shape}')

    def __call__(self, num_updates: Array | int) -> Array:
        """The value for an agent that has taken `num_updates` updates."""
        return jnp.asarray(self.schedule(num_updates), jnp.result_type(float))


def schedules_of(tree: object) -> dict[str, Scheduled]:
    """Every scheduled field below a component, by its path."""
    return {path: part for path, part in components_of(tree).items() if isinstance(part, Scheduled)}
