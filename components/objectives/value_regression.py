"""Regression of values, of states or of actions, on a return."""

import jax.numpy as jnp
from acme import specs

from components.acting.action_distributions import num_actions, of_action
from components.acting.policies import CategoricalPolicy, Greedy, Policy, Softmax, log_rho
from components.component import NonNegative, component
from components.objectives.base import Stateless, Unroll, weighted_or_zero
from components.objectives.returns import ReturnEstimator, estimate_returns
from components.types import Array, Logs, Predictions, Trajectory


@component
class ValueRegression(Stateless):
    """Regression of a value on a return of its own, cost (target_t - v_t)^2: prediction, or an outer critic.

    Args:
      returns: estimates the targets.
      cost: weight of the squared error.
      value_head: output that holds the values, scalar.
      policy: whose values they are, for returns that correct for the one that acted.

    Source: Bonnet et al. (2022), the outer value function.
    """

    returns: ReturnEstimator
    cost: NonNegative = 0.5
    value_head: str = 'outer_value'
    policy: Policy = Softmax()

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.value_head: ()}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[Array, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        values = outputs[self.value_head]
        ratio = log_rho(self.policy(outputs, values.shape), trajectory)
        return estimate_returns(self.returns, values, ratio, trajectory).target, state

    def loss(self, predictions: Predictions, targets: Array, trajectory: Trajectory) -> tuple[Array, Logs]:
        value = jnp.square(targets - predictions[self.value_head])
        return weighted_or_zero(self.cost, value), {'value': value}


@component
class ActionValueRegression(Stateless):
    """Regression of the values of the actions taken on a return, cost (target_t - q_t(a_t))^2: value-based control.

    The value of a state, from which returns bootstrap, is the mean of its actions' values under `policy`.

    Args:
      returns: estimates the targets.
      cost: weight of the squared error.
      head: output that holds the values of the actions, `[A]`.
      policy: whose values they are; greedy for Q-learning, the one that acts for expected Sarsa.

    Source: Sutton & Barto (2018), sections 6.5 and 6.6; with returns of any kind as targets, Xu et al. (2020).
    """

    returns: ReturnEstimator
    cost: NonNegative = 0.5
    head: str = 'action_value'
    policy: CategoricalPolicy = Greedy()

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.head: (num_actions(spec),)}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[Array, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        action_values = outputs[self.head]
        policy = self.policy(outputs, action_values.shape[:-1])
        values = jnp.sum(policy.probabilities() * action_values, -1)
        return estimate_returns(self.returns, values, log_rho(policy, trajectory), trajectory).target, state

    def loss(self, predictions: Predictions, targets: Array, trajectory: Trajectory) -> tuple[Array, Logs]:
        value = jnp.square(targets - of_action(predictions[self.head], trajectory.action))
        return weighted_or_zero(self.cost, value), {'value': value}
