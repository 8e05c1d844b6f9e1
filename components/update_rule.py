"""One inner update: an objective and an optimiser."""

import dataclasses

import jax

from components.networks.network import NetworkFunctions
from components.objectives.base import Objective, masked_mean
from components.optimisers import Optimiser
from components.types import Logs, OptState, Params, Trajectory


@dataclasses.dataclass(frozen=True)
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

    def update(
        self, network: NetworkFunctions, params: Params, opt_state: OptState, trajectory: Trajectory
    ) -> tuple[Params, OptState, Logs]:
        """Learns from one trajectory.

        Args:
          network: whose weights are moved.
          params: the weights.
          opt_state: of the optimiser.
          trajectory: of `T` steps in `B` environments.

        Returns:
          New weights, new optimiser state, and the objective's masked means by name (`loss/...`).

        Gradients: differentiable in weights, optimiser state and every numeric field below this rule.
        """
        outputs, pullback = jax.vjp(lambda p: network.outputs(p, trajectory), params)
        known = jax.lax.stop_gradient(outputs) if self.stop_bootstrap_values else outputs
        targets = self.objective.targets(known, trajectory)

        def loss(outputs):
            loss, logs = self.objective.loss(outputs, targets, trajectory)
            return masked_mean(loss, trajectory.mask), {
                f'loss/{name}': masked_mean(x, trajectory.mask) for name, x in logs.items()
            }

        cotangent, logs = jax.grad(loss, has_aux=True)(outputs)
        (gradient,) = pullback(cotangent)
        params, opt_state = self.optimiser.step(gradient, opt_state, params)
        return params, opt_state, logs
