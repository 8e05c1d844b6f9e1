"""The entropy of one output of a network."""

from acme import specs

from components.acting.action_distributions import Categorical
from components.component import NonNegative, PositiveInt, component
from components.objectives.base import Stateless, Unroll, weighted_or_zero
from components.types import Array, Logs, Predictions, Trajectory


@component
class EntropyBonus(Stateless):
    """The entropy of one output, -cost H(softmax(output)): of the predictions of an LPG agent, say.

    Args:
      head: output that holds logits.
      size: their number, `N`.
      cost: weight of the entropy, in nats.
    """

    head: str
    size: PositiveInt
    cost: NonNegative = 0.01

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.head: (self.size,)}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[tuple[()], tuple[()]]:
        return (), state

    def loss(self, predictions: Predictions, targets: tuple[()], trajectory: Trajectory) -> tuple[Array, Logs]:
        entropy = Categorical(predictions[self.head]).entropy()
        return -weighted_or_zero(self.cost, entropy), {'entropy': entropy}
