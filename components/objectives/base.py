"""The objective interface, and sums of objectives.

An inner update on a trajectory is

    outputs = network(params, trajectory)
    targets = objective.targets(outputs, trajectory)
    params <- params - step along d(masked mean of objective.loss(outputs(params), targets, trajectory)) / d(params)

with the targets held fixed: a semi-gradient. A meta-gradient flows through `targets` and through `loss` into every
numeric field of the objective. Keeping the two apart says so in the signatures; neither stops a gradient.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
from acme import specs

from components.component import component
from components.types import Array, Logs, Outputs, Targets, Trajectory


class Objective(Protocol):
    """A frozen dataclass whose fields are its hyperparameters, any of which may hold a traced value."""

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Shape of each network output that it reads, without leading axes.

        Raises:
          ValueError: if it cannot be used in an environment of that spec.
        """
        ...

    def targets(self, outputs: Outputs, trajectory: Trajectory) -> Targets:
        """What predictions move towards, leaves `[T, B, ...]`; differentiable in outputs and fields."""
        ...

    def loss(self, outputs: Outputs, targets: Targets, trajectory: Trajectory) -> tuple[Array, Logs]:
        """Loss per step `[T, B]`, and its parts by name, `[T, B]`; the caller takes masked means of all of them."""
        ...


def masked_mean(x: Array, mask: Array) -> Array:
    """Mean of `x` over the transitions whose mask is not 0; both `[T, B]`."""
    return (x * mask).sum() / jnp.maximum(mask.sum(), 1)


def weighted_or_zero(cost: float | Array, x: Array) -> Array:
    """`cost * x`. A constant cost of 0 leaves the term out altogether, and with it the work of its gradient."""
    return jnp.zeros_like(x) if isinstance(cost, int | float) and cost == 0 else cost * x


def merge_heads(parts: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """The heads of several objectives together.

    Args:
      parts: heads by the name of the component that reads them.

    Raises:
      ValueError: if two ask for the same head in different shapes.
    """
    heads: dict[str, tuple[int, ...]] = {}
    for name, part in parts.items():
        for head, shape in part.items():
            if heads.setdefault(head, shape) != shape:
                raise ValueError(f'{name} asks for head {head!r} with shape {shape}, another with {heads[head]}')
    return heads


@component
class Sum:
    """Several objectives added up; the coefficients are their own.

    Args:
      terms: the objectives by name. Their fields are reached through it: `terms.<name>.<field>`.

    Raises:
      ValueError: if there are no terms.
    """

    terms: Mapping[str, Objective]

    def __post_init__(self):
        if not self.terms:
            raise ValueError('Sum.terms is empty')

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return merge_heads({name: term.heads(spec) for name, term in self.terms.items()})

    def targets(self, outputs: Outputs, trajectory: Trajectory) -> dict[str, Any]:
        return {name: term.targets(outputs, trajectory) for name, term in self.terms.items()}

    def loss(self, outputs: Outputs, targets: Targets, trajectory: Trajectory) -> tuple[Array, Logs]:
        losses, logs = [], {}
        for name, term in self.terms.items():
            loss, term_logs = term.loss(outputs, targets[name], trajectory)
            losses.append(loss)
            logs.update({f'{name}/{key}': value for key, value in term_logs.items()})
        return sum(losses[1:], start=losses[0]), logs
