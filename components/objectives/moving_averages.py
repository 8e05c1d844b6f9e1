"""Moving averages: advantages normalised by their mean and standard deviation over recent updates."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from acme import specs

from components.component import Interval, Positive, component
from components.objectives.base import Objective, Unroll, loss_and_parts, masked_mean, targets_and_state
from components.objectives.returns import ReturnEstimate
from components.types import Array, CompositionError, Logs, ObjectiveState, Params, Predictions, Trajectory


class Moments(NamedTuple):
    """Mean and variance of what was averaged, and the weight of it all: 0 before anything was, 1 in the limit."""

    mean: Array
    variance: Array
    weight: Array


class MovingAverageState(NamedTuple):
    """State of a `MovingAverage`: moments of the advantages, and the state of the objective that it serves."""

    moments: Moments
    objective: ObjectiveState


@component
class MovingAverage:
    """An objective whose advantages are normalised by their moving mean and standard deviation.

        advantage <- (advantage - mean) / sqrt(variance + epsilon)

    The moments are exponential moving averages over the updates of a lifetime, the present one included, without the
    bias of a start at 0: those of the first update are of its own advantages. Value targets are left alone.

    Args:
      objective: whose targets are a `ReturnEstimate`, as those of an `ActorCritic`.
      decay: of the weight of an update, per later one; in [0, 1). 0 is normalisation by each trajectory's own moments.
      epsilon: added to the variance; positive.
      subtract_mean: whether the mean is subtracted.
      stop_moments: whether advantages stop the gradient on their way into the moments. The meta-gradient then leaves
        out that a field which moves an advantage moves the moments, too; `decay` has its gradient either way.

    Raises:
      ValueError: if a number is out of range.
      CompositionError: if the objective has no advantages.

    Source: van Hasselt et al. (2016) for moving moments of targets; of advantages, with `decay` as a learned field,
      this project.
    """

    objective: Objective
    decay: Annotated[float, Interval(0, 1, high_open=True)] = 0.99
    epsilon: Positive = 1e-8
    subtract_mean: bool = True
    stop_moments: bool = True

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.objective.heads(spec)

    def init(self, params: Params) -> MovingAverageState:
        return MovingAverageState(Moments(*jnp.zeros(3)), self.objective.init(params))

    def targets(self, unroll: Unroll, state: MovingAverageState) -> tuple[ReturnEstimate, MovingAverageState]:
        targets, inner = targets_and_state(self.objective, unroll, state.objective)
        if not isinstance(targets, ReturnEstimate):
            raise CompositionError(
                f'MovingAverage.objective is {type(self.objective).__name__}, whose targets have no advantages to '
                'normalise; ActorCritic has them'
            )
        averaged = jax.lax.stop_gradient(targets.advantage) if self.stop_moments else targets.advantage
        moments = _updated(state.moments, averaged, unroll.trajectory.mask, self.decay)
        centred = targets.advantage - moments.mean if self.subtract_mean else targets.advantage
        advantage = centred / jnp.sqrt(moments.variance + self.epsilon)
        return targets._replace(advantage=advantage), MovingAverageState(moments, inner)

    def loss(self, predictions: Predictions, targets: ReturnEstimate, trajectory: Trajectory) -> tuple[Array, Logs]:
        return loss_and_parts(self.objective, predictions, targets, trajectory)


def _updated(moments: Moments, x: Array, mask: Array, decay: Array | float) -> Moments:
    """Moments after `x`, `[T, B]`, of which the masked entries do not count.

    The variance is updated about the moving mean, so that no large squares are subtracted from each other.
    """
    weight = decay * moments.weight + (1 - decay)
    rate = (1 - decay) / weight * mask.any()  # Nothing but masked entries changes nothing.
    mean = masked_mean(x, mask)
    variance = masked_mean(jnp.square(x - mean), mask)
    difference = mean - moments.mean
    return Moments(
        moments.mean + rate * difference,
        (1 - rate) * (moments.variance + rate * jnp.square(difference)) + rate * variance,
        jnp.where(mask.any(), weight, moments.weight),
    )
