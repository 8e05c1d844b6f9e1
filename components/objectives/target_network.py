"""Target network: an objective whose targets are read from a slowly moving copy of the weights."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from acme import specs

from components.component import UnitInterval, component
from components.objectives.base import Objective, Unroll, loss_and_parts, targets_and_state
from components.types import Array, Logs, ObjectiveState, Params, Predictions, Targets, Trajectory


class TargetNetworkState(NamedTuple):
    """State of a `TargetNetwork`: the copy of the weights, and the state of the objective that it serves."""

    target_params: Params
    objective: ObjectiveState


@component
class TargetNetwork:
    """An objective that computes its targets from a slowly moving copy of the weights.

    After every update of the weights, and so before the targets of the next one,

        copy <- copy + rate (weights - copy)

    Of the network's outputs, those that `heads_of_copy` names are the copy's where targets are computed. The loss, and
    the outputs that are not named, are the weights' own.

    Args:
      objective: any.
      rate: of the copy, per update; 1 is no target network at all, 0 the weights that a lifetime starts with.
      heads_of_copy: outputs that are read from the copy.
      stop_target_params: whether the copy stops the gradient: the meta-gradient over more than one inner step then
        leaves out how earlier updates, and `rate`, move later targets through it.

    Raises:
      ValueError: if `rate` is not in [0, 1], if no head is named, or one that the objective does not read.

    Source: Lillicrap et al. (2016), section 3, for the moving average; as `rate` for returns of actor-critics, and its
      place among learned fields, this project.
    """

    objective: Objective
    rate: UnitInterval = 0.005
    heads_of_copy: Sequence[str] = ('value',)
    stop_target_params: bool = False

    def __post_init__(self) -> None:
        if not self.heads_of_copy:
            raise ValueError('TargetNetwork.heads_of_copy is empty: nothing would be read from the copy')

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        heads = self.objective.heads(spec)
        unknown = sorted(set(self.heads_of_copy) - set(heads))
        if unknown:
            raise ValueError(
                f'TargetNetwork.heads_of_copy names {", ".join(unknown)}; '
                f'the objective reads {", ".join(sorted(heads))}'
            )
        return heads

    def init(self, params: Params) -> TargetNetworkState:
        return TargetNetworkState(jax.tree.map(jnp.copy, params), self.objective.init(params))

    def targets(self, unroll: Unroll, state: TargetNetworkState) -> tuple[Targets, TargetNetworkState]:
        copy = jax.tree.map(lambda x, y: x + self.rate * (y - x), state.target_params, unroll.params)
        if self.stop_target_params:
            copy = jax.lax.stop_gradient(copy)
        from_copy = unroll.network.outputs(copy, unroll.trajectory)
        outputs = {**unroll.outputs, **{head: from_copy[head] for head in self.heads_of_copy}}
        targets, inner = targets_and_state(self.objective, unroll._replace(outputs=outputs), state.objective)
        return targets, TargetNetworkState(copy, inner)

    def loss(self, predictions: Predictions, targets: Targets, trajectory: Trajectory) -> tuple[Array, Logs]:
        return loss_and_parts(self.objective, predictions, targets, trajectory)
