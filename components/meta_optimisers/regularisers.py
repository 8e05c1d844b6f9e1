"""Regularisers of the meta-parameters, added to the outer loss.

A penalty is a function of the update rule with the meta-parameters bound in it, and of what an agent predicts on a
trajectory, which is held fixed: its derivative takes no inner update to get to. The trajectory is the one that the last
outer loss was evaluated on if that was acted for the purpose, else the one that the agent learns from next.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from components.component import NonNegative, UnitInterval, component
from components.component_tree import component_at, replace_at
from components.objectives.base import Objective, Sum, Unroll
from components.objectives.returns import next_mask
from components.types import Array, ObjectiveState, Targets
from components.update_rule import UpdateRule


class Regulariser(Protocol):
    """A frozen dataclass."""

    def check(self, update_rule: UpdateRule) -> None:
        """Raises ValueError if this update rule has nothing that it could penalise."""
        ...

    def __call__(self, update_rule: UpdateRule, unroll: Unroll, state: ObjectiveState) -> Float[Array, 'T B']:
        """The penalty of each step, of which the masked mean is taken; its weight is in it.

        Args:
          update_rule: with the meta-parameters bound.
          unroll: of the agent's network.
          state: of the agent's objective.
        """
        ...


@component
class Consistency:
    """Targets of successive steps should agree: cost (G_t - (r_{t+1} + gamma_{t+1} G_{t+1}))^2.

    A step whose successor is not on the trajectory is left out.

    Args:
      cost: weight.
      discount: multiplies the environment's own.
      stop: which side of the difference stops the gradient: `bootstrap` (G_{t+1}), `prediction` (G_t) or `none`.
      objective: path of the objective whose targets they are, from the update rule.

    Raises:
      ValueError: if `stop` is none of these.

    Source: Xu et al. (2020), the consistency loss, for which 0.1 was the best cost of 0, 0.1 and 1; which side stops is
      not known, the default is this project's choice.
    """

    cost: NonNegative = 0.1
    discount: UnitInterval = 0.99
    stop: Literal['none', 'bootstrap', 'prediction'] = 'bootstrap'
    objective: str = 'objective'

    def check(self, update_rule: UpdateRule) -> None:
        _check_objective(update_rule, self.objective)

    def __call__(self, update_rule: UpdateRule, unroll: Unroll, state: ObjectiveState) -> Array:
        trajectory = unroll.trajectory
        target = _target(targets_at(update_rule, self.objective, unroll, state))
        successor = jnp.concatenate([target[1:], jnp.zeros_like(target[:1])])
        if self.stop == 'bootstrap':
            successor = jax.lax.stop_gradient(successor)
        elif self.stop == 'prediction':
            target = jax.lax.stop_gradient(target)
        has_successor = next_mask(trajectory).at[-1].set(0)
        is_known = jnp.maximum(has_successor, trajectory.discount == 0)
        error = target - (trajectory.reward + self.discount * trajectory.discount * successor)
        return self.cost * is_known * jnp.square(error)


@component
class TargetSize:
    """Targets should be small: the sum over the fields of what an objective calls its targets of cost |field|^2.

    Args:
      costs: weights by the name of the field.
      objective: path of the objective, from the update rule.

    Source: Oh et al. (2020), section 3.3, for policy and prediction targets.
    """

    costs: Mapping[str, NonNegative]
    objective: str = 'objective'

    def check(self, update_rule: UpdateRule) -> None:
        _check_objective(update_rule, self.objective)

    def __call__(self, update_rule: UpdateRule, unroll: Unroll, state: ObjectiveState) -> Array:
        targets = targets_at(update_rule, self.objective, unroll, state)
        sizes = [cost * _squared_norm(getattr(targets, name)) for name, cost in self.costs.items()]
        return sum(sizes[1:], start=sizes[0])


def targets_at(update_rule: UpdateRule, path: str, unroll: Unroll, state: ObjectiveState) -> Targets:
    """Targets of the objective at a path, which may be part of another, as the update rule's own objective has them.

    Args:
      update_rule: holds the objective.
      path: of the objective, from the update rule.
      unroll: of the agent's network.
      state: of the update rule's own objective.
    """
    recorder = _Recorder(component_at(update_rule, path), [])
    replace_at(update_rule, path, recorder).objective.targets(unroll, state)
    return recorder.targets_seen[-1]


class _Recorder(NamedTuple):
    """An objective that keeps the targets that it is asked for."""

    objective: Objective
    targets_seen: list[Targets]

    def targets(self, unroll: Unroll, state: ObjectiveState) -> tuple[Targets, ObjectiveState]:
        targets, state = self.objective.targets(unroll, state)
        self.targets_seen.append(targets)
        return targets, state


def check_regularisers(regularisers: Mapping[str, Regulariser], update_rule: UpdateRule) -> None:
    """Raises ValueError, naming the regulariser, if one of them does not go with an update rule."""
    for name, regulariser in regularisers.items():
        try:
            regulariser.check(update_rule)
        except ValueError as error:
            raise ValueError(f'regulariser {name!r}: {error}') from error


def _check_objective(update_rule: UpdateRule, path: str) -> None:
    """Raises ValueError if a path leads to nothing, or to several objectives, which have no targets in common."""
    found = component_at(update_rule, path)
    path, terms = (f'{path}.terms', found.terms) if isinstance(found, Sum) else (path, found)
    if isinstance(terms, Mapping):
        names = ', '.join(f'{path}.{name}' for name in terms)
        raise ValueError(
            f'each of several objectives has targets of its own: bind its field objective to one of {names}'
        )


def _squared_norm(x: Array) -> Array:
    """Sum of squares of each step's numbers, `[T, B]`."""
    return jnp.sum(jnp.square(x.reshape(*x.shape[:2], -1)), -1)


def _target(targets: Targets) -> Array:
    """Update targets `[T, B]` among what an objective calls its targets."""
    return getattr(targets, 'target', targets)
