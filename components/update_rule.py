"""One inner update: an objective and an optimiser."""

import jax

from components.component import component
from components.metrics import Group, NamedLogs
from components.networks.network import NetworkFunctions, with_bootstrap
from components.objectives.base import Objective, Unroll, loss_and_parts, masked_mean, targets_and_state
from components.optimisers import Optimiser
from components.types import Array, LearningState, ObjectiveState, Params, Predictions, Targets, Trajectory


@component
class UpdateRule:
    """How an agent learns from a trajectory; the root of the paths of meta-parameters.

    Args:
      objective: what is minimised, with targets held fixed.
      optimiser: how.
      stop_bootstrap_values: whether targets are computed from outputs that stop the gradient. The update itself is the
        same. The meta-gradient over more than one inner step then leaves out how earlier updates move later targets
        through the network: another estimator (Bonnet et al. 2022 use it, with one step, where they agree).
    """

    objective: Objective
    optimiser: Optimiser
    stop_bootstrap_values: bool = False

    def init(self, params: Params) -> LearningState:
        """State of an agent with these weights that has learned nothing."""
        return LearningState(params, self.optimiser.init(params), self.objective.init(params))

    def targets(self, unroll: Unroll, state: ObjectiveState) -> tuple[Targets, ObjectiveState]:
        """What the predictions on a trajectory move towards, leaves `[T, B, ...]`, and the objective's next state."""
        return targets_and_state(self.objective, unroll.stopped() if self.stop_bootstrap_values else unroll, state)

    def loss(self, predictions: Predictions, targets: Targets, trajectory: Trajectory) -> tuple[Array, NamedLogs]:
        """The objective's masked mean, a scalar, and those of its parts by name."""
        loss, parts = loss_and_parts(self.objective, predictions, targets, trajectory)
        logs = {Group.LOSS(name): masked_mean(x, trajectory.mask) for name, x in parts.items()}
        return masked_mean(loss, trajectory.mask), logs

    def gradient(
        self, network: NetworkFunctions, params: Params, state: ObjectiveState, trajectory: Trajectory
    ) -> tuple[Params, ObjectiveState, NamedLogs]:
        """Derivative of the loss with respect to the weights, with targets held fixed.

        Args:
          network: whose weights they are.
          params: the weights.
          state: of the objective.
          trajectory: of `T` steps in `B` environments.

        Returns:
          The derivative, as `params`, the objective's next state, and the loss's parts.

        Gradients: in the weights, targets included, the state, and every numeric field below this rule.
        """
        predictions, pullback, bootstrap = jax.vjp(
            lambda params: network.predictions(params, trajectory), params, has_aux=True
        )
        outputs = with_bootstrap(predictions, bootstrap)
        targets, state = self.targets(Unroll(outputs, trajectory, params, network), state)
        slope = jax.grad(lambda predictions: self.loss(predictions, targets, trajectory), has_aux=True)
        cotangent, logs = slope(predictions)
        return pullback(cotangent)[0], state, logs

    def update(
        self, network: NetworkFunctions, learning: LearningState, trajectory: Trajectory
    ) -> tuple[LearningState, NamedLogs]:
        """Learns from one trajectory: one step of the optimiser along the `gradient`.

        Args:
          network: whose weights are moved.
          learning: weights, and states of optimiser and objective.
          trajectory: of `T` steps in `B` environments.

        Returns:
          The same after the update, and the loss's parts.

        Gradients: in all of the learning state, and every numeric field below this rule.
        """
        params, opt_state, objective_state = learning
        gradient, objective_state, logs = self.gradient(network, params, objective_state, trajectory)
        return LearningState(*self.optimiser.step(gradient, opt_state, params), objective_state), logs
