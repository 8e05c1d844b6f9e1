"""Advantage actor-critic, and the regression of a value on a return."""

import dataclasses

import jax
import jax.numpy as jnp
from acme import specs

from components.objectives.base import num_actions, weigh
from components.objectives.returns import ReturnEstimate, Returns
from components.types import Array, Logs, Outputs, Trajectory


@dataclasses.dataclass(frozen=True)
class ActorCritic:
    """Policy gradient with a learned baseline, value regression and an entropy bonus.

    The loss of a step is

        - policy_cost log pi(a_t|s_t) advantage_t + value_cost (target_t - v_t)^2 - entropy_cost H(pi(.|s_t))

    Args:
      returns: estimates targets and advantages.
      policy_cost: weight of the policy gradient.
      value_cost: weight of the squared error.
      entropy_cost: weight of the entropy, in nats.
      policy_head: output that holds the policy's logits, `[A]`.
      value_head: output that holds the values, scalar.

    Source: Mnih et al. (2016), section 4; without the half that some put before the squared error.
    """

    returns: Returns
    policy_cost: float = 1.0
    value_cost: float = 0.5
    entropy_cost: float = 0.01
    policy_head: str = 'logits'
    value_head: str = 'value'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.policy_head: (num_actions(spec),), self.value_head: ()}

    def targets(self, outputs: Outputs, trajectory: Trajectory) -> ReturnEstimate:
        return self.returns(outputs[self.value_head], log_rho(outputs[self.policy_head], trajectory), trajectory)

    def loss(self, outputs: Outputs, targets: ReturnEstimate, trajectory: Trajectory) -> tuple[Array, Logs]:
        log_pi = jax.nn.log_softmax(outputs[self.policy_head][:-1])
        policy = -_of_actions(log_pi, trajectory.action) * targets.advantage
        value = jnp.square(targets.target - outputs[self.value_head][:-1])
        entropy = -jnp.sum(jnp.exp(log_pi) * log_pi, -1)
        loss = weigh(self.policy_cost, policy) + weigh(self.value_cost, value) - weigh(self.entropy_cost, entropy)
        return loss, {'policy': policy, 'value': value, 'entropy': entropy}


@dataclasses.dataclass(frozen=True)
class ValueRegression:
    """Regression of one more value on a return of its own, cost (target_t - v_t)^2: an outer critic, say.

    Args:
      returns: estimates the targets.
      cost: weight of the squared error.
      value_head: output that holds the values, scalar.
      policy_head: output that holds the policy's logits, for returns that correct for it.

    Source: Bonnet et al. (2022), the outer value function.
    """

    returns: Returns
    cost: float = 0.5
    value_head: str = 'outer_value'
    policy_head: str = 'logits'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.policy_head: (num_actions(spec),), self.value_head: ()}

    def targets(self, outputs: Outputs, trajectory: Trajectory) -> Array:
        return self.returns(outputs[self.value_head], log_rho(outputs[self.policy_head], trajectory), trajectory).target

    def loss(self, outputs: Outputs, targets: Array, trajectory: Trajectory) -> tuple[Array, Logs]:
        value = jnp.square(targets - outputs[self.value_head][:-1])
        return weigh(self.cost, value), {'value': value}


def log_rho(logits: Array, trajectory: Trajectory) -> Array:
    """Log importance ratio of the actions taken: present policy over the one that acted.

    Args:
      logits: of the present policy at the observations, `[T+1, B, A]`.
      trajectory: the actions and the logits they were drawn from.

    Returns:
      `[T, B]`.
    """
    return _of_actions(
        jax.nn.log_softmax(logits[:-1]) - jax.nn.log_softmax(trajectory.behaviour_logits), trajectory.action
    )


def _of_actions(x: Array, actions: Array) -> Array:
    """Entries of the actions, `[T, B]` out of `[T, B, A]`."""
    return jnp.take_along_axis(x, actions[..., None], -1)[..., 0]
