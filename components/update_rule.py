"""One inner update: an objective and an optimiser."""

import jax

from components.component import component
from components.networks.network import NetworkFunctions
from components.objectives.base import Objective, masked_mean
from components.optimisers import Optimiser
from components.types import Array, Logs, OptState, Outputs, Params, Targets, Trajectory


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

    def targets(self, outputs: Outputs, trajectory: Trajectory) -> Targets:
        """What the predictions on a trajectory move towards, leaves `[T, B, ...]`."""
        return self.objective.targets(
            jax.lax.stop_gradient(outputs) if self.stop_bootstrap_values else outputs, trajectory
        )

    def loss(self, outputs: Outputs, targets: Targets, trajectory: Trajectory) -> tuple[Array, Logs]:
        """The objective's masked mean, a scalar, and those of its parts by name (`loss/...`)."""
        loss, parts = self.objective.loss(outputs, targets, trajectory)
        logs = {f'loss/{name}': masked_mean(x, trajectory.mask) for name, x in parts.items()}
        return masked_mean(loss, trajectory.mask), logs

    def gradient(self, network: NetworkFunctions, params: Params, trajectory: Trajectory) -> tuple[Params, Logs]:
        """Derivative of the loss with respect to the weights, with targets held fixed.

        Args:
          network: whose weights they are.
          params: the weights.
          trajectory: of `T` steps in `B` environments.

        Returns:
          The derivative, as `params`, and the loss's parts.

        Gradients: differentiable in the weights, targets included, and every numeric field below this rule.
        """
        outputs, pullback = jax.vjp(lambda params: network.outputs(params, trajectory), params)
        targets = self.targets(outputs, trajectory)
        cotangent, logs = jax.grad(lambda outputs: self.loss(outputs, targets, trajectory), has_aux=True)(outputs)
        return pullback(cotangent)[0], logs

    def update(
        self, network: NetworkFunctions, params: Params, opt_state: OptState, trajectory: Trajectory
    ) -> tuple[Params, OptState, Logs]:
        """Learns from one trajectory: one step of the optimiser along the `gradient`.

        Args:
          network: whose weights are moved.
          params: the weights.
          opt_state: of the optimiser.
          trajectory: of `T` steps in `B` environments.

        Returns:
          New weights, new optimiser state, and the loss's parts.

        Gradients: differentiable in weights, optimiser state and every numeric field below this rule.
        """
        gradient, logs = self.gradient(network, params, trajectory)
        return *self.optimiser.step(gradient, opt_state, params), logs
