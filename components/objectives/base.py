"""The objective interface, and sums of objectives.

An inner update on a trajectory is

    outputs        = network(params, trajectory)                                 T + 1 rows
    targets, state = objective.targets(Unroll(outputs, trajectory, params, network), state)
    predictions    = outputs without the last row                                T rows
    params <- params - step along d(masked mean of objective.loss(predictions, targets, trajectory)) / d(params)

with the targets held fixed: a semi-gradient. What targets bootstrap from, the last row, is in no loss, so that an
update takes no reverse pass through it. A meta-gradient flows through `targets`, the state in it, and `loss` into
every numeric field of the objective. Keeping the two apart says so in the signatures; neither stops a gradient unless
a field of the objective says so.

The state is what an objective remembers from one update of an agent to the next, such as a moving average. It is part
of the agent: saved with it, new with each lifetime, and recalled where updates are taken again.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import Float

from components.component import component
from components.networks.network import NetworkFunctions
from components.shapes import checked
from components.types import (
    Array,
    CompositionError,
    Logs,
    ObjectiveState,
    Outputs,
    Params,
    Predictions,
    Scalar,
    Targets,
    Trajectory,
)


class Unroll(NamedTuple):
    """A network's outputs on a trajectory, and where they come from.

    Attributes:
      outputs: at each observation, leaves `[T+1, B, *head]`.
      trajectory: of `T` steps in `B` environments.
      params: the weights.
      network: whose weights they are.
    """

    outputs: Outputs
    trajectory: Trajectory
    params: Params
    network: NetworkFunctions

    def stopped(self) -> 'Unroll':
        """The same, with outputs and weights that stop the gradient."""
        return self._replace(outputs=jax.lax.stop_gradient(self.outputs), params=jax.lax.stop_gradient(self.params))


class Objective(Protocol):
    """A frozen dataclass whose fields are its hyperparameters, any of which may hold a traced value."""

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Shape of each network output that it reads, without leading axes.

        Raises:
          ValueError: if it cannot be used in an environment of that spec.
        """
        ...

    def init(self, params: Params) -> ObjectiveState:
        """State of an agent with these weights that has learned nothing; `()` for none."""
        ...

    def targets(self, unroll: Unroll, state: ObjectiveState) -> tuple[Targets, ObjectiveState]:
        """What predictions move towards, and the state after it, of the shapes that it had.

        Gradients: in outputs, weights, state and fields.
        """
        ...

    def loss(
        self, predictions: Predictions, targets: Targets, trajectory: Trajectory
    ) -> tuple[Float[Array, 'T B'], Logs]:
        """Loss per step of outputs at the `T` steps, and its parts by name; the caller takes masked means of them."""
        ...


class Stateless:
    """An objective that remembers nothing."""

    def init(self, params: Params) -> ObjectiveState:
        del params
        return ()


def targets_and_state(objective: Objective, unroll: Unroll, state: ObjectiveState) -> tuple[Targets, ObjectiveState]:
    """An objective's targets and next state.

    Raises:
      CompositionError: if arrays have other shapes than the interface says, or if the next state has another structure,
        shape or type than the present one.
    """
    targets, new_state = checked(Objective.targets)(objective, unroll, state)
    before, after = (
        jax.tree.map(lambda x: f'{getattr(x, "dtype", type(x).__name__)}{list(jnp.shape(x))}', tree)
        for tree in (state, new_state)
    )
    structure: object = jax.tree.structure(state)  # Of which a tuple has another one than a named tuple.
    if before != after or structure != jax.tree.structure(new_state):
        raise CompositionError(
            f'the state of the objective {type(objective).__name__} changes with an update, from {before} to {after}: '
            'its `targets` must return a state of the structure, shapes and types that its `init` returns'
        )
    return targets, new_state


def loss_and_parts(
    objective: Objective, predictions: Predictions, targets: Targets, trajectory: Trajectory
) -> tuple[Float[Array, 'T B'], Logs]:
    """An objective's loss per step, and its parts by name.

    Raises:
      CompositionError: if arrays have other shapes than the interface says.
    """
    return checked(Objective.loss)(objective, predictions, targets, trajectory)


def masked_mean(x: Float[Array, 'T B'], mask: Float[Array, 'T B']) -> Scalar:
    """Mean of `x` over the transitions whose mask is not 0."""
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

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError('Sum.terms is empty')

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return merge_heads({name: term.heads(spec) for name, term in self.terms.items()})

    def init(self, params: Params) -> dict[str, ObjectiveState]:
        return {name: term.init(params) for name, term in self.terms.items()}

    def targets(
        self, unroll: Unroll, state: dict[str, ObjectiveState]
    ) -> tuple[dict[str, Targets], dict[str, ObjectiveState]]:
        found = {name: targets_and_state(term, unroll, state[name]) for name, term in self.terms.items()}
        return {name: targets for name, (targets, _) in found.items()}, {name: new for name, (_, new) in found.items()}

    def loss(self, predictions: Predictions, targets: Targets, trajectory: Trajectory) -> tuple[Array, Logs]:
        losses, logs = [], {}
        for name, term in self.terms.items():
            loss, term_logs = loss_and_parts(term, predictions, targets[name], trajectory)
            losses.append(loss)
            logs.update({f'{name}/{key}': value for key, value in term_logs.items()})
        return sum(losses[1:], start=losses[0]), logs
