"""Advantage actor-critic."""

import jax.numpy as jnp
from acme import specs

from components.acting.policies import Policy, Softmax, log_rho
from components.component import NonNegative, component
from components.objectives.base import Stateless, Unroll, weighted_or_zero
from components.objectives.returns import ReturnEstimate, ReturnEstimator, estimate_returns
from components.types import Array, Logs, Predictions, Trajectory


@component
class ActorCritic(Stateless):
    """Policy gradient with a learned baseline, value regression and an entropy bonus.

    The loss of a step is

        - policy_cost log pi(a_t|s_t) advantage_t + value_cost (target_t - v_t)^2 - entropy_cost H(pi(.|s_t))

    Args:
      returns: estimates targets and advantages.
      policy_cost: weight of the policy gradient.
      value_cost: weight of the squared error.
      entropy_cost: weight of the entropy, in nats.
      policy: what is improved.
      value_head: output that holds the values, scalar.

    Source: Mnih et al. (2016), section 4; without the half that some put before the squared error.
    """

    returns: ReturnEstimator
    policy_cost: NonNegative = 1.0
    value_cost: NonNegative = 0.5
    entropy_cost: NonNegative = 0.01
    policy: Policy = Softmax()
    value_head: str = 'value'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.value_head: ()}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[ReturnEstimate, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        ratio = log_rho(self.policy(outputs, trajectory.first.shape), trajectory)
        return estimate_returns(self.returns, outputs[self.value_head], ratio, trajectory), state

    def loss(self, predictions: Predictions, targets: ReturnEstimate, trajectory: Trajectory) -> tuple[Array, Logs]:
        pi = self.policy(predictions, trajectory.reward.shape)
        policy = -pi.log_prob(trajectory.action) * targets.advantage
        value = jnp.square(targets.target - predictions[self.value_head])
        entropy = pi.entropy()
        loss = (
            weighted_or_zero(self.policy_cost, policy)
            + weighted_or_zero(self.value_cost, value)
            - weighted_or_zero(self.entropy_cost, entropy)
        )
        return loss, {'policy': policy, 'value': value, 'entropy': entropy}
